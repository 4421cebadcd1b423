package execution_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/plugin/argo"
	"github.com/aphex-pipeline/aphex/plugin/execution"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// script is a run whose state the test sets.
type script struct {
	mu       sync.Mutex
	state    execution.RunState
	changed  chan struct{}
	unwanted atomic.Bool
	looks    atomic.Int32
}

func newScript() *script {
	return &script{state: execution.RunState{Epoch: epochName(0)}, changed: make(chan struct{})}
}

func (s *script) set(change func(*execution.RunState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.state)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *script) State(context.Context, task.Run) (execution.RunState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, nil
}

func (s *script) Watch(ctx context.Context, _ task.Run, fn func(execution.RunState)) error {
	for {
		s.mu.Lock()
		state, changed := s.state, s.changed
		s.mu.Unlock()
		fn(state)
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *script) Wanted(context.Context, task.Run, string) (bool, error) {
	s.looks.Add(1)
	return !s.unwanted.Load(), nil
}

// keeper remembers what it was told.
type keeper struct {
	mu       sync.Mutex
	answered []string
	tidied   [][]string
}

func (k *keeper) Answered(_ context.Context, run task.Run, node string, final []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answered = append(k.answered, run.Epoch+" "+node+" "+string(final))
}

func (k *keeper) Tidy(_ context.Context, _ task.Run, nodes []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tidied = append(k.tidied, nodes)
}

func (k *keeper) tidies() [][]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.tidied)
}

// patient is a stage that works until it is stopped and then takes its time.
type patient struct {
	live, most, runs atomic.Int32
	release          chan struct{} // stops taking time
}

func (p *patient) Run(ctx context.Context, _ task.Request, _ task.Env) (task.Result, error) {
	p.runs.Add(1)
	n := p.live.Add(1)
	defer p.live.Add(-1)
	p.most.Store(max(p.most.Load(), n))
	<-ctx.Done()
	<-p.release
	return task.Result{}, context.Cause(ctx)
}

func done(message string) task.Runner {
	return task.RunnerFunc(func(context.Context, task.Request, task.Env) (task.Result, error) {
		return task.Result{Message: message}, nil
	})
}

func running(t *testing.T, e *execution.Engine, c argo.Call) {
	t.Helper()
	require.Eventually(t, func() bool { return ask(t, e, c).Node.Phase == argo.Running }, 20*time.Second, time.Millisecond)
}

func TestEngine_ExitHandlerIsAnsweredAfterWhatItCancelled(t *testing.T) {
	t.Parallel()
	p := &patient{release: make(chan struct{})}
	e, _ := boot(t, execution.Config{
		Runs: newScript(), Journal: journal.NewFiles(t.TempDir(), "pod"), Grace: time.Minute,
		Registry: task.Registry{task.StageBuild: p, task.StageFinish: done("recorded")},
	})
	running(t, e, call(task.StageBuild))
	for range 5 { // it has long been done, but the build's end must come first
		require.False(t, ask(t, e, call(task.StageFinish)).IsFinal())
		require.Empty(t, ask(t, e, call(task.StageBuild)).Node.Phase, "a stage that is being stopped is not said to run")
	}
	close(p.release)
	require.Eventually(t, func() bool { return p.live.Load() == 0 }, 20*time.Second, time.Millisecond)
	require.False(t, ask(t, e, call(task.StageFinish)).IsFinal(), "the agent does not have it yet")
	require.Equal(t, argo.Failed, final(t, e, call(task.StageBuild)).Node.Phase)
	require.Equal(t, argo.Succeeded, final(t, e, call(task.StageFinish)).Node.Phase)
}

func TestEngine_ExitHandlerDoesNotWaitForAnAgentThatAsksNoMore(t *testing.T) {
	t.Parallel()
	p := &patient{release: make(chan struct{})}
	close(p.release)
	e, _ := boot(t, execution.Config{
		Runs: newScript(), Journal: journal.NewFiles(t.TempDir(), "pod"), Grace: 100 * time.Millisecond,
		Registry: task.Registry{task.StageBuild: p, task.StageFinish: done("recorded")},
	})
	running(t, e, call(task.StageBuild))
	require.Equal(t, argo.Succeeded, final(t, e, call(task.StageFinish)).Node.Phase)
}

