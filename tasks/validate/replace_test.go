package validate_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/tasks/task"
	"github.com/aphex-pipeline/aphex/tasks/validate"
)

// staleRun is the request of a run whose topology is "sha256:old".
func staleRun() task.Request {
	return task.Request{Run: task.Run{Namespace: "shop", Name: "shop-1", UID: "uid-1"}, Pipeline: "shop", Topology: "sha256:old"}
}

// cluster holds the run and a template of the given topology; empty is none.
func cluster(t *testing.T, topology string) *kubetest.Server {
	t.Helper()
	s := kubetest.New(t)
	s.Put("workflows", kubetest.Object{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
		"metadata": map[string]any{"name": "shop-1", "namespace": "shop", "uid": "uid-1", "annotations": map[string]any{"kept": "yes"}},
		"spec": map[string]any{
			"workflowTemplateRef": map[string]any{"name": "shop"},
			"arguments": map[string]any{"parameters": []any{
				map[string]any{"name": "commit-sha", "value": "abc"}, map[string]any{"name": "branch", "value": "main"},
			}},
		},
	})
	if topology != "" {
		s.Put("workflowtemplates", kubetest.Object{
			"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTemplate",
			"metadata": map[string]any{"name": "shop", "namespace": "shop", "annotations": map[string]any{pipeline.AnnotationTopology: topology}},
		})
	}
	return s
}

// annotations returns those of a Workflow.
func annotations(s *kubetest.Server, name string) map[string]any {
	meta, _ := s.Get("workflows", "shop", name)["metadata"].(map[string]any) // nil has none
	found, _ := meta["annotations"].(map[string]any)                         // nil is none
	return found
}

// writes counts the calls that change something.
func writes(s *kubetest.Server) int {
	n := 0
	for _, call := range s.Calls() {
		if call.Verb != "get" && call.Verb != "watch" {
			n++
		}
	}
	return n
}

func TestReplace_StaleRunGetsOneReplacement(t *testing.T) {
	t.Parallel()
	s := cluster(t, "sha256:new")
	r := validate.NewReplacer(s.Client(t))
	name, err := r.Replace(t.Context(), staleRun())
	require.NoError(t, err)
	require.Regexp(t, `^shop-1-r[0-9a-f]{10}$`, name)

	replacement := s.Get("workflows", "shop", name)
	require.NotNil(t, replacement)
	require.Equal(t, map[string]any{pipeline.AnnotationReplaces: "shop-1"}, annotations(s, name))
	require.Equal(t, map[string]any{
		"workflowTemplateRef": map[string]any{"name": "shop"},
		"arguments": map[string]any{"parameters": []any{
			map[string]any{"name": "branch", "value": "main"}, map[string]any{"name": "commit-sha", "value": "abc"},
		}},
	}, replacement["spec"])

	again, err := r.Replace(t.Context(), staleRun())
	require.NoError(t, err)
	require.Equal(t, name, again)
	creations := 0
	for _, call := range s.Calls() {
		if call.Verb == "create" {
			creations++
			require.Contains(t, string(call.Body), `"name":"`+name+`"`, "a second one would have another name")
		}
	}
	require.Equal(t, 2, creations, "the API server, not a look before, decides that there is one already")
	require.Equal(t, replacement, s.Get("workflows", "shop", name), "it is the first one still")
	require.Equal(t, map[string]any{"kept": "yes", pipeline.AnnotationReplacedBy: name}, annotations(s, "shop-1"))
}

func TestReplace_CurrentRunsAreLeftAlone(t *testing.T) {
	t.Parallel()
	for name, topology := range map[string]string{"the same topology": "sha256:old", "no template": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := cluster(t, topology)
			got, err := validate.NewReplacer(s.Client(t)).Replace(t.Context(), staleRun())
			require.NoError(t, err)
			require.Empty(t, got)
			require.Zero(t, writes(s))
		})
	}
	t.Run("a template without a topology", func(t *testing.T) {
		t.Parallel()
		s := cluster(t, "sha256:new")
		s.Change("workflowtemplates", "shop", "shop", func(o kubetest.Object) {
			delete(o["metadata"].(map[string]any), "annotations")
		})
		got, err := validate.NewReplacer(s.Client(t)).Replace(t.Context(), staleRun())
		require.NoError(t, err)
		require.Empty(t, got)
	})
}

