package execution_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/plugin/argo"
	"github.com/aphex-pipeline/aphex/plugin/execution"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noAccess are Runs without rights.
type noAccess struct{}

func (noAccess) State(context.Context, task.Run) (execution.RunState, error) {
	return execution.RunState{}, execution.ErrNoAccess
}

func (noAccess) Wanted(context.Context, task.Run, string) (bool, error)          { return true, nil }
func (noAccess) Watch(context.Context, task.Run, func(execution.RunState)) error { return nil }

// boot starts an engine; crash ends it.
func boot(t *testing.T, cfg execution.Config) (e *execution.Engine, crash func()) {
	t.Helper()
	if cfg.LogDir == "" {
		cfg.LogDir = t.TempDir()
	}
	cfg.FirstPoll, cfg.LongPoll, cfg.Requeue = 20*time.Millisecond, 40*time.Millisecond, 5*time.Millisecond
	if cfg.Grace == 0 {
		cfg.Grace = 3 * time.Second
	}
	e, err := execution.New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { e.Run(ctx); close(done) }()
	crash = func() { cancel(); <-done }
	t.Cleanup(crash)
	return e, crash
}

func call(stage string) argo.Call {
	return argo.Call{Digest: "sha256:00", Request: task.Request{
		Run: task.Run{Namespace: "shop", Name: "shop-1", UID: "uid-1"}, Stage: stage, Node: "shop-1." + stage, Pipeline: "shop",
	}}
}

func ask(t *testing.T, e *execution.Engine, c argo.Call) argo.Reply {
	t.Helper()
	var reply argo.Reply
	require.NoError(t, json.Unmarshal(e.Execute(t.Context(), c), &reply))
	require.NotNil(t, reply.Node)
	return reply
}

func final(t *testing.T, e *execution.Engine, c argo.Call) argo.Reply {
	t.Helper()
	var reply argo.Reply
	require.Eventually(t, func() bool { reply = ask(t, e, c); return reply.IsFinal() }, 20*time.Second, time.Millisecond)
	return reply
}

func TestEngine_WithoutAccessSuccessIsReplayedAndFailureRunsAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var builds, tests atomic.Int32
	registry := task.Registry{
		task.StageBuild: task.RunnerFunc(func(context.Context, task.Request, task.Env) (task.Result, error) {
			builds.Add(1)
			return task.Result{Message: "built"}, nil
		}),
		task.StageTest: task.RunnerFunc(func(context.Context, task.Request, task.Env) (task.Result, error) {
			if tests.Add(1) < 3 {
				return task.Result{}, fault.Newf(fault.User, fault.CommandFailed, "test", "Mend it", "exit 1")
			}
			return task.Result{Message: "passed"}, nil
		}),
	}
	pod := func(uid string) (*execution.Engine, func()) {
		return boot(t, execution.Config{Registry: registry, Journal: journal.NewFiles(dir, uid), PodUID: uid, Runs: noAccess{}})
	}
	for i, uid := range []string{"pod-1", "pod-1", "pod-2", "pod-3"} {
		e, crash := pod(uid)
		require.Equal(t, argo.Succeeded, final(t, e, call(task.StageBuild)).Node.Phase)
		want := argo.Failed
		if uid == "pod-3" {
			want = argo.Succeeded
		}
		require.Equal(t, want, final(t, e, call(task.StageTest)).Node.Phase, "life %d", i)
		require.Equal(t, want, final(t, e, call(task.StageTest)).Node.Phase, "life %d", i)
		crash()
	}
	require.EqualValues(t, 1, builds.Load())
	require.EqualValues(t, 3, tests.Load(), "once per pod, not per process")
}

