package workflow_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	exprenv "github.com/argoproj/argo-workflows/v3/util/expr/env"
	"github.com/argoproj/argo-workflows/v3/util/template"
	"github.com/expr-lang/expr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"
	kyaml "sigs.k8s.io/yaml"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/tasks/task"
	"github.com/aphex-pipeline/aphex/tasks/workflow"
)

const goldenDir = "testdata/TestGenerate"

func TestGenerate(t *testing.T) {
	t.Parallel()
	cases, err := os.ReadDir(goldenDir)
	require.NoError(t, err)
	require.NotEmpty(t, cases)
	for _, c := range cases {
		t.Run(c.Name(), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(goldenDir, c.Name())
			got, err := workflow.Generate(load(t, dir))
			require.NoError(t, err)
			golden(t, filepath.Join(dir, "workflowtemplate.golden.yaml"), got)
			validateArgo(t, decode(t, got))
		})
	}
}

func TestGenerate_ConditionsAndDependencies(t *testing.T) {
	t.Parallel()
	cfg, inst := load(t, filepath.Join(goldenDir, "shop"))
	data, err := workflow.Generate(cfg, inst)
	require.NoError(t, err)
	tmpl := decode(t, data)
	type row struct{ name, depends, when string }
	var got []row
	for _, step := range tmpl.GetTemplateByName("pipeline").DAG.Tasks {
		require.Equal(t, step.Name, step.Template)
		got = append(got, row{step.Name, step.Depends, step.When})
	}
	const proceed = "{{tasks.validate.outputs.parameters.proceed}} == true"
	require.Equal(t, []row{
		{"validate", "", ""},
		{"build", "validate.Succeeded", proceed},
		{"deploy-pipeline", "build.Succeeded", proceed},
		{"deploy-dev", "deploy-pipeline.Succeeded || deploy-pipeline.Failed || deploy-pipeline.Errored", proceed},
		{"test-dev", "deploy-dev.Succeeded", proceed + " && {{tasks.deploy-dev.outputs.parameters.deployed}} == true"},
		{"deploy-prod", "test-dev.Succeeded || test-dev.Skipped", proceed},
	}, got)
	require.Equal(t, "finish", tmpl.Spec.OnExit)
	require.Equal(t, "aphex-shop", tmpl.Spec.Synchronization.Mutexes[0].Name)
}

// The body of each step is the wire contract with the plugin.
func TestGenerate_Bodies(t *testing.T) {
	t.Parallel()
	cfg, inst := load(t, filepath.Join(goldenDir, "shop"))
	data, err := workflow.Generate(cfg, inst)
	require.NoError(t, err)
	tmpl := decode(t, data)
	for _, node := range pipeline.Topology(cfg) {
		step := tmpl.GetTemplateByName(node.Name())
		require.NotNil(t, step, node.Name())
		want := map[string]string{
			"stage": node.Stage, "pipeline": "shop", "node": "{{node.name}}",
			"topology": pipeline.TopologyDigest(cfg), "config": "aphex-config.yaml",
			"repo":        "{{workflow.parameters.repo-url}}",
			"commit":      "{{workflow.parameters.commit-sha}}",
			"branch":      "{{workflow.parameters.branch}}",
			"allowOlder":  "{{workflow.parameters.allow-older}}",
			"predecessor": "{{workflow.parameters.predecessor}}",
		}
		if node.Environment != "" {
			want["environment"] = node.Environment
		}
		if node.Stage == task.StageDeployEnv {
			want["force"] = "{{workflow.parameters.force}}"
		}
		if node.Stage == task.StageFinish {
			want["status"] = "{{workflow.status}}"
		}
		require.Equal(t, want, bodyOf(t, step))
		var declared []string
		for _, p := range step.Outputs.Parameters {
			require.NotNil(t, p.ValueFrom.Supplied)
			declared = append(declared, p.Name)
		}
		require.Equal(t, task.Outputs(node.Stage), declared)
	}
	require.Len(t, tmpl.Spec.Templates, len(pipeline.Topology(cfg))+1)
}

// bodyOf returns the plugin body of a template.
func bodyOf(t requirer, step *wfv1.Template) map[string]string {
	t.Helper()
	var plugin struct {
		Aphex map[string]string `json:"aphex"`
	}
	require.NotNil(t, step.Plugin)
	require.NoError(t, json.Unmarshal(step.Plugin.Value, &plugin))
	return plugin.Aphex
}

func TestGenerate_StagesAreThoseOfTheContract(t *testing.T) {
	t.Parallel()
	stages := map[string]bool{}
	cfg, _ := load(t, filepath.Join(goldenDir, "shop"))
	for _, node := range pipeline.Topology(cfg) {
		require.NotEmpty(t, task.Outputs(node.Stage), node.Stage)
		stages[node.Stage] = true
	}
	require.Equal(t, map[string]bool{
		task.StageValidate: true, task.StageBuild: true, task.StageDeployPipeline: true,
		task.StageDeployEnv: true, task.StageTest: true, task.StageFinish: true,
	}, stages)
}

