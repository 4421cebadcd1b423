package conformance

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/plugin/sidecar"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// The windows in which Argo loses, doubles or corrupts what a plugin says.

func TestPlugin_AnOverrunOfTheClientIsOneExecution(t *testing.T) {
	t.Parallel()
	g := newGate()
	w := newWorld(t)
	w.startPlugin("pod-1", task.Registry{task.StageBuild: g}, func(c *sidecar.Config) { c.FirstPoll, c.LongPoll = 10*time.Second, 10*time.Second })
	w.startAgent(patience{timeout: 500 * time.Millisecond, backoff: 300 * time.Millisecond}, w.tap.url())
	w.schedule(build)
	w.until("the stage is at work", g.running)
	<-time.After(1200 * time.Millisecond) // the agent has given up at least once
	g.release()
	require.Equal(t, wfv1.NodeSucceeded, w.final(build).Phase)
	require.Equal(t, [2]int{1, 1}, g.counts())
}

// TestPlugin_ADuplicateCallAfter30Seconds is the same with Argo's own
// patience, and the plugin's answer held back beyond it.
func TestPlugin_ADuplicateCallAfter30Seconds(t *testing.T) {
	t.Parallel()
	g := newGate()
	w := newWorld(t)
	w.startPlugin("pod-1", task.Registry{task.StageBuild: g})
	w.tap.disturb(func(call int) answerFault {
		if call == 0 {
			return answerFault{hold: time.Minute}
		}
		return answerFault{}
	})
	w.startAgent(argos(), w.tap.url())
	w.schedule(build)
	w.until("the agent asks again", func() bool { return len(w.tap.exchanges()) > 1 })
	g.release()
	require.Equal(t, wfv1.NodeSucceeded, w.final(build).Phase)
	require.Equal(t, [2]int{1, 1}, g.counts())
}

// TestPlugin_NoAnswerTakesThirtySeconds: with the plugin's own times, the
// agent never gives a call up.
func TestPlugin_NoAnswerTakesThirtySeconds(t *testing.T) {
	t.Parallel()
	g := newGate()
	w := newWorld(t)
	w.startPlugin("pod-1", task.Registry{task.StageBuild: g}, func(c *sidecar.Config) {
		c.FirstPoll, c.LongPoll, c.Requeue = 0, 0, 0 // the defaults
	})
	_, err := buildAgent() // minutes, the first time
	require.NoError(t, err)
	begun := time.Now()
	w.startAgent(argos(), w.tap.url())
	w.schedule(build)
	w.result(build, wfv1.NodeRunning)
	w.until("the first long poll is over", func() bool { return len(w.tap.exchanges()) == 2 })
	require.Less(t, time.Since(begun), 29*time.Second)
	g.release()
	require.Equal(t, wfv1.NodeSucceeded, w.final(build).Phase)
	require.Len(t, w.tap.exchanges(), 3)
}

func TestPlugin_LostAnswersAreGivenAgain(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]answerFault{"lost": {lost: true}, "cut off": {cut: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate()
			g.release()
			w := newWorld(t)
			w.startPlugin("pod-1", task.Registry{task.StageBuild: g}, func(c *sidecar.Config) { c.FirstPoll, c.LongPoll = 5*time.Second, 5*time.Second })
			w.tap.disturb(func(call int) answerFault {
				if call < 3 {
					return fault
				}
				return answerFault{}
			})
			w.startAgent(brief(), w.tap.url())
			w.schedule(build)
			require.Equal(t, wfv1.NodeSucceeded, w.final(build).Phase)
			require.Equal(t, [2]int{1, 1}, g.counts())
			require.Len(t, w.tap.exchanges(), 4)
		})
	}
}

func TestPlugin_AnAgentRestartBetweenReplyAndPatch(t *testing.T) {
	t.Parallel()
	g := newGate()
	g.release()
	w := newWorld(t)
	w.kube.Deny(refuse(taskSets, "patch", http.StatusServiceUnavailable))
	w.startPlugin("pod-1", task.Registry{task.StageBuild: g})
	a := w.startAgent(brief(), w.tap.url())
	w.schedule(build)
	w.until("the final reply was given", func() bool {
		return w.tap.count(func(e exchange) bool { return len(e.body) > 100 }) > 0
	})
	a.kill()
	require.Empty(t, w.results())
	w.kube.Deny(nil)
	w.startAgent(brief(), w.tap.url())
	require.Equal(t, wfv1.NodeSucceeded, w.final(build).Phase)
	require.Equal(t, [2]int{1, 1}, g.counts())
}

// failedPatches makes the API server refuse the agent's patches of results
// until five tries of one patch have failed, and says when that is so. Those of
// the plugin pass.
func (w *world) failedPatches() (over func() bool) {
	var tries atomic.Int32
	fail := refuse(taskSets, "patch", http.StatusServiceUnavailable)
	w.kube.Deny(func(c kubetest.Call) *metav1.Status {
		if tries.Load() >= 5 || strings.Contains(c.Query, "fieldManager=aphex") {
			return nil
		}
		status := fail(c)
		if status != nil {
			tries.Add(1)
		}
		return status
	})
	return func() bool { return tries.Load() >= 5 }
}