func TestReplace_RefusedByTheAPIServer(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		resource, verb, op string
	}{
		"no right to read the template": {"workflowtemplates", "get", "read the pipeline's template"},
		"no right to read the run":      {"workflows", "get", "read the run"},
		"no right to create":            {"workflows", "create", "start the replacement of the run"},
		"no right to annotate":          {"workflows", "patch", "link the run to its replacement"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := cluster(t, "sha256:new")
			s.Forbid(tt.resource, tt.verb)
			got, err := validate.NewReplacer(s.Client(t)).Replace(t.Context(), staleRun())
			require.Empty(t, got)
			require.ErrorIs(t, err, &fault.Fault{Reason: fault.KubernetesRejected})
			f := fault.From(err)
			require.Equal(t, fault.User, f.Class)
			require.Equal(t, tt.op, f.Op)
			require.ErrorContains(t, err, "the test cannot "+tt.verb+" "+tt.resource)
			require.Contains(t, f.Remedy, "service account")
		})
	}
	t.Run("an API server that is down", func(t *testing.T) {
		t.Parallel()
		s := cluster(t, "sha256:new")
		s.Deny(func(kubetest.Call) *metav1.Status {
			return &metav1.Status{Code: http.StatusInternalServerError, Message: "etcd is away"}
		})
		_, err := validate.NewReplacer(s.Client(t)).Replace(t.Context(), staleRun())
		require.ErrorIs(t, err, &fault.Fault{Reason: fault.KubernetesRejected})
		require.Equal(t, fault.Transient, fault.From(err).Class)
	})
}

func TestReplace_AfterDyingBetweenCreationAndLink(t *testing.T) {
	t.Parallel()
	s := cluster(t, "sha256:new")
	s.Forbid("workflows", "patch")
	r := validate.NewReplacer(s.Client(t))
	_, err := r.Replace(t.Context(), staleRun())
	require.Error(t, err)
	s.Deny(nil)
	name, err := r.Replace(t.Context(), staleRun())
	require.NoError(t, err)
	require.Equal(t, "shop-1", annotations(s, name)[pipeline.AnnotationReplaces])
	require.Equal(t, map[string]any{"kept": "yes", pipeline.AnnotationReplacedBy: name}, annotations(s, "shop-1"))
}

func TestReplace_AnotherRunOfTheSameNameIsNotTouched(t *testing.T) {
	t.Parallel()
	s := cluster(t, "sha256:new")
	req := staleRun()
	req.Run.UID = "uid-earlier"
	_, err := validate.NewReplacer(s.Client(t)).Replace(t.Context(), req)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.KubernetesRejected})
	require.Equal(t, map[string]any{"kept": "yes"}, annotations(s, "shop-1"))
}

func TestReplace_Cancelled(t *testing.T) {
	t.Parallel()
	s := cluster(t, "sha256:new")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the run was stopped"))
	_, err := validate.NewReplacer(s.Client(t)).Replace(ctx, staleRun())
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.Cancellation})
	require.ErrorContains(t, err, "the run was stopped")
}

func TestRun_StaleRunEndsItself(t *testing.T) {
	t.Parallel()
	s := cluster(t, "sha256:new")
	b := newBench(t, "no: configuration\n", nil)
	b.start = validate.NewReplacer(s.Client(t))
	for range 2 {
		got, err := b.run(t.Context())
		require.NoError(t, err)
		require.Equal(t, string(fault.StaleTopology), got.Reason)
		require.Equal(t, map[string]string{task.OutputProceed: "false"}, got.Outputs)
		require.Regexp(t, `run shop-1-r[0-9a-f]{10} replaces it`, got.Message)
	}
	require.Empty(t, b.git.Requests(), "nothing is cloned for a run that ends here")
	require.Empty(t, b.proven)
}

func TestRun_CurrentRunGoesOn(t *testing.T) {
	t.Parallel()
	s := cluster(t, "sha256:old")
	b := newBench(t, config(anyBuild, ""), nil)
	b.start = validate.NewReplacer(s.Client(t))
	got, err := b.run(t.Context())
	require.NoError(t, err)
	require.Equal(t, "true", got.Outputs[task.OutputProceed])

	s.Forbid("workflowtemplates", "get")
	got, err = b.run(t.Context())
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.KubernetesRejected})
	require.Empty(t, got)
}
