package workflow_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/tasks/task"
	"github.com/aphex-pipeline/aphex/tasks/workflow"
)

// stagePod is the pod of a container template as Argo 3.7.18 patches it.
const stagePod = `
automountServiceAccountToken: false
initContainers:
- {name: init, image: argoexec, volumeMounts: [{name: var-run-argo, mountPath: /var/run/argo}]}
containers:
- {name: wait, image: argoexec, volumeMounts: [{name: exec-sa-token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount}]}
- {name: main, image: "aphex/plugin:dev", command: [aphex, task, build], env: [{name: ARGO_NODE_ID, value: x}]}
volumes:
- {name: var-run-argo, emptyDir: {}}
- {name: exec-sa-token, secret: {secretName: aphex-workflow.service-account-token}}
`

// The same stages, in the same order and under the same conditions, whatever
// runs them.
func TestGenerate_RunnersHaveTheSameDAG(t *testing.T) {
	t.Parallel()
	cfg, inst := load(t, filepath.Join(goldenDir, "container"))
	data, err := workflow.Generate(cfg, inst)
	require.NoError(t, err)
	inst.Runner = pipeline.RunnerPlugin
	other, err := workflow.Generate(cfg, inst)
	require.NoError(t, err)
	containers, plugin := decode(t, data), decode(t, other)
	tasks := plugin.GetTemplateByName("pipeline").DAG.Tasks
	after := slices.IndexFunc(tasks, func(task wfv1.DAGTask) bool { return task.Name == "deploy-pipeline" }) + 1
	tasks[after].Depends = "(" + tasks[after].Depends + ") && build.Succeeded" // which orders nothing: see dependOnAttempts
	require.Equal(t, plugin.GetTemplateByName("pipeline"), containers.GetTemplateByName("pipeline"))
	require.Equal(t, plugin.Annotations, containers.Annotations)
	require.Equal(t, plugin.Spec.OnExit, containers.Spec.OnExit)
	require.Equal(t, plugin.Spec.ServiceAccountName, containers.Spec.ServiceAccountName)
	require.Len(t, containers.Spec.Templates, len(plugin.Spec.Templates))
	for i, template := range containers.Spec.Templates {
		require.Equal(t, plugin.Spec.Templates[i].Name, template.Name)
		require.Nil(t, template.Plugin)
		require.Nil(t, template.Volumes)
		require.Nil(t, template.Sidecars, "Argo would give them a hand in the outputs")
	}
}

// A stage whose pod is lost gets another one; the stage that may fail without
// its run does not: Argo could not retry the run.
func TestGenerate_RetriesOfStagePods(t *testing.T) {
	t.Parallel()
	cfg, inst := load(t, filepath.Join(goldenDir, "container"))
	data, err := workflow.Generate(cfg, inst)
	require.NoError(t, err)
	tmpl := decode(t, data)
	for _, node := range pipeline.Topology(cfg) {
		strategy := tmpl.GetTemplateByName(node.Name()).RetryStrategy
		if node.Stage == task.StageDeployPipeline {
			require.Nil(t, strategy)
			continue
		}
		require.NotNil(t, strategy, node.Name())
		require.Equal(t, "OnError", string(strategy.RetryPolicy))
	}
}

