package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/aphex-pipeline/aphex/e2e/cluster"
	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/kube"
)

var taskSets = schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "workflowtasksets"}

// controller switches Argo's controller on or off and waits for that.
func controller(t *testing.T, l *lab.Lab, on bool) {
	t.Helper()
	replicas := map[bool]string{true: "1", false: "0"}[on]
	ctx := context.WithoutCancel(t.Context())
	_, err := l.Kubectl(ctx, nil, "scale", "-n", cluster.ControllerNamespace, "deployment/workflow-controller", "--replicas", replicas)
	require.NoError(t, err)
	if on {
		_, err = l.Kubectl(ctx, nil, "rollout", "status", "-n", cluster.ControllerNamespace, "deployment/workflow-controller", "--timeout", "120s")
	} else {
		_, err = l.Kubectl(ctx, nil, "wait", "-n", cluster.ControllerNamespace, "pod", "-l", "app=workflow-controller", "--for", "delete", "--timeout", "120s")
	}
	require.NoError(t, err)
}

// entry is what the run's task set has about the node of that name.
func entry(t *testing.T, l *lab.Lab, run *lab.Run, node string) (phase string) {
	t.Helper()
	obj, err := l.Dynamic.Resource(taskSets).Namespace(run.Namespace).Get(t.Context(), run.Name, metav1.GetOptions{})
	require.NoError(t, err)
	phase, _, err = unstructured.NestedString(obj.Object, "status", "nodes", kube.NodeID(run.Name, run.Name+"."+node), "phase")
	require.NoError(t, err)
	return phase
}

// TestWatchdog_HandsALostResultIn: the agent has handed the build's result in
// and forgotten it; then it is gone before the controller has seen it.
func TestWatchdog_HandsALostResultIn(t *testing.T) {
	l := needLab(t)
	ctx := limited(t)
	run := holdBuild(ctx, t, l, "lost", pluginRunner())
	controller(t, l, false)
	t.Cleanup(func() { controller(t, l, true) })
	run.release()
	_, err := run.Until(ctx, "the build's result is handed in", func(lab.Status) bool { return entry(t, l, run.Run, "build") == "Succeeded" })
	require.NoError(t, err)
	_, err = l.Dynamic.Resource(taskSets).Namespace(run.Namespace).Patch(ctx, run.Name, types.MergePatchType,
		[]byte(`{"status":null}`), metav1.PatchOptions{}, "status")
	require.NoError(t, err)
	require.Empty(t, entry(t, l, run.Run, "build"))
	lost := time.Now()
	controller(t, l, true)

	var log strings.Builder
	stop := run.FollowLogs(ctx, &log)
	status, err := run.Wait(ctx)
	stop()
	require.NoError(t, err)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Equal(t, all(), run.ledger.ran(), "the build ran again")
	require.Contains(t, log.String(), "lost result handed in again")
	t.Logf("the run ended %s after the loss", time.Since(lost).Round(time.Second))
}

// TestWatchdog_StopThenRetryRunsTheStageAgain: what a stopped stage left behind
// neither hides its node from the retry nor ends it.
func TestWatchdog_StopThenRetryRunsTheStageAgain(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"stop", "terminate"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			l := needLab(t)
			ctx := limited(t)
			held := holdBuild(ctx, t, l, how, pluginRunner())
			run := held.Run
			_, err := l.Argo(ctx, how, run.Name, "-n", run.Namespace)
			require.NoError(t, err)
			status, err := run.Wait(ctx)
			require.NoError(t, err)
			require.Equal(t, "Failed", status.Phase, "%+v", status)
			stopped := status.Node("build")
			require.Equal(t, "Failed", stopped.Phase, "%+v", status)
			held.release()
			require.NoError(t, run.Retry(ctx))
			status, err = run.Wait(ctx)
			require.NoError(t, err)
			require.Equal(t, "Succeeded", status.Phase, "%+v", status)
			require.NotEqual(t, stopped.FinishedAt, status.Node("build").FinishedAt)
			require.Equal(t, "Succeeded", status.Node("build").Phase)
			// The controller removes it after it has written the Workflow.
			_, err = run.Until(ctx, "the task set has no entry left", func(lab.Status) bool { return entry(t, l, run, "build") == "" })
			require.NoError(t, err)
		})
	}
}