func TestEngine_SaysNothingToATerminatedRun(t *testing.T) {
	t.Parallel()
	runs, p := newScript(), &patient{release: make(chan struct{})}
	close(p.release)
	dir := t.TempDir()
	e, _ := boot(t, execution.Config{Runs: runs, Journal: journal.NewFiles(dir, "pod"), Registry: task.Registry{task.StageBuild: p}})
	running(t, e, call(task.StageBuild))
	runs.set(func(s *execution.RunState) { s.Shutdown = "Terminate" })
	require.Eventually(t, func() bool {
		require.Empty(t, ask(t, e, call(task.StageBuild)).Node.Phase)
		entries, err := journal.ReadFile(t.Context(), dir, "uid-1")
		return err == nil && len(entries) == 1 && entries[0].Phase == string(argo.Failed)
	}, 20*time.Second, time.Millisecond)
	require.Contains(t, string(entryFinal(t, dir)), "shut down (Terminate)")
	require.Empty(t, ask(t, e, call(task.StageBuild)).Node.Phase)
}

func entryFinal(t *testing.T, dir string) []byte {
	t.Helper()
	entries, err := journal.ReadFile(t.Context(), dir, "uid-1")
	require.NoError(t, err)
	require.Len(t, entries, 1)
	return entries[0].Final
}

func TestEngine_AttemptsOfOneNodeNeverOverlap(t *testing.T) {
	t.Parallel()
	p := &patient{release: make(chan struct{})}
	e, _ := boot(t, execution.Config{
		Runs: newScript(), Journal: journal.NewFiles(t.TempDir(), "pod"), Grace: time.Minute,
		Registry: task.Registry{task.StageBuild: p},
	})
	first, second := call(task.StageBuild), call(task.StageBuild)
	first.Retried, second.Retried, second.Request.Attempt = true, true, 1
	running(t, e, first)
	for range 5 { // the agent gave the first one up; it is stopped, and waited for
		require.Empty(t, ask(t, e, second).Node.Phase)
	}
	require.EqualValues(t, 1, p.runs.Load())
	close(p.release)
	reply := final(t, e, first)
	require.Equal(t, argo.Failed, reply.Node.Phase)
	require.Contains(t, reply.Node.Message, "another attempt")
	running(t, e, second)
	require.EqualValues(t, 1, p.most.Load())
}

func TestEngine_StopsWhatTheRunNoLongerWantsWithAFinalReply(t *testing.T) {
	t.Parallel()
	runs, p := newScript(), &patient{release: make(chan struct{})}
	close(p.release)
	e, _ := boot(t, execution.Config{
		Runs: runs, Journal: journal.NewFiles(t.TempDir(), "pod"), AskEvery: 10 * time.Millisecond,
		Registry: task.Registry{task.StageBuild: p},
	})
	running(t, e, call(task.StageBuild))
	require.Eventually(t, func() bool { return runs.looks.Load() > 3 }, 20*time.Second, time.Millisecond)
	require.EqualValues(t, 1, p.live.Load())
	runs.unwanted.Store(true)
	reply := final(t, e, call(task.StageBuild))
	require.Equal(t, argo.Failed, reply.Node.Phase)
	require.Contains(t, reply.Node.Message, "waits for it no more")
	require.Contains(t, reply.Node.Message, "[Cancelled]")
}

// The controller takes a task away just before it writes the Workflow, and
// gives it again if it could not.
func TestEngine_ATaskThatIsAwayForAMomentRunsOn(t *testing.T) {
	t.Parallel()
	runs, p := newScript(), &patient{release: make(chan struct{})}
	close(p.release)
	blinks := &blinking{script: runs}
	e, _ := boot(t, execution.Config{
		Runs: blinks, Journal: journal.NewFiles(t.TempDir(), "pod"), AskEvery: 5 * time.Millisecond,
		Registry: task.Registry{task.StageBuild: p},
	})
	running(t, e, call(task.StageBuild))
	require.Eventually(t, func() bool { return runs.looks.Load() > 20 }, 20*time.Second, time.Millisecond)
	require.EqualValues(t, 1, p.live.Load())
}

