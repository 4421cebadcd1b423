package workflow

import (
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// Runs whose stages have a pod each, for controllers that do not run executor
// plugins. The container main does what the plugin does in an agent pod, for
// one stage; everything else of the pod comes with the patch, which Argo
// applies last: containers of a template would get Argo's own volume, and with
// it a hand in the stage's outputs.
const (
	// containerWait is Argo's own container of a stage's pod.
	containerWait = "wait"

	volumeKubernetes = "aphex-kubernetes"
	dirKubernetes    = "/var/run/secrets/kubernetes.io/serviceaccount"
	// secretKubernetes holds the token of the plugin's service account.
	secretKubernetes = containerPlugin + ".service-account-token"
	dirOutputs       = dirPrivate + "/outputs"

	// stageLimit is above the longest timeout of a configuration (24 h) and
	// the limit of any stage: it ends stages whose pod never starts.
	stageLimit = "26h"
	// podRetries is how often a stage whose pod was lost, or whose end Argo
	// could not see, gets another one. It is the same execution: what has
	// ended is replayed, what has begun is joined.
	podRetries = "2"
)

// forStagePods makes spec, which is that of plugin runs, one of stage pods.
// Only the container main has the plugin's identity in the cluster; wait,
// which is Argo's, has the run's; the worker has none.
func forStagePods(s *spec, inst pipeline.Installation) {
	s.AutomountToken = new(false)
	s.Executor = &executor{ServiceAccountName: quoted(inst.ServiceAccount)}
	// Pods of failed runs stay for whoever looks for the reason.
	s.PodGC = &podGC{Strategy: "OnWorkflowSuccess"}
	s.PodMetadata = podMetadata(quoted(inst.Pipeline), containerWait)
	dependOnAttempts(s.Templates[0].DAG.Tasks)
}

// dependOnAttempts lets the stage after deploy-pipeline depend on the one
// before it too, which changes nothing in the order. Argo looks at the
// dependencies of a stage until it comes to one that has ended. After a
// memoized resubmit deploy-pipeline has ended, as its node is that of its pod,
// but the nodes of the stages before it are pending, though their attempts have
// ended: looked at by nobody, they would keep the run going for ever.
//
// Source: workflow/util, FormulateResubmitWorkflow, and workflow/controller,
// executeDAGTask and assessDAGPhase, Argo v3.7.18.
func dependOnAttempts(tasks []dagTask) {
	for n := 2; n < len(tasks); n++ {
		if tasks[n-1].Name == task.StageDeployPipeline {
			tasks[n].Depends = "(" + tasks[n].Depends + ") && " + tasks[n-1].Depends
		}
	}
}

// containerTemplate is the stage in a pod of its own. Arguments of the run are
// arguments of the program, never text of a shell.
func containerTemplate(node pipeline.Node, step body, inst pipeline.Installation) template {
	args := []quoted{
		"--workflow={{workflow.name}}", "--workflow-uid={{workflow.uid}}", "--namespace={{workflow.namespace}}",
		"--outputs=" + dirOutputs,
		"--node=" + step.Node, "--pipeline=" + step.Pipeline, "--topology=" + step.Topology, "--config=" + step.Config,
		"--repo=" + step.Repo, "--commit=" + step.Commit, "--branch=" + step.Branch, "--predecessor=" + step.Predecessor, "--allow-older=" + step.AllowOlder,
	}
	if step.Environment != "" {
		args = append(args, argEnvironment+step.Environment)
	}
	if step.Force != "" {
		args = append(args, "--force="+step.Force)
	}
	if step.Status != "" {
		args = append(args, "--status="+step.Status)
	}
	if step.Notifications != "" {
		args = append(args, "--notifications="+step.Notifications)
	}
	list := declared(node.Stage)
	for i := range list {
		list[i].ValueFrom.Supplied = nil
		list[i].ValueFrom.Path = dirOutputs + "/" + list[i].Name
	}
	list = append(list, parameter{
		Name:      task.OutputMessage,
		ValueFrom: &valueFrom{Path: dirOutputs + "/" + task.OutputMessage, Default: new(quoted(""))},
	})
	return template{
		Name:          quoted(node.Name()),
		Timeout:       stageLimit,
		RetryStrategy: podRetry(node),
		Container: &stepContainer{
			Image: quoted(inst.Images.Plugin), ImagePullPolicy: quoted(inst.ImagePullPolicy),
			Command: []quoted{"aphex", "task", step.Stage}, Args: args,
		},
		Metrics: stageMetrics(node, inst),
		Outputs: &outputs{Parameters: list},
	}
}

// podRetry is the strategy of the stage's template. The one stage that may fail
// without its run has none: `argo retry` sets a failed node that has attempts
// to running, whatever came after it, and nothing would end it again.
//
// Source: workflow/util, resetPath, Argo v3.7.18.
func podRetry(node pipeline.Node) *retryStrategy {
	if node.Stage == task.StageDeployPipeline {
		return nil
	}
	return &retryStrategy{Limit: podRetries, RetryPolicy: "OnError"}
}

// argEnvironment begins the argument that names a stage's environment.
const argEnvironment = "--environment="

// stagePod is the patch of every pod of a run. The worker is an init container
// that goes on (a native sidecar, Kubernetes 1.29 or later): it is there
// before main starts, and the kubelet ends it after main.
func stagePod(inst pipeline.Installation) podSpec {
	worker := workerContainer(inst)
	worker.RestartPolicy = "Always"
	main := pluginContainer(inst)
	main.Name, main.Image, main.ImagePullPolicy = containerMain, "", ""
	main.Env = append(main.Env, variable{Name: "GOMEMLIMIT", Value: "700MiB"})
	main.Resources = &resources{
		Requests: map[string]string{"cpu": "50m", "memory": "128Mi"},
		Limits:   map[string]string{"cpu": "2", "memory": "1Gi"},
	}
	main.SecurityContext = restricted(uidPlugin, true)
	main.VolumeMounts = append(main.VolumeMounts, mount{Name: volumeKubernetes, MountPath: dirKubernetes, ReadOnly: true})
	return podSpec{
		TerminationGracePeriodSeconds: graceSeconds,
		InitContainers:                []container{installContainer(inst), worker},
		Containers:                    []container{main},
		Volumes: append(podVolumes(inst), volume{
			Name:   volumeKubernetes,
			Secret: &secret{SecretName: secretKubernetes, DefaultMode: modeSecret},
		}),
	}
}