func TestGenerate_RefusesEnvironmentThatTakesAStagesName(t *testing.T) {
	t.Parallel()
	cfg, inst := load(t, filepath.Join(goldenDir, "minimal"))
	cfg.Environments[0].Name = "pipeline"
	_, err := workflow.Generate(cfg, inst)
	var invalid *pipeline.InvalidError
	require.ErrorAs(t, err, &invalid)
	require.ErrorContains(t, err, `"deploy-pipeline"`)

	cfg.Environments[0].Name = "dev.Succeeded || build"
	_, err = workflow.Generate(cfg, inst)
	require.ErrorAs(t, err, &invalid)
}

func TestGenerate_RefusesWhatCouldLeaveThePatch(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*pipeline.Config, *pipeline.Installation){
		"image with a quote": func(c *pipeline.Config, _ *pipeline.Installation) {
			c.Worker.Image = `x","privileged":true,"y":"`
		},
		"image with a tag": func(c *pipeline.Config, _ *pipeline.Installation) {
			c.Worker.Image = "{{workflow.parameters.branch}}"
		},
		"image with a new line": func(c *pipeline.Config, _ *pipeline.Installation) { c.Worker.Image = "a\nb" },
		"foreign resource": func(c *pipeline.Config, _ *pipeline.Installation) {
			c.Worker.Resources.Limits = map[string]string{"nvidia.com/gpu": "1"}
		},
		"quantity with a quote": func(c *pipeline.Config, _ *pipeline.Installation) {
			c.Worker.Resources.Requests = map[string]string{"cpu": `1"`}
		},
		"bucket with a tag": func(_ *pipeline.Config, i *pipeline.Installation) { i.Bucket = "{{workflow.name}}" },
		"argo url with a tag": func(c *pipeline.Config, _ *pipeline.Installation) {
			c.Argo.URL = "https://{{workflow.name}}.example.com"
		},
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, inst := load(t, filepath.Join(goldenDir, "minimal"))
			spoil(cfg, &inst)
			_, err := workflow.Generate(cfg, inst)
			var invalid *pipeline.InvalidError
			require.ErrorAs(t, err, &invalid)
		})
	}
}

// agentPod is the pod Argo 3.7.18 patches, as far as the patch meets it.
const agentPod = `
automountServiceAccountToken: false
initContainers:
- {name: init, image: argoexec, env: [{name: ARGO_AGENT_PATCH_RATE, value: 10s}]}
containers:
- name: aphex-executor-plugin
  image: aphex/plugin:other
  env: [{name: APHEX_LISTEN, value: "4355"}]
  ports: [{containerPort: 4355}]
  volumeMounts:
  - {name: var-run-argo, mountPath: /var/run/argo, readOnly: true, subPath: aphex-executor-plugin}
- name: main
  image: argoexec
  command: [argoexec]
  env: [{name: ARGO_WORKFLOW_NAME, value: run}, {name: ARGO_AGENT_PATCH_RATE, value: 10s}]
  volumeMounts: [{name: var-run-argo, mountPath: /var/run/argo}]
volumes:
- {name: var-run-argo, emptyDir: {}}
`

func TestGenerate_PatchedAgentPod(t *testing.T) {
	t.Parallel()
	cfg, inst := load(t, filepath.Join(goldenDir, "shop"))
	data, err := workflow.Generate(cfg, inst)
	require.NoError(t, err)
	patched := patchPod(t, agentPod, decode(t, data).Spec.PodSpecPatch)

	names := func(containers []corev1.Container) (list []string) {
		for _, c := range containers {
			list = append(list, c.Name)
		}
		return list
	}
	// The plugin must stay before main, whose start waits for it.
	require.Equal(t, []string{"aphex-executor-plugin", "main", "worker"}, names(patched.Containers))
	require.ElementsMatch(t, []string{"init", "aphex-install"}, names(patched.InitContainers))
	require.False(t, *patched.AutomountServiceAccountToken)
	plugin, main, worker := patched.Containers[0], patched.Containers[1], patched.Containers[2]

	require.ElementsMatch(t, []corev1.EnvVar{
		{Name: "ARGO_AGENT_PATCH_RATE", Value: "250ms"}, {Name: "ARGO_WORKFLOW_NAME", Value: "run"},
	}, main.Env)
	require.Equal(t, []string{"argoexec"}, main.Command)
	require.Equal(t, "aphex/plugin:dev", plugin.Image)
	require.Equal(t, map[string]bool{
		"/var/run/argo": true, "/aphex/run": true, "/var/aphex": false,
		"/var/run/secrets/aphex/git": true, "/var/run/secrets/aphex/aws": true,
	}, mounts(plugin))

	require.Equal(t, map[string]bool{"/aphex/bin": true, "/aphex/run": false, "/workspace": false}, mounts(worker))
	require.Equal(t, []string{"/aphex/bin/aphex", "worker", "--socket", "/aphex/run/worker.sock", "--root", "/workspace"}, worker.Command)
	require.Equal(t, int64(10001), *worker.SecurityContext.RunAsUser)
	require.Equal(t, int64(10001), *worker.SecurityContext.RunAsGroup)
	require.False(t, *worker.SecurityContext.AllowPrivilegeEscalation)
	require.Equal(t, []corev1.Capability{"ALL"}, worker.SecurityContext.Capabilities.Drop)
	require.Equal(t, []corev1.EnvVar{{Name: "AWS_CONTAINER_CREDENTIALS_FULL_URI"}}, worker.Env)
	secrets := map[string]bool{}
	for _, v := range patched.Volumes {
		secrets[v.Name] = v.Secret != nil || v.Projected != nil
	}
	for _, c := range []corev1.Container{worker, main, patched.InitContainers[0], patched.InitContainers[1]} {
		for _, m := range c.VolumeMounts {
			require.Contains(t, secrets, m.Name)
			require.False(t, secrets[m.Name], "%s mounts %s", c.Name, m.Name)
		}
	}
}

