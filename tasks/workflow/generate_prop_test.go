package workflow_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"
	kyaml "sigs.k8s.io/yaml"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/tasks/task"
	"github.com/aphex-pipeline/aphex/tasks/workflow"
)

// needle marks text of the repository's that must not reach the template.
const needle = "needle"

// drawConfig draws a configuration with hostile names among the harmless ones.
func drawConfig(t *rapid.T) *pipeline.Config {
	names := rapid.SliceOfNDistinct(rapid.OneOf(
		rapid.SampledFrom([]string{"y", "n", "no", "on", "null", "true", "1e3", "0x1f", "012", "1", "0o7", "dev", "a-b"}),
		rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?`),
	).Filter(func(name string) bool { return name != "pipeline" }), 1, 8, rapid.ID[string]).Draw(t, "environments")
	text := func(label string) string { return needle + rapid.String().Draw(t, label) }
	cfg := &pipeline.Config{
		Version: "1.0",
		Build:   pipeline.Build{Commands: []string{text("command")}, Env: map[string]string{"A": text("value")}},
		Tools:   []string{text("tool")},
	}
	for _, name := range names {
		env := pipeline.Environment{
			Name: name, Region: "eu-west-1", Account: "111111111111",
			Stacks: []pipeline.Stack{{Name: text("stack"), Path: text("path")}},
		}
		if rapid.Bool().Draw(t, "tests") {
			env.Tests = &pipeline.Tests{}
		}
		if env.Tests != nil && rapid.Bool().Draw(t, "test commands") {
			env.Tests.Commands = []string{text("test")}
		}
		cfg.Environments = append(cfg.Environments, env)
	}
	if rapid.Bool().Draw(t, "worker") {
		cfg.Worker.Image = rapid.StringMatching(`[a-z0-9]{1,8}(/[a-z0-9]{1,8})?:[0-9.]{1,6}`).Draw(t, "image")
		cfg.Worker.Resources.Limits = map[string]string{"memory": rapid.SampledFrom([]string{"64Mi", "1Gi", "16Gi"}).Draw(t, "memory")}
	}
	return cfg
}

func drawInstallation(t *rapid.T) pipeline.Installation {
	word := rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?`)
	inst := pipeline.Installation{
		Pipeline: word.Draw(t, "pipeline"), Namespace: "ns-" + word.Draw(t, "namespace"),
		RepoURL: "https://git.example.com/" + word.Draw(t, "repo"), Bucket: "bucket-" + word.Draw(t, "bucket"), Region: "eu-west-1",
		BucketPrefix: rapid.SampledFrom([]string{"", "0755", "1.0", "no", "a/b"}).Draw(t, "prefix"),
		Branch:       rapid.SampledFrom([]string{"", "main", "1.0", "no", "0x10", "12", "release/2026.11", "1_000", "2026-11-24", "a=b"}).Draw(t, "branch"),
		Images:       pipeline.Images{Plugin: word.Draw(t, "plugin"), Worker: word.Draw(t, "default worker")},
	}
	inst.Runner = rapid.SampledFrom([]string{"", pipeline.RunnerPlugin, pipeline.RunnerContainer}).Draw(t, "runner")
	if rapid.Bool().Draw(t, "token") {
		inst.AWS = pipeline.AWSIdentity{ProjectToken: true, RoleARN: "arn:aws:iam::111111111111:role/" + word.Draw(t, "role")}
	}
	return inst
}

// Feature: aphex-pipeline, Property 6: WorkflowTemplate generation from configuration
func TestGenerate_Laws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		cfg, inst := drawConfig(t), drawInstallation(t)
		data, err := workflow.Generate(cfg, inst)
		require.NoError(t, err)
		again, err := workflow.Generate(cfg, inst)
		require.NoError(t, err)
		require.Equal(t, data, again, "equal input gives equal bytes")

		tmpl := decode(t, data)
		validateArgo(t, tmpl)

		require.NotContains(t, string(data), needle, "no text of commands, stacks or tools")

		var environments, tests []string
		for i := range tmpl.Spec.Templates {
			step := &tmpl.Spec.Templates[i]
			body, ok := stepOf(t, step)
			if !ok {
				continue
			}
			require.Equal(t, inst.Pipeline, body["pipeline"])
			require.Equal(t, "{{node.name}}", body["node"])
			switch body["stage"] {
			case task.StageDeployEnv:
				environments = append(environments, body["environment"])
			case task.StageTest:
				tests = append(tests, body["environment"])
			}
		}
		var want, wantTests []string
		for _, env := range cfg.Environments {
			want = append(want, env.Name)
			if env.Tests != nil && len(env.Tests.Commands) > 0 {
				wantTests = append(wantTests, env.Name)
			}
		}
		require.Equal(t, want, environments, "one stage per environment, in order")
		require.Equal(t, wantTests, tests)

		dag, err := json.Marshal(tmpl.GetTemplateByName(tmpl.Spec.Entrypoint).DAG)
		require.NoError(t, err)
		require.NotContains(t, string(dag), "tasks.deploy-pipeline.", "nothing may wait for outputs of a stage that is allowed to fail")

		checkArguments(t, inst.WithDefaults(), data)
		checkPatch(t, cfg, inst, tmpl.Spec.PodSpecPatch)
	})
}

