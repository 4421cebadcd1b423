package e2e

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// TestRetry_CompletesTheRunInAFreshPod: a stack fails for a reason outside of
// the commit; that is repaired, and `argo retry` completes the run in a new
// pod without building again.
func TestRetry_CompletesTheRunInAFreshPod(t *testing.T) {
	t.Parallel()
	retryCompletes(t, pluginRunner(), 2)
}

// The pods are those of four stages and finish, then of two stages and finish.
func TestRetry_CompletesTheRunInFreshStagePods(t *testing.T) {
	t.Parallel()
	retryCompletes(t, containerRunner(), 8)
}

func retryCompletes(t *testing.T, r runner, pods int) {
	t.Helper()
	l := needLab(t)
	name := "retry" + r.suffix
	cfg := config(append(npmCI(), "date +%s%N > built-at"), dev(name, "test -s built-at"))
	p, commit := newApp(t, l, name, cfg, settings{"stack": name, "needs": "/e2e/" + name + "-needs-this"}, r.use)
	watch, err := l.WatchPods(t.Context(), p.Installation.Namespace)
	require.NoError(t, err)

	run, status := finish(t, p, commit)
	require.Equal(t, "Failed", status.Phase)
	failed := status.Node("deploy-dev")
	require.Equal(t, "Failed", failed.Phase)
	require.Contains(t, failed.Message, "/e2e/"+name+"-needs-this")
	require.Regexp(t, `\[(`+string(fault.StackFailed)+`|`+string(fault.ChangeSetFailed)+`)\]`, failed.Message)
	built := status.Node("build")

	putParameter(t, l, "/e2e/"+name+"-needs-this", "here")
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	require.NoError(t, run.Retry(ctx))
	status, err = run.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Equal(t, built.FinishedAt, status.Node("build").FinishedAt, "the build ran again")
	require.Equal(t, "Succeeded", status.Node("test-dev").Phase)
	require.Equal(t, "one", parameter(t, l, "/e2e/"+name))

	created, err := watch.Stop(run)
	require.NoError(t, err)
	require.Len(t, created, pods, "%s", created)
}
