package nudge_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/plugin/nudge"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

func run() task.Run {
	return task.Run{Namespace: "shop", Name: "shop-1", UID: "uid-shop-1", Epoch: "2026-11-24T06:00:00Z"}
}

const node = "shop-1.build"

func nodeID() string { return kube.NodeID("shop-1", node) }

// cluster is an API server with a run whose build has just been answered.
func cluster(t *testing.T) *kubetest.Server {
	t.Helper()
	s := kubetest.New(t)
	s.Put("workflows", kubetest.Object{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
		"metadata": map[string]any{"name": "shop-1", "namespace": "shop", "uid": "uid-shop-1"},
		"status": map[string]any{"phase": "Running", "nodes": map[string]any{
			nodeID(): map[string]any{"name": node, "phase": "Running"},
			"shop-1": map[string]any{"name": "shop-1", "phase": "Running"},
		}},
	})
	s.Put("workflowtasksets", kubetest.Object{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTaskSet",
		"metadata": map[string]any{"name": "shop-1", "namespace": "shop"},
		"spec":     map[string]any{"tasks": map[string]any{nodeID(): map[string]any{}}},
	})
	return s
}

func nudger(t *testing.T, s *kubetest.Server, timing nudge.Timing) *nudge.Nudger {
	t.Helper()
	return nudge.New(s.Client(t), timing, slog.New(slog.DiscardHandler))
}

// start calls Nudge and returns once it looks.
func start(t *testing.T, s *kubetest.Server, n *nudge.Nudger) (done chan struct{}) {
	t.Helper()
	before := calls(s, "watch")
	done = make(chan struct{})
	go func() {
		n.Nudge(t.Context(), run(), node)
		close(done)
	}()
	eventually(t, func() bool { return calls(s, "watch") == before+2 })
	return done
}

func calls(s *kubetest.Server, verb string) int {
	n := 0
	for _, c := range s.Calls() {
		if c.Verb == verb {
			n++
		}
	}
	return n
}

func patches(s *kubetest.Server) int { return calls(s, "patch") }

func nodes(o kubetest.Object) map[string]any {
	status, _ := o["status"].(map[string]any)
	m, _ := status["nodes"].(map[string]any)
	return m
}

// report is what the agent does.
func report(s *kubetest.Server) {
	s.Change("workflowtasksets", "shop", "shop-1", func(o kubetest.Object) {
		o["status"] = map[string]any{"nodes": map[string]any{nodeID(): map[string]any{"phase": "Succeeded"}}}
	})
}

// clean and write are the controller's first reconcile.
func clean(s *kubetest.Server) {
	s.Change("workflowtasksets", "shop", "shop-1", func(o kubetest.Object) {
		o["status"], o["spec"] = map[string]any{}, map[string]any{}
	})
}

func write(s *kubetest.Server) {
	s.Change("workflows", "shop", "shop-1", func(o kubetest.Object) {
		nodes(o)[nodeID()] = map[string]any{"name": node, "phase": "Succeeded"}
	})
}

// moveOn is its second one.
func moveOn(s *kubetest.Server) {
	s.Change("workflows", "shop", "shop-1", func(o kubetest.Object) {
		nodes(o)["next"] = map[string]any{"name": "shop-1.deploy-dev", "phase": "Pending"}
	})
}

func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, time.Minute, 2*time.Millisecond)
}

// still gives what must not happen the time to happen.
func still(t *testing.T, condition func() bool) {
	t.Helper()
	require.Never(t, func() bool { return !condition() }, 200*time.Millisecond, 10*time.Millisecond)
}

func TestNudge_OnceForTheResultAndOnceForWhatComesNext(t *testing.T) {
	t.Parallel()
	s := cluster(t)
	done := start(t, s, nudger(t, s, nudge.Timing{Grace: time.Millisecond}))
	still(t, func() bool { return patches(s) == 0 }) // not before the result is there to be found
	report(s)
	eventually(t, func() bool { return patches(s) == 1 })
	clean(s)
	still(t, func() bool { return patches(s) == 1 }) // the controller is about to write the Workflow
	write(s)
	eventually(t, func() bool { return patches(s) == 2 })
	<-done
	annotations, _ := s.Get("workflows", "shop", "shop-1")["metadata"].(map[string]any)["annotations"].(map[string]any)
	require.Equal(t, nodeID()+"/2026-11-24T06:00:00Z/2", annotations[nudge.Annotation])
	for _, c := range s.Calls() {
		require.True(t, c.Verb == "patch" || c.Verb == "get" || c.Verb == "watch", c.Verb)
	}
	require.Equal(t, 2, calls(s, "get"), "it watches, it does not ask again and again")
}

// A controller that is fast by itself is not nudged: not for the result, and
// not for what comes next.
func TestNudge_NotWhatTheControllerDoesByItself(t *testing.T) {
	t.Parallel()
	s := cluster(t)
	done := start(t, s, nudger(t, s, nudge.Timing{Grace: time.Hour, Limit: time.Hour}))
	report(s)
	clean(s)
	write(s)
	still(t, func() bool { return patches(s) == 0 })
	moveOn(s)
	<-done
	require.Zero(t, patches(s))
}

// A controller whose parallelism is full does not look at once. It gets no
// third nudge for that, and goes on at its own pace.
func TestNudge_AControllerThatDoesNotReactIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := cluster(t)
	report(s)
	done := start(t, s, nudger(t, s, nudge.Timing{Grace: time.Millisecond}))
	eventually(t, func() bool { return patches(s) == 1 })
	still(t, func() bool { return patches(s) == 1 })
	clean(s)
	write(s)
	<-done
	require.Equal(t, 2, patches(s))
}

