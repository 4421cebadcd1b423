package pipeline_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

func replaced() pipeline.Replaced {
	return pipeline.Replaced{
		Name: "shop-x7k2p", Namespace: "shop", UID: "3f8c", Pipeline: "shop", Topology: "sha256:1",
		Arguments: map[string]string{pipeline.ArgumentCommit: strings.Repeat("a", 40), pipeline.ArgumentBranch: "main"},
	}
}

func TestReplacement_Manifest(t *testing.T) {
	t.Parallel()
	name, manifest := pipeline.Replacement(replaced())
	require.Regexp(t, `\Ashop-x7k2p-r[0-9a-f]{10}\z`, name)
	require.Equal(t, map[string]any{
		"apiVersion": "argoproj.io/v1alpha1",
		"kind":       "Workflow",
		"metadata": map[string]any{
			"name": name, "namespace": "shop",
			"labels":      map[string]any{"aphex.dev/pipeline": "shop", "workflows.argoproj.io/workflow-template": "shop"},
			"annotations": map[string]any{"aphex.dev/replaces": "shop-x7k2p"},
		},
		"spec": map[string]any{
			"workflowTemplateRef": map[string]any{"name": "shop"},
			"arguments": map[string]any{"parameters": []any{
				map[string]any{"name": "branch", "value": "main"},
				map[string]any{"name": "commit-sha", "value": strings.Repeat("a", 40)},
			}},
		},
	}, manifest)
	// internal/kube copies manifests this way, which panics on other types.
	require.NotPanics(t, func() { (&unstructured.Unstructured{Object: manifest}).DeepCopy() })
}

func TestReplacement_NameIsDerived(t *testing.T) {
	t.Parallel()
	first, _ := pipeline.Replacement(replaced())
	again, _ := pipeline.Replacement(replaced())
	require.Equal(t, first, again)

	for what, change := range map[string]func(*pipeline.Replaced){
		"uid": func(r *pipeline.Replaced) { r.UID = "other" }, "topology": func(r *pipeline.Replaced) { r.Topology = "sha256:2" },
	} {
		r := replaced()
		change(&r)
		other, _ := pipeline.Replacement(r)
		require.NotEqual(t, first, other, what)
	}

	r := replaced()
	r.Name, r.UID = first, "second"
	second, _ := pipeline.Replacement(r)
	require.Regexp(t, `\Ashop-x7k2p-r[0-9a-f]{10}\z`, second, "a replacement's replacement is no longer than the first")
	require.NotEqual(t, first, second)
}

func TestReplacement_NameIsValid(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := replaced()
		r.Name = rapid.StringMatching(`[a-z0-9]([a-z0-9.-]{0,80}[a-z0-9])?`).
			Filter(func(name string) bool { return len(validation.IsDNS1123Subdomain(name)) == 0 }).Draw(t, "name")
		name, _ := pipeline.Replacement(r)
		require.Empty(t, validation.IsDNS1123Subdomain(name), name)
		require.LessOrEqual(t, len(name), 63)
	})
}

func TestSuccessor_IsOneForEachRun(t *testing.T) {
	t.Parallel()
	run := pipeline.HandedOver{
		Name: "shop-x7k2p", Namespace: "shop", UID: "3f8c", Pipeline: "shop", Arguments: map[string]string{pipeline.ArgumentCommit: "abc"},
	}
	name, manifest := pipeline.Successor(run)
	require.Regexp(t, `\Ashop-x7k2p-s[0-9a-f]{10}\z`, name)
	require.Equal(t, map[string]any{
		"name": name, "namespace": "shop",
		"labels":      map[string]any{"aphex.dev/pipeline": "shop", "workflows.argoproj.io/workflow-template": "shop"},
		"annotations": map[string]any{"aphex.dev/succeeds": "shop-x7k2p"},
	}, manifest["metadata"])
	require.Equal(t, map[string]any{
		"workflowTemplateRef": map[string]any{"name": "shop"},
		"arguments": map[string]any{"parameters": []any{
			map[string]any{"name": "commit-sha", "value": "abc"}, map[string]any{"name": "predecessor", "value": "3f8c"},
		}},
	}, manifest["spec"])
	require.Equal(t, map[string]string{pipeline.ArgumentCommit: "abc"}, run.Arguments, "the run's own arguments stay")

	run.Arguments["branch"] = "other"
	again, _ := pipeline.Successor(run)
	require.Equal(t, name, again, "whatever else differs")
	run.UID = "another"
	other, _ := pipeline.Successor(run)
	require.NotEqual(t, name, other)
}

// A successor that hands over again passes on who built, and its name does not
// grow.
func TestSuccessor_OfASuccessor(t *testing.T) {
	t.Parallel()
	name, manifest := pipeline.Successor(pipeline.HandedOver{
		Name: "shop-x7k2p-s0123456789", Namespace: "shop", UID: "second", Pipeline: "shop",
		Arguments: map[string]string{pipeline.ArgumentPredecessor: "first"},
	})
	require.Regexp(t, `\Ashop-x7k2p-s[0-9a-f]{10}\z`, name)
	parameters, _, err := unstructured.NestedSlice(manifest, "spec", "arguments", "parameters")
	require.NoError(t, err)
	require.Equal(t, []any{map[string]any{"name": "predecessor", "value": "first"}}, parameters)
}