func TestEngine_FencedPodStopsAndSaysNothingMore(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	next := make(chan struct{})
	var saw atomic.Value
	registry := task.Registry{task.StageBuild: task.RunnerFunc(func(ctx context.Context, _ task.Request, env task.Env) (task.Result, error) {
		<-next
		err := env.Effects.Put(ctx, "changeset", []byte(`1`))
		saw.Store(err)
		return task.Result{}, err
	})}
	old, _ := boot(t, execution.Config{Registry: registry, Journal: journal.NewKube(s.Client(t), "pod-1", "shop"), PodUID: "pod-1"})
	require.Eventually(t, func() bool { return ask(t, old, call(task.StageBuild)).Node.Phase == argo.Running }, 10*time.Second, time.Millisecond)

	fresh, _ := boot(t, execution.Config{PodUID: "pod-2", Journal: journal.NewKube(s.Client(t), "pod-2", "shop"), Registry: task.Registry{
		task.StageBuild: task.RunnerFunc(func(context.Context, task.Request, task.Env) (task.Result, error) {
			return task.Result{Message: "built by the new pod"}, nil
		}),
	}})
	require.Equal(t, argo.Succeeded, final(t, fresh, call(task.StageBuild)).Node.Phase)
	close(next)
	require.Eventually(t, func() bool { return saw.Load() != nil }, 10*time.Second, time.Millisecond)
	err, _ := saw.Load().(error)
	require.ErrorIs(t, err, journal.ErrFenced, "no effect without the journal")
	for range 20 {
		reply := ask(t, old, call(task.StageBuild))
		require.Empty(t, reply.Node.Phase)
		require.NotEmpty(t, reply.Requeue)
	}
	require.Equal(t, "built by the new pod", final(t, fresh, call(task.StageBuild)).Node.Message)
}

func TestEngine_JournalThatIsRefusedFailsBeforeActing(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	s.Forbid("configmaps", "create")
	e, _ := boot(t, execution.Config{Journal: journal.NewKube(s.Client(t), "pod-1", "shop"), Registry: task.Registry{
		task.StageBuild: task.RunnerFunc(func(context.Context, task.Request, task.Env) (task.Result, error) {
			t.Error("acted without a journal")
			return task.Result{}, nil
		}),
	}})
	reply := final(t, e, call(task.StageBuild))
	require.Equal(t, argo.Failed, reply.Node.Phase)
	require.Contains(t, reply.Node.Message, "[KubernetesRejected]")
	require.Contains(t, reply.Node.Message, "Grant the service account")
	require.Equal(t, reply, final(t, e, call(task.StageBuild)))
}

func TestEngine_StageThatIgnoresItsEndIsAbandoned(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	e, _ := boot(t, execution.Config{Journal: journal.NewFiles(t.TempDir(), "pod"), Grace: 50 * time.Millisecond, StageLimit: 50 * time.Millisecond, Registry: task.Registry{
		task.StageBuild: task.RunnerFunc(func(context.Context, task.Request, task.Env) (task.Result, error) {
			<-release
			return task.Result{}, errors.New("too late")
		}),
	}})
	reply := final(t, e, call(task.StageBuild))
	require.Equal(t, argo.Failed, reply.Node.Phase)
	require.Contains(t, reply.Node.Message, "[StageTimeout]")
}

func TestEngine_SuccessAtTheLastMomentStaysSuccess(t *testing.T) {
	t.Parallel()
	e, _ := boot(t, execution.Config{Journal: journal.NewFiles(t.TempDir(), "pod"), StageLimit: 20 * time.Millisecond, Registry: task.Registry{
		task.StageBuild: task.RunnerFunc(func(ctx context.Context, _ task.Request, _ task.Env) (task.Result, error) {
			<-ctx.Done()
			return task.Result{Message: "built all the same"}, nil
		}),
	}})
	require.Equal(t, "built all the same", final(t, e, call(task.StageBuild)).Node.Message)
}

func TestEngine_StayPending(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	e, _ := boot(t, execution.Config{StayPending: true, Journal: journal.NewFiles(t.TempDir(), "pod"), Registry: task.Registry{
		task.StageBuild: task.RunnerFunc(func(context.Context, task.Request, task.Env) (task.Result, error) {
			<-release
			return task.Result{Message: "built"}, nil
		}),
	}})
	for range 10 {
		require.Empty(t, ask(t, e, call(task.StageBuild)).Node.Phase)
	}
	close(release)
	require.Equal(t, argo.Succeeded, final(t, e, call(task.StageBuild)).Node.Phase)
}