// checkArguments reads the bytes with the YAML 1.1 rules of kubectl and Argo
// and finds the values that went in.
func checkArguments(t *rapid.T, inst pipeline.Installation, data []byte) {
	var raw struct {
		Metadata struct{ Name, Namespace any }
		Spec     struct {
			Arguments struct {
				Parameters []struct{ Name, Value any }
			}
		}
	}
	require.NoError(t, kyaml.Unmarshal(data, &raw))
	require.Equal(t, any(inst.Pipeline), raw.Metadata.Name)
	require.Equal(t, any(inst.Namespace), raw.Metadata.Namespace)
	values := map[any]any{}
	for _, p := range raw.Spec.Arguments.Parameters {
		values[p.Name] = p.Value
	}
	require.Equal(t, map[any]any{
		pipeline.ArgumentCommit: nil, pipeline.ArgumentBranch: inst.Branch,
		pipeline.ArgumentRepoURL: inst.RepoURL, pipeline.ArgumentAllowOlder: "false", pipeline.ArgumentForce: "false", pipeline.ArgumentPredecessor: "",
	}, values)
}

// stepOf returns what a template tells its stage, if it is a stage's.
func stepOf(t *rapid.T, step *wfv1.Template) (map[string]string, bool) {
	switch {
	case step.Plugin != nil:
		return bodyOf(t, step), true
	case step.Container == nil:
		return nil, false
	}
	body := map[string]string{"stage": step.Container.Command[2]}
	for _, arg := range step.Container.Args {
		name, value, ok := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		require.True(t, ok, "one argument each: %s", arg)
		body[name] = value
	}
	return body, true
}

func checkPatch(t *rapid.T, cfg *pipeline.Config, inst pipeline.Installation, patch string) {
	require.NotContains(t, patch, "{{", "Argo must find no tag to replace")
	var pod corev1.PodSpec
	require.NoError(t, kyaml.UnmarshalStrict([]byte(patch), &pod))
	image := inst.Images.Worker
	if cfg.Worker.Image != "" {
		image = cfg.Worker.Image
	}
	worker := &pod.InitContainers[len(pod.InitContainers)-1] // of a stage's pod
	if inst.Runner != pipeline.RunnerContainer {
		worker = &pod.Containers[2]
	}
	require.Equal(t, image, worker.Image)
	env := map[string]string{}
	for _, variable := range pod.Containers[0].Env {
		env[variable.Name] = variable.Value
	}
	require.Equal(t, inst.Pipeline, env["APHEX_PIPELINE"])
	require.Equal(t, inst.Bucket, env["APHEX_BUCKET"])
	require.Equal(t, inst.BucketPrefix, env["APHEX_BUCKET_PREFIX"])
	limit, request := worker.Resources.Limits.Memory(), worker.Resources.Requests.Memory()
	require.GreaterOrEqual(t, limit.Cmp(*request), 0)
}

// Whatever string stands where the repository or the installation has a say,
// the generator refuses it or the value comes back from YAML as it went in.
func TestGenerate_HostileStringsCannotEscape(t *testing.T) {
	t.Parallel()
	hostile := rapid.OneOf(
		rapid.String(),
		rapid.StringMatching(`[a-z"'{}\[\]:#&*!|>%@,\n\t -]{0,20}`),
		rapid.SampledFrom([]string{"{{workflow.name}}", "a\"}],\"b\":[{\"", "a: b", "- a", "a #b", "&a", "*a", "!!int 1", "|\n  a", "\x00", "\u2028", "\ufeff", "a\r\nb", "<<"}),
	)
	rapid.Check(t, func(t *rapid.T) {
		value := hostile.Draw(t, "value")
		cfg, inst := drawConfig(t), drawInstallation(t)
		places := map[string]func(){
			"environment":  func() { cfg.Environments[0].Name = value },
			"image":        func() { cfg.Worker.Image = value },
			"limit":        func() { cfg.Worker.Resources.Limits = map[string]string{"cpu": value} },
			"resource":     func() { cfg.Worker.Resources.Requests = map[string]string{value: "1"} },
			"argo":         func() { cfg.Argo.URL = value },
			"pipeline":     func() { inst.Pipeline = value },
			"namespace":    func() { inst.Namespace = value },
			"repository":   func() { inst.RepoURL = value },
			"branch":       func() { inst.Branch = value },
			"config":       func() { inst.ConfigPath = value },
			"bucket":       func() { inst.Bucket = value },
			"prefix":       func() { inst.BucketPrefix = value },
			"region":       func() { inst.Region = value },
			"endpoint":     func() { inst.EndpointURL = value },
			"role":         func() { inst.AWS.RoleARN = value },
			"audience":     func() { inst.AWS.Audience = value },
			"secret":       func() { inst.GitSecret = value },
			"pull secret":  func() { inst.ImagePullSecrets = []string{value} },
			"plugin image": func() { inst.Images.Plugin = value },
		}
		place := rapid.SampledFrom(slices.Sorted(maps.Keys(places))).Draw(t, "place")
		baseline, err := workflow.Generate(cfg, inst)
		require.NoError(t, err)
		places[place]()
		data, err := workflow.Generate(cfg, inst)
		if err != nil {
			var invalid *pipeline.InvalidError
			require.ErrorAs(t, err, &invalid)
			return
		}
		require.Equal(t, shape(t, baseline), shape(t, data), "the value changed the structure")
		validateArgo(t, decode(t, data))
	})
}

// shape is the template with all text, and what depends on it, taken out.
func shape(t *rapid.T, data []byte) string {
	tmpl := decode(t, data)
	var pod corev1.PodSpec
	require.NoError(t, kyaml.UnmarshalStrict([]byte(tmpl.Spec.PodSpecPatch), &pod))
	var parts []string
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		security, err := json.Marshal(c.SecurityContext)
		require.NoError(t, err)
		parts = append(parts, fmt.Sprintf("%s %s %d %v", c.Name, security, len(c.VolumeMounts), c.Command))
	}
	return fmt.Sprintf("%d templates, %d volumes, containers:\n%s", len(tmpl.Spec.Templates), len(pod.Volumes), strings.Join(parts, "\n"))
}
