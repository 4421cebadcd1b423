package conformance

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/plugin/sidecar"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// Starts and ends: of the plugin, of the agent, of the run.

func TestPlugin_NotListeningYet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.tap.close()
	w.startAgent(argos(), w.tap.url())
	w.schedule(build)
	w.startPlugin("pod-1", task.Registry{task.StageBuild: returns(done(), nil)})
	w.tap.reopen()
	require.Equal(t, wfv1.NodeSucceeded, w.final(build).Phase)
}

func TestPlugin_BootingIs503AndTheAgentWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	late := filepath.Join(w.dir, "late-token")
	w.startPlugin("pod-1", task.Registry{task.StageBuild: returns(done(), nil)}, func(c *sidecar.Config) { c.TokenFile = late })
	w.startAgent(argos(), w.tap.url())
	w.schedule(build)
	w.until("503", func() bool { return w.tap.count(func(e exchange) bool { return e.status == 503 }) > 0 })
	require.NoError(t, os.WriteFile(late, []byte(token), 0o600))
	require.Equal(t, wfv1.NodeSucceeded, w.final(build).Phase)
}

func TestPlugin_ARestartDuringACallResumesTheStage(t *testing.T) {
	t.Parallel()
	g := newGate()
	stages := task.Registry{task.StageBuild: g}
	w := newWorld(t)
	p := w.startPlugin("pod-1", stages)
	w.startAgent(argos(), w.tap.url())
	w.schedule(build)
	w.result(build, wfv1.NodeRunning)
	p.crash()
	g.release()
	w.startPlugin("pod-1", stages)
	require.Equal(t, wfv1.NodeSucceeded, w.final(build).Phase)
	require.Equal(t, [2]int{2, 1}, g.counts(), "it begins again in the new process, never beside the old one")
}

func TestPlugin_ARestartAfterTheEndReplaysIt(t *testing.T) {
	t.Parallel()
	g := newGate()
	g.release()
	stages := task.Registry{task.StageBuild: g}
	w := newWorld(t)
	p := w.startPlugin("pod-1", stages)
	a := w.startAgent(brief(), w.tap.url())
	w.schedule(build)
	first := w.final(build)
	a.kill()
	p.crash()
	w.reconcileWith(false)
	w.startPlugin("pod-1", stages)
	w.startAgent(brief(), w.tap.url())
	require.Equal(t, first, w.final(build))
	require.Equal(t, [2]int{1, 1}, g.counts())
}

func TestPlugin_ANewPodTakesOver(t *testing.T) {
	t.Parallel()
	g := newGate()
	stages := task.Registry{task.StageBuild: g, task.StageTest: returns(done(), nil)}
	w := newWorld(t)
	p := w.startPlugin("pod-1", stages)
	a := w.startAgent(brief(), w.tap.url())
	w.schedule(build, test)
	w.result(build, wfv1.NodeRunning)
	w.final(test)
	a.kill()
	p.crash()
	g.release()
	w.startPlugin("pod-2", stages)
	w.startAgent(brief(), w.tap.url())
	require.Equal(t, wfv1.NodeSucceeded, w.final(build).Phase)
	require.Equal(t, [2]int{2, 1}, g.counts())
}

func TestPlugin_StopCancelsAndTheExitHandlerRuns(t *testing.T) {
	t.Parallel()
	g := newGate()
	w := aphexWith(t, task.Registry{task.StageBuild: g, task.StageFinish: returns(done(), nil)})
	w.schedule(build)
	w.result(build, wfv1.NodeRunning)
	w.stop()
	require.Equal(t, "Failed", w.phase(build))
	w.schedule(finish)
	require.Equal(t, wfv1.NodeSucceeded, w.final(finish).Phase)
	result := w.final(build)
	require.Equal(t, wfv1.NodeFailed, result.Phase)
	require.Contains(t, result.Message, "[Cancelled]")
	w.reconcile()
	require.Equal(t, "Failed", w.phase(build), "what is copied over the failed node is a failure")
	require.Empty(t, w.results(), "and nothing of it is left for a retry to find")
	require.False(t, g.running())
}

// TestPlugin_StopThenRetryRunsTheStageAgain: a Running entry left behind would
// be taken for the state of the retried node.
func TestPlugin_StopThenRetryRunsTheStageAgain(t *testing.T) {
	t.Parallel()
	g := newGate()
	stages := task.Registry{task.StageBuild: g, task.StageFinish: returns(done(), nil)}
	w := newWorld(t)
	p := w.startPlugin("pod-1", stages)
	a := w.startAgent(brief(), w.tap.url())
	w.schedule(build)
	w.result(build, wfv1.NodeRunning)
	w.stop()
	w.schedule(finish)
	w.final(finish)
	w.final(build)
	w.reconcile()
	w.end("Failed")
	require.Equal(t, 0, a.wait())
	p.terminate()
	require.NoError(t, p.wait())
	w.retry(build)
	g.release()
	w.startPlugin("pod-2", stages)
	w.startAgent(brief(), w.tap.url())
	require.Equal(t, wfv1.NodeSucceeded, w.final(build).Phase)
	require.Equal(t, [2]int{2, 1}, g.counts())
}