func TestKubeRuns_StateFollowsTheWorkflow(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	runs := execution.NewKubeRuns(s.Client(t))
	id := task.Run{Namespace: "shop", Name: "shop-1", UID: "uid-1"}
	state, err := runs.State(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, execution.RunState{Finished: true}, state, "a run that is gone is over")

	s.Put("workflows", kubetest.Object{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
		"metadata": map[string]any{"name": "shop-1", "namespace": "shop", "uid": "uid-1"},
	})
	state, err = runs.State(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, execution.RunState{}, state, "not started yet")

	states := make(chan execution.RunState, 16)
	done := make(chan error, 1)
	go func() { done <- runs.Watch(t.Context(), id, func(st execution.RunState) { states <- st }) }()
	require.Equal(t, execution.RunState{}, <-states)
	s.Change("workflows", "shop", "shop-1", func(o kubetest.Object) {
		o["status"] = map[string]any{"phase": "Running", "startedAt": "2026-11-24T07:00:00+01:00"}
	})
	require.Equal(t, execution.RunState{Epoch: "2026-11-24T06:00:00Z"}, <-states)
	s.Change("workflows", "shop", "shop-1", func(o kubetest.Object) { o["spec"] = map[string]any{"shutdown": "Terminate"} })
	require.Equal(t, "Terminate", (<-states).Shutdown)
	s.Delete("workflows", "shop", "shop-1")
	require.True(t, (<-states).Finished)
	require.NoError(t, <-done)

	s.Forbid("workflows", "get")
	_, err = runs.State(t.Context(), id)
	require.ErrorIs(t, err, execution.ErrNoAccess)
}

func TestNew_SaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	_, err := execution.New(execution.Config{})
	require.ErrorContains(t, err, "no stages")
	require.True(t, strings.HasPrefix(err.Error(), "execution: "))
}

func TestKubeRuns_WantedUntilTheNodeHasItsEnd(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	runs := execution.NewKubeRuns(s.Client(t))
	id := task.Run{Namespace: "shop", Name: "shop-1", UID: "uid-1"}
	const node = "shop-1.build"
	wanted := func() bool {
		t.Helper()
		is, err := runs.Wanted(t.Context(), id, node)
		require.NoError(t, err)
		return is
	}
	require.False(t, wanted(), "the run is gone")
	workflow := func(uid string, nodes map[string]any) {
		s.Put("workflows", kubetest.Object{
			"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
			"metadata": map[string]any{"name": "shop-1", "namespace": "shop", "uid": uid}, "status": map[string]any{"phase": "Running", "nodes": nodes},
		})
	}
	nodeID := kube.NodeID("shop-1", node)
	workflow("uid-1", map[string]any{nodeID: map[string]any{"name": node, "phase": "Running"}})
	require.True(t, wanted(), "the task set is not there yet, but the node waits")
	workflow("uid-1", map[string]any{nodeID: map[string]any{"name": node, "phase": "Failed"}})
	require.False(t, wanted(), "Argo has ended it")
	workflow("uid-1", map[string]any{"shop-1": map[string]any{"name": "shop-1", "phase": "Running"}})
	require.False(t, wanted(), "a retry has removed it")
	workflow("uid-1", nil)
	require.True(t, wanted(), "the nodes cannot be seen")
	s.Put("workflowtasksets", kubetest.Object{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTaskSet", "metadata": map[string]any{"name": "shop-1", "namespace": "shop"},
		"spec": map[string]any{"tasks": map[string]any{nodeID: map[string]any{}}},
	})
	workflow("uid-1", map[string]any{nodeID: map[string]any{"name": node, "phase": "Failed"}})
	require.True(t, wanted(), "it is asked for")
	s.Change("workflowtasksets", "shop", "shop-1", func(o kubetest.Object) { o["spec"] = map[string]any{} })
	workflow("uid-2", map[string]any{nodeID: map[string]any{"name": node, "phase": "Running"}})
	require.False(t, wanted(), "that is another run")
	s.Forbid("workflowtasksets", "get")
	is, err := runs.Wanted(t.Context(), id, node)
	require.ErrorIs(t, err, execution.ErrNoAccess)
	require.True(t, is)
}