type blinking struct{ *script }

func (b *blinking) Wanted(context.Context, task.Run, string) (bool, error) {
	switch b.looks.Add(1) % 3 {
	case 0:
		return false, nil
	case 1:
		return false, errors.New("the API server is away")
	}
	return true, nil
}

func TestEngine_KeeperIsToldWhatWasAnsweredAndWhenItIsOver(t *testing.T) {
	t.Parallel()
	runs, k := newScript(), &keeper{}
	cfg := execution.Config{Runs: runs, Keeper: k, Journal: journal.NewFiles(t.TempDir(), "pod"), Registry: task.Registry{task.StageBuild: done("built")}}
	e, crash := boot(t, cfg)
	reply := final(t, e, call(task.StageBuild))
	require.Eventually(t, func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return slices.Contains(k.answered, epochName(0)+" shop-1.build "+string(reply.Encode()))
	}, 20*time.Second, time.Millisecond)
	require.Empty(t, k.tidies(), "there was nothing yet")
	crash()
	e, _ = boot(t, cfg)
	final(t, e, call(task.StageBuild))
	nodes := []string{"shop-1.build", "shop-1.build(0)"}
	require.Eventually(t, func() bool { return len(k.tidies()) == 1 }, 20*time.Second, time.Millisecond)
	runs.set(func(s *execution.RunState) { s.Finished = true })
	require.True(t, e.Drain(t.Context()))
	require.Equal(t, [][]string{nodes, nodes}, k.tidies(), "once at each end")
}

// awayJournal fails as a journal whose API server is away.
type awayJournal struct {
	journal.Journal
	away atomic.Bool
}

type awayBook struct {
	journal.Book
	j *awayJournal
}

func (j *awayJournal) Open(ctx context.Context, run task.Run) (journal.Book, error) {
	b, err := j.Journal.Open(ctx, run)
	return &awayBook{b, j}, err
}

func (b *awayBook) err() error {
	if !b.j.away.Load() {
		return nil
	}
	<-time.After(time.Millisecond) // the real one takes minutes
	return fault.Newf(fault.Transient, fault.KubernetesRejected, "write the run's journal", "", "the API server is away")
}

func (b *awayBook) End(ctx context.Context, key string, final []byte, phase string, at time.Time) (journal.Entry, error) {
	if err := b.err(); err != nil {
		return journal.Entry{}, err
	}
	return b.Book.End(ctx, key, final, phase, at)
}

func (b *awayBook) PutEffect(ctx context.Context, key, name string, value []byte) error {
	if err := b.err(); err != nil {
		return err
	}
	return b.Book.PutEffect(ctx, key, name, value)
}

func TestEngine_FinalReplyWaitsForTheJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	away := &awayJournal{Journal: journal.NewFiles(dir, "pod")}
	var put atomic.Bool
	e, _ := boot(t, execution.Config{Runs: newScript(), Journal: away, Registry: task.Registry{
		task.StageBuild: task.RunnerFunc(func(ctx context.Context, _ task.Request, env task.Env) (task.Result, error) {
			away.away.Store(true)
			err := env.Effects.Put(ctx, "changeset", []byte(`1`))
			put.Store(true)
			away.away.Store(true)
			return task.Result{Message: "built"}, err
		}),
	}})
	c := call(task.StageBuild)
	for range 20 {
		require.False(t, ask(t, e, c).IsFinal())
	}
	require.False(t, put.Load(), "an effect waits as well")
	away.away.Store(false)
	require.Eventually(t, func() bool { return put.Load() }, 20*time.Second, time.Millisecond)
	for range 20 {
		require.False(t, ask(t, e, c).IsFinal(), "not before it is written")
	}
	away.away.Store(false)
	reply := final(t, e, c)
	require.Equal(t, "built", reply.Node.Message)
	require.JSONEq(t, string(reply.Encode()), string(entryFinal(t, dir)))
}