// patchPod applies a podSpecPatch to a pod as Argo's controller does: as a
// strategic merge, after a strict look at the patch.
func patchPod(t *testing.T, unpatched, patch string) corev1.PodSpec {
	t.Helper()
	var pod, strict, patched corev1.PodSpec
	require.NoError(t, kyaml.UnmarshalStrict([]byte(unpatched), &pod))
	require.NoError(t, kyaml.UnmarshalStrict([]byte(patch), &strict))
	before, err := json.Marshal(pod)
	require.NoError(t, err)
	after, err := strategicpatch.StrategicMergePatch(before, []byte(patch), corev1.PodSpec{})
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(after, &patched))
	return patched
}

// mounts returns whether a container's mounts are read-only, by path.
func mounts(c corev1.Container) map[string]bool {
	list := map[string]bool{}
	for _, m := range c.VolumeMounts {
		list[m.MountPath] = m.ReadOnly
	}
	return list
}

// Whatever a run is started with, its labels can be evaluated and are valid:
// the run must get as far as validate, which says what is wrong.
func TestGenerate_LabelsOfAnyArguments(t *testing.T) {
	t.Parallel()
	cfg, inst := load(t, filepath.Join(goldenDir, "minimal"))
	data, err := workflow.Generate(cfg, inst)
	require.NoError(t, err)
	labels := decode(t, data).Spec.WorkflowMetadata.LabelsFrom
	const sha = "0123456789abcdef0123456789abcdef01234567"
	tests := []struct{ commit, branch, wantCommit, wantBranch string }{
		{sha, "main", sha, "main"},
		{"{{body.after}}", "refs/heads/main", "", "refs-heads-main"},
		{"HEAD", "feature/été & co", "", "feature-t-co"},
		{"", "", "", ""},
		{sha + "\n", "-.-", "", ""},
		{strings.ToUpper(sha), strings.Repeat("x", 80), "", strings.Repeat("x", 63)},
		{sha, strings.Repeat("x", 62) + "-y", sha, strings.Repeat("x", 62)},
	}
	for _, tt := range tests {
		got := evaluate(t, labels, tt.commit, tt.branch)
		require.Equal(t, map[string]string{pipeline.LabelCommit: tt.wantCommit, pipeline.LabelBranch: tt.wantBranch}, got)
	}
}

// A run shows the commit and the branch it was started with: the commit as it
// is, of the branch what a label can hold.
//
// Feature: aphex-pipeline, Property 1: Git commit extraction
func TestGenerate_LabelsSayCommitAndBranch(t *testing.T) {
	t.Parallel()
	cfg, inst := load(t, filepath.Join(goldenDir, "minimal"))
	data, err := workflow.Generate(cfg, inst)
	require.NoError(t, err)
	labels := decode(t, data).Spec.WorkflowMetadata.LabelsFrom
	rapid.Check(t, func(t *rapid.T) {
		commit := rapid.StringMatching(`[0-9a-f]{40}`).Draw(t, "commit")
		branch := rapid.OneOf(rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._/-]{0,80}`), rapid.String()).Draw(t, "branch")
		got := evaluate(t, labels, commit, branch)
		require.Equal(t, commit, got[pipeline.LabelCommit])
		plain := regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
		if plain.MatchString(branch) {
			require.Equal(t, branch, got[pipeline.LabelBranch])
		}
	})
}

// evaluate returns the labels that Argo gives a run with these arguments.
func evaluate(t requirer, labels map[string]wfv1.LabelValueFrom, commit, branch string) map[string]string {
	t.Helper()
	env := exprenv.GetFuncMap(template.EnvMap(map[string]string{
		"workflow.parameters.commit-sha": commit, "workflow.parameters.branch": branch,
	}))
	got := map[string]string{}
	for name, from := range labels {
		program, err := expr.Compile(from.Expression, expr.Env(env))
		require.NoError(t, err)
		value, err := expr.Run(program, env)
		require.NoError(t, err)
		text, ok := value.(string)
		require.True(t, ok)
		require.Empty(t, validation.IsValidLabelValue(text), text)
		got[name] = text
	}
	return got
}