// Replies are given again when the agent is started again, or ours is: a node
// still gets two nudges in all. Another try of the run is another node.
func TestNudge_AtMostTwiceForANodeEver(t *testing.T) {
	t.Parallel()
	s := cluster(t)
	report(s)
	brief := nudge.Timing{Grace: time.Millisecond, Limit: time.Second}
	n := nudger(t, s, brief)
	for range 2 {
		n.Nudge(t.Context(), run(), node)
	}
	require.Equal(t, 1, patches(s))
	nudger(t, s, brief).Nudge(t.Context(), run(), node) // another process
	require.Equal(t, 1, patches(s))

	clean(s)
	write(s)
	nudger(t, s, brief).Nudge(t.Context(), run(), node)
	require.Equal(t, 2, patches(s))
	for range 3 {
		nudger(t, s, brief).Nudge(t.Context(), run(), node)
		n.Nudge(t.Context(), run(), node)
	}
	require.LessOrEqual(t, patches(s), 2)

	again := run()
	again.Epoch = "2026-11-24T07:00:00Z"
	n.Nudge(t.Context(), again, node)
	require.Equal(t, 3, patches(s))
}

func TestNudge_ALostAnswerCounts(t *testing.T) {
	t.Parallel()
	s := cluster(t)
	s.Lose(func(c kubetest.Call) bool { return c.Verb == "patch" })
	report(s)
	n := nudger(t, s, nudge.Timing{Grace: time.Millisecond, Limit: time.Second})
	n.Nudge(t.Context(), run(), node)
	clean(s)
	write(s)
	n.Nudge(t.Context(), run(), node)
	require.Equal(t, 2, patches(s))
}

// Nodes of a large Workflow may be kept in a database: then the task set tells.
func TestNudge_WhereNodesCannotBeSeenTheTaskSetCounts(t *testing.T) {
	t.Parallel()
	s := cluster(t)
	s.Change("workflows", "shop", "shop-1", func(o kubetest.Object) { o["status"] = map[string]any{"phase": "Running"} })
	done := start(t, s, nudger(t, s, nudge.Timing{Grace: time.Millisecond}))
	report(s)
	eventually(t, func() bool { return patches(s) == 1 })
	clean(s)
	<-done
	require.Equal(t, 2, patches(s))
}

func TestNudge_NeverFinishedForeignOrGone(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*kubetest.Server){
		"finished": func(s *kubetest.Server) {
			s.Change("workflows", "shop", "shop-1", func(o kubetest.Object) { o["status"] = map[string]any{"phase": "Failed"} })
		},
		"foreign": func(s *kubetest.Server) {
			s.Change("workflows", "shop", "shop-1", func(o kubetest.Object) { o["metadata"].(map[string]any)["uid"] = "uid-other" })
		},
		"gone": func(s *kubetest.Server) { s.Delete("workflows", "shop", "shop-1") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := cluster(t)
			change(s)
			report(s)
			nudger(t, s, nudge.Timing{Grace: time.Millisecond}).Nudge(t.Context(), run(), node)
			require.Zero(t, patches(s))
		})
	}
}

func TestNudge_WithoutTheRightToWatchTwiceAfterAPause(t *testing.T) {
	t.Parallel()
	for _, resource := range []string{"workflowtasksets", "workflows"} {
		s := cluster(t)
		s.Forbid(resource, "get", "watch")
		var log bytes.Buffer
		n := nudge.New(s.Client(t), nudge.Timing{Blind: 100 * time.Millisecond}, slog.New(slog.NewTextHandler(&log, nil)))
		begin := time.Now()
		n.Nudge(t.Context(), run(), node)
		require.Equal(t, 2, patches(s))
		require.GreaterOrEqual(t, time.Since(begin), 200*time.Millisecond)
		n.Nudge(t.Context(), run(), "shop-1.deploy-dev")
		require.Equal(t, 4, patches(s))
		require.Equal(t, 1, strings.Count(log.String(), "level=WARN"), log.String())
	}
}

func TestNudge_WithoutTheRightToPatchOneWarningThenOff(t *testing.T) {
	t.Parallel()
	s := cluster(t)
	report(s)
	s.Forbid("workflows", "patch")
	var log bytes.Buffer
	n := nudge.New(s.Client(t), nudge.Timing{}, slog.New(slog.NewTextHandler(&log, nil)))
	for _, name := range []string{node, node, "shop-1.deploy-dev"} {
		n.Nudge(t.Context(), run(), name)
	}
	require.Equal(t, 1, patches(s))
	require.Equal(t, 2, calls(s, "watch"), "what cannot be used is not watched")
	require.Equal(t, 1, strings.Count(log.String(), "level=WARN"), log.String())
}

// silent is a cluster in which nothing ever happens.
type silent struct {
	mu      sync.Mutex
	watches int
}

func (*silent) AnnotateWorkflow(context.Context, string, string, string, map[string]string) (*kube.Workflow, error) {
	panic("there is nothing to nudge about")
}

func (s *silent) WatchWorkflow(ctx context.Context, _, _ string, _ func(*kube.Workflow) bool) error {
	return s.wait(ctx)
}

func (s *silent) WatchTaskSet(ctx context.Context, _, _ string, _ func(*kube.TaskSet) bool) error {
	return s.wait(ctx)
}

func (s *silent) wait(ctx context.Context) error {
	s.mu.Lock()
	s.watches++
	s.mu.Unlock()
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestNudge_GivesUpAndIsSingleFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &silent{}
		n := nudge.New(s, nudge.Timing{}, slog.New(slog.DiscardHandler))
		begin := time.Now()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { n.Nudge(t.Context(), run(), node) })
		}
		wg.Wait()
		require.Equal(t, 30*time.Second, time.Since(begin))
		require.Equal(t, 2, s.watches)
	})
}