func TestPlugin_ARetryIsANewEpoch(t *testing.T) {
	t.Parallel()
	g := newGate()
	g.release()
	stages := task.Registry{task.StageBuild: g, task.StageTest: returns(task.Result{}, os.ErrInvalid)}
	w := newWorld(t)
	p := w.startPlugin("pod-1", stages)
	a := w.startAgent(brief(), w.tap.url())
	w.schedule(build, test)
	w.final(build)
	require.Equal(t, wfv1.NodeError, w.final(test).Phase)
	w.reconcile()
	w.end("Failed")
	require.Equal(t, 0, a.wait())
	p.terminate()
	require.NoError(t, p.wait())
	w.retry(test)
	stages[task.StageTest] = returns(done(), nil)
	w.startPlugin("pod-2", stages)
	w.startAgent(brief(), w.tap.url())
	require.Equal(t, wfv1.NodeSucceeded, w.final(test).Phase)
	require.Equal(t, [2]int{1, 1}, g.counts(), "the build is not run again")
}

func TestPlugin_AttemptsAreExecutionsOfTheirOwn(t *testing.T) {
	t.Parallel()
	g := newGate()
	g.release()
	w := aphexWith(t, task.Registry{task.StageBuild: g})
	for _, attempt := range []string{"0", "1"} {
		s := step{stage: task.StageBuild, more: map[string]any{"attempt": attempt}}
		w.schedule(s)
		w.final(s)
		w.reconcile()
	}
	require.Equal(t, [2]int{2, 1}, g.counts())
}

// SIGTERM while the run goes on: the agent, which takes no notice of it, must
// hear nothing that ends the stage.
func TestPlugin_SigtermOfADrainSaysNothingMore(t *testing.T) {
	t.Parallel()
	g := newGate()
	stages := task.Registry{task.StageBuild: g}
	w := newWorld(t)
	p := w.startPlugin("pod-1", stages)
	a := w.startAgent(brief(), w.tap.url())
	w.schedule(build)
	w.result(build, wfv1.NodeRunning)
	before := len(w.tap.exchanges())
	p.terminate()
	w.until("the agent is told to come back after the end", func() bool {
		for _, e := range w.tap.exchanges()[before:] {
			require.Contains(t, string(e.body), `{"node":{},`)
		}
		return len(w.tap.exchanges()) > before && !g.running()
	})
	require.NoError(t, p.wait())
	a.kill()
	require.Equal(t, wfv1.NodeRunning, w.results()[build.id()].Phase)
	g.release()
	w.startPlugin("pod-2", stages)
	w.startAgent(brief(), w.tap.url())
	require.Equal(t, wfv1.NodeSucceeded, w.final(build).Phase)
	require.Equal(t, [2]int{2, 1}, g.counts())
}

// SIGTERM of a run that is over: what is still at work is cancelled, and its
// end is journalled but said to nobody, since it would stay in the task set.
func TestPlugin_SigtermOfAFinishedRunCancelsQuietly(t *testing.T) {
	t.Parallel()
	g := newGate()
	w := newWorld(t)
	p := w.startPlugin("pod-1", task.Registry{task.StageBuild: g}, func(c *sidecar.Config) { c.Grace = time.Minute })
	w.startAgent(brief(), w.tap.url())
	w.schedule(build)
	w.result(build, wfv1.NodeRunning)
	w.end("Failed")
	begun := time.Now()
	p.terminate()
	require.NoError(t, p.wait())
	require.Less(t, time.Since(begun), 30*time.Second, "it does not use its grace up")
	require.False(t, g.running())
	require.Zero(t, w.tap.count(func(e exchange) bool { return len(e.body) > 100 }), "no final reply")
}

func TestPlugin_AnAPIServerThatIsAwayForAWhileCostsNothing(t *testing.T) {
	t.Parallel()
	g := newGate()
	w := newWorld(t)
	w.startPlugin("pod-1", task.Registry{task.StageBuild: g})
	a := w.startAgent(brief(), w.tap.url())
	w.schedule(build)
	w.result(build, wfv1.NodeRunning)
	w.kube.Deny(everything())
	w.kube.DropWatches()
	require.Equal(t, 64, a.wait(), "the agent ends; Kubernetes starts it again")
	g.release()
	w.kube.Deny(nil)
	w.startAgent(brief(), w.tap.url())
	require.Equal(t, wfv1.NodeSucceeded, w.final(build).Phase)
	require.Equal(t, [2]int{1, 1}, g.counts())
}