// A stage's pod gets as arguments what the plugin gets as a body.
func TestGenerate_ArgumentsOfStagePods(t *testing.T) {
	t.Parallel()
	cfg, inst := load(t, filepath.Join(goldenDir, "container"))
	data, err := workflow.Generate(cfg, inst)
	require.NoError(t, err)
	tmpl := decode(t, data)
	for _, node := range pipeline.Topology(cfg) {
		step := tmpl.GetTemplateByName(node.Name())
		require.Equal(t, []string{"aphex", "task", node.Stage}, step.Container.Command)
		want := []string{
			"--workflow={{workflow.name}}", "--workflow-uid={{workflow.uid}}", "--namespace={{workflow.namespace}}",
			"--outputs=/var/aphex/outputs", "--node={{node.name}}", "--pipeline=shop", "--topology=" + pipeline.TopologyDigest(cfg),
			"--config=aphex-config.yaml", "--repo={{workflow.parameters.repo-url}}", "--commit={{workflow.parameters.commit-sha}}",
			"--branch={{workflow.parameters.branch}}", "--predecessor={{workflow.parameters.predecessor}}", "--allow-older={{workflow.parameters.allow-older}}",
		}
		if node.Environment != "" {
			want = append(want, "--environment="+node.Environment)
		}
		if node.Stage == task.StageDeployEnv {
			want = append(want, "--force={{workflow.parameters.force}}")
		}
		if node.Stage == task.StageFinish {
			want = append(want, "--status={{workflow.status}}", "--notifications="+notify.Plan{Channels: cfg.Notifications}.Encode())
		}
		require.Equal(t, want, step.Container.Args)
		var names []string
		for _, p := range step.Outputs.Parameters {
			require.Equal(t, "/var/aphex/outputs/"+p.Name, p.ValueFrom.Path)
			names = append(names, p.Name)
		}
		require.Equal(t, append(task.Outputs(node.Stage), task.OutputMessage), names)
	}
}

// Each container of a stage's pod has its own identity and no other's: main
// the plugin's and the cloud's, wait the run's, the worker none.
func TestGenerate_PatchedStagePod(t *testing.T) {
	t.Parallel()
	cfg, inst := load(t, filepath.Join(goldenDir, "container"))
	data, err := workflow.Generate(cfg, inst)
	require.NoError(t, err)
	tmpl := decode(t, data)
	require.False(t, *tmpl.Spec.AutomountServiceAccountToken)
	require.Equal(t, "aphex-workflow", tmpl.Spec.Executor.ServiceAccountName)
	require.Equal(t, "init,aphex-install,wait,worker", tmpl.Spec.PodMetadata.Annotations["eks.amazonaws.com/skip-containers"])
	pod := patchPod(t, stagePod, tmpl.Spec.PodSpecPatch)
	named := func(list []corev1.Container, name string) corev1.Container {
		at := slices.IndexFunc(list, func(c corev1.Container) bool { return c.Name == name })
		require.GreaterOrEqual(t, at, 0, name)
		return list[at]
	}
	require.Len(t, pod.Containers, 2)
	main, worker, install := named(pod.Containers, "main"), named(pod.InitContainers, "worker"), named(pod.InitContainers, "aphex-install")
	require.Less(t, slices.IndexFunc(pod.InitContainers, func(c corev1.Container) bool { return c.Name == "aphex-install" }),
		slices.IndexFunc(pod.InitContainers, func(c corev1.Container) bool { return c.Name == "worker" }), "the worker runs what the other installs")
	require.Equal(t, "aphex/plugin:dev", main.Image)
	require.Equal(t, map[string]bool{
		"/aphex/run": true, "/var/aphex": false, "/var/run/secrets/aphex/git": true, "/var/run/secrets/aphex/aws": true,
		"/var/run/secrets/kubernetes.io/serviceaccount": true,
	}, mounts(main))
	require.Equal(t, corev1.ContainerRestartPolicyAlways, *worker.RestartPolicy)
	require.Nil(t, install.RestartPolicy)
	require.Equal(t, map[string]bool{"/aphex/bin": true, "/aphex/run": false, "/workspace": false}, mounts(worker))
	require.Equal(t, map[string]bool{"/aphex/bin": false}, mounts(install))
	for _, v := range pod.Volumes {
		if v.Name == "aphex-kubernetes" {
			require.Equal(t, "aphex-executor-plugin.service-account-token", v.Secret.SecretName)
		}
	}
	for _, variable := range worker.Env {
		require.False(t, strings.HasPrefix(variable.Name, "APHEX_") || variable.Value != "", variable.Name)
	}
}