// TestPlugin_APatchThatFailsFiveTimes: the agent forgets the result and never
// asks again. The plugin sees that nobody has it and puts it where it belongs.
func TestPlugin_APatchThatFailsFiveTimes(t *testing.T) {
	t.Parallel()
	g := newGate()
	g.release()
	w := newWorld(t)
	over := w.failedPatches()
	w.startPlugin("pod-1", task.Registry{task.StageBuild: g}, w.watchful)
	w.startAgent(brief(), w.tap.url())
	w.schedule(build)
	w.until("five patches have failed", over)
	w.lost(build)
	require.Equal(t, [2]int{1, 1}, g.counts())
}

// TestPlugin_AWorkflowUpdateThatFails: the controller has removed the entry
// from the task set, cannot write the Workflow and puts the node back; the
// agent takes it for done.
func TestPlugin_AWorkflowUpdateThatFails(t *testing.T) {
	t.Parallel()
	g := newGate()
	g.release()
	w := newWorld(t)
	w.startPlugin("pod-1", task.Registry{task.StageBuild: g}, w.watchful)
	w.startAgent(brief(), w.tap.url())
	w.schedule(build)
	w.final(build)
	w.reconcileWith(false)
	require.Equal(t, []string{build.id()}, w.tasks(), "the node is back")
	w.lost(build)
	require.Equal(t, [2]int{1, 1}, g.counts())
}

// lost waits for the result of a step that the agent will not hand in any
// more, and checks that it is the one that was answered.
func (w *world) lost(s step) {
	w.t.Helper()
	result := w.final(s)
	require.Equal(w.t, wfv1.NodeSucceeded, result.Phase)
	require.Equal(w.t, done().Message, result.Message)
	for _, name := range task.Outputs(s.stage) {
		require.Contains(w.t, parameters(&result), name)
	}
	w.reconcile()
	require.Equal(w.t, "Succeeded", w.phase(s))
	require.Empty(w.t, w.tasks())
}

// TestPlugin_ALostResultIsDeliveredAgain: without the watchdog, deleting the
// agent pod, or any other restart of the agent, delivers the task again, and
// the plugin still knows the answer.
func TestPlugin_ALostResultIsDeliveredAgain(t *testing.T) {
	t.Parallel()
	g := newGate()
	g.release()
	w := newWorld(t)
	w.startPlugin("pod-1", task.Registry{task.StageBuild: g, task.StageTest: returns(done(), nil)}, func(c *sidecar.Config) { c.Keeper = nil })
	a := w.startAgent(brief(), w.tap.url())
	w.schedule(build)
	w.final(build)
	w.reconcileWith(false)
	w.schedule(test)
	w.final(test)
	require.NotContains(t, w.results(), build.id(), "nobody works on it")
	a.kill()
	w.startAgent(brief(), w.tap.url())
	require.Equal(t, wfv1.NodeSucceeded, w.final(build).Phase)
	w.reconcile()
	require.Equal(t, "Succeeded", w.phase(build))
	require.Equal(t, [2]int{1, 1}, g.counts())
}

func TestPlugin_AClosedWatchChangesNothing(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*world){
		"in order":  func(w *world) { w.kube.EndWatches() },
		"by breach": func(w *world) { w.kube.DropWatches() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate()
			w := aphexWith(t, task.Registry{task.StageBuild: g, task.StageTest: returns(done(), nil), task.StageDeployPipeline: newGate()})
			w.schedule(build)
			w.result(build, wfv1.NodeRunning)
			end(w)
			w.schedule(test)
			w.final(test)
			end(w)
			g.release()
			require.Equal(t, wfv1.NodeSucceeded, w.final(build).Phase)
			require.Equal(t, [2]int{1, 1}, g.counts())
			// The plugin's own watches are back too: it notices a stop.
			w.stop()
			late := step{stage: task.StageDeployPipeline}
			w.schedule(late)
			require.Contains(t, w.final(late).Message, "[Cancelled]")
		})
	}
}

// TestPlugin_TheTasksOfARunAreSmall: the task set holds the whole template of
// each running task, and is never compressed.
func TestPlugin_TheTasksOfARunAreSmall(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../tasks/workflow/testdata/TestGenerate/everything/workflowtemplate.golden.yaml")
	require.NoError(t, err)
	var manifest struct {
		Spec struct {
			Templates []map[string]any `json:"templates"`
		} `json:"spec"`
	}
	require.NoError(t, yaml.Unmarshal(raw, &manifest))
	steps := 0
	for _, template := range manifest.Spec.Templates {
		if template["plugin"] != nil {
			steps++
			task, err := json.Marshal(template)
			require.NoError(t, err)
			require.Less(t, len(task), 4<<10)
		}
	}
	require.Greater(t, steps, 5)
}

// Feature: aphex-pipeline, Property 26: Cluster resource isolation
func TestPlugin_ItsOwnWritesAreFewAndToItsOwnObjects(t *testing.T) {
	t.Parallel()
	w := aphexWith(t, task.Registry{task.StageBuild: returns(done(), nil)})
	w.schedule(build)
	w.final(build)
	w.reconcile()
	w.until("the nudges have ended", func() bool { return w.phase(build) == "Succeeded" })
	nudges := 0
	for _, c := range w.kube.Calls() {
		switch {
		case c.Verb == "get" || c.Verb == "watch" || c.Resource == "configmaps":
		case c.Verb == "patch" && c.Resource == workflows:
			nudges++
		case c.Verb == "patch" && c.Resource == taskSets:
			require.Equal(t, "status", c.Subresource, "the agent's")
		default:
			require.Fail(t, "unexpected", "%s %s", c.Verb, c.Resource)
		}
		require.NotContains(t, c.Query, "labelSelector", "results are found whatever the task set's labels are")
	}
	require.LessOrEqual(t, nudges, 2)
}
