package sidecar_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/plugin/argo"
	"github.com/aphex-pipeline/aphex/plugin/execution"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/plugin/sidecar"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// outlives is what outlives pods: journal and bucket.
type outlives struct {
	server *kubetest.Server
	bucket string
}

func newOutlives(t *testing.T) outlives {
	t.Helper()
	return outlives{server: kubetest.New(t), bucket: t.TempDir()}
}

func (o outlives) journal(tb testing.TB, uid string) *journal.Kube {
	tb.Helper()
	return journal.NewKube(o.server.Client(tb), uid, "shop")
}

// pod runs one stage as a pod of its own would.
func pod(ctx context.Context, t *testing.T, o outlives, uid string, runs *stubRuns, runner task.RunnerFunc) (argo.Reply, error) {
	t.Helper()
	call, ours, err := argo.Decode(strings.NewReader(`{"workflow":{"metadata":{"name":"` + wfName + `","namespace":"ci","uid":"` + wfUID + `"}},
		"template":{"plugin":{"aphex":{"stage":"build","pipeline":"shop","node":"` + wfName + `.build","topology":"t",
		"config":"c","repo":"r","commit":"c","branch":"main"}}}}`))
	require.NoError(t, err)
	require.True(t, ours)
	return sidecar.RunStage(ctx, sidecar.Config{
		Registry: task.Registry{task.StageBuild: runner},
		Journal:  o.journal(t, uid), PodUID: uid, Runs: runs,
		LogDir: filepath.Join(t.TempDir(), "logs"), Logs: store.NewDir(o.bucket),
		Stdout: t.Output(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		FirstPoll: 50 * time.Millisecond, LongPoll: 100 * time.Millisecond, Requeue: 10 * time.Millisecond,
		Grace: 5 * time.Second,
	}, call)
}

// untilEnded is a stage that ends with its context.
func untilEnded(ctx context.Context, began func()) (task.Result, error) {
	began()
	<-ctx.Done()
	return task.Result{}, context.Cause(ctx)
}

func TestRunStage_AnotherPodReplaysWhatHasEnded(t *testing.T) {
	t.Parallel()
	o, runs := newOutlives(t), newRuns()
	starts := 0
	stage := func(context.Context, task.Request, task.Env) (task.Result, error) {
		starts++
		return task.Result{Message: "built", Outputs: map[string]string{task.OutputSnapshot: "s3://x"}}, nil
	}
	first, err := pod(t.Context(), t, o, "one", runs, stage)
	require.NoError(t, err)
	require.Equal(t, argo.Succeeded, first.Node.Phase)
	require.Equal(t, "built", first.Node.Message)
	second, err := pod(t.Context(), t, o, "two", runs, stage)
	require.NoError(t, err)
	require.Equal(t, first, second)
	require.Equal(t, 1, starts)
}

func TestRunStage_FailureCarriesReasonAndExitCode(t *testing.T) {
	t.Parallel()
	reply, err := pod(t.Context(), t, newOutlives(t), "one", newRuns(), func(context.Context, task.Request, task.Env) (task.Result, error) {
		return task.Result{}, fault.Newf(fault.Transient, fault.RepositoryUnreachable, "clone", "Try again", "no answer")
	})
	require.NoError(t, err)
	require.Equal(t, argo.Failed, reply.Node.Phase)
	require.Contains(t, reply.Node.Message, "[RepositoryUnreachable]")
	require.Equal(t, "75", reply.Node.Outputs.ExitCode)
}

func TestRunStage_StopEndsItFailed(t *testing.T) {
	t.Parallel()
	runs := newRuns()
	reply, err := pod(t.Context(), t, newOutlives(t), "one", runs, func(ctx context.Context, _ task.Request, _ task.Env) (task.Result, error) {
		return untilEnded(ctx, func() { runs.set(execution.RunState{Epoch: runs.state.Epoch, Shutdown: "Stop"}) })
	})
	require.NoError(t, err)
	require.Equal(t, argo.Failed, reply.Node.Phase)
	require.Contains(t, reply.Node.Message, "[Cancelled]")
	require.Equal(t, "143", reply.Node.Outputs.ExitCode)
}

// The pod is removed, the run goes on: the stage has no outcome, and the next
// pod resumes it under the same key.
func TestRunStage_SigtermLeavesTheStageToTheNextPod(t *testing.T) {
	t.Parallel()
	o, runs := newOutlives(t), newRuns()
	ctx, sigterm := context.WithCancel(t.Context())
	defer sigterm()
	reply, err := pod(ctx, t, o, "one", runs, func(ctx context.Context, _ task.Request, _ task.Env) (task.Result, error) {
		return untilEnded(ctx, sigterm)
	})
	require.NoError(t, err)
	require.Equal(t, argo.Failed, reply.Node.Phase)
	require.Contains(t, reply.Node.Message, "its pod is being removed")
	require.Equal(t, "143", reply.Node.Outputs.ExitCode)

	reply, err = pod(t.Context(), t, o, "two", runs, func(context.Context, task.Request, task.Env) (task.Result, error) {
		return task.Result{Message: "built"}, nil
	})
	require.NoError(t, err)
	require.Equal(t, argo.Succeeded, reply.Node.Phase)
}

// A pod whose run has been taken over stops and says so, instead of waiting
// for ever for an answer it may not have.
func TestRunStage_EndsWhenAnotherPodTakesTheRunOver(t *testing.T) {
	t.Parallel()
	o, runs := newOutlives(t), newRuns()
	var taken atomic.Bool
	reply, err := pod(t.Context(), t, o, "one", runs, func(ctx context.Context, _ task.Request, _ task.Env) (task.Result, error) {
		other, err := o.journal(t, "two").Open(ctx, task.Run{Namespace: "ci", Name: wfName, UID: wfUID})
		taken.Store(err == nil && other != nil)
		return task.Result{Message: "built"}, err
	})
	require.NoError(t, err)
	require.True(t, taken.Load())
	require.Equal(t, argo.Error, reply.Node.Phase)
	require.Contains(t, reply.Node.Message, "[JournalConflict]")
}
