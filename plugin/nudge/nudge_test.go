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

func run() task.Run { return task.Run{Namespace: "shop", Name: "shop-1", UID: "uid-shop-1"} }

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

func patches(s *kubetest.Server) int {
	n := 0
	for _, c := range s.Calls() {
		if c.Verb == "patch" && c.Resource == "workflows" {
			n++
		}
	}
	return n
}

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

// copyResult is the controller's first reconcile.
func copyResult(s *kubetest.Server) {
	s.Change("workflowtasksets", "shop", "shop-1", func(o kubetest.Object) {
		o["status"], o["spec"] = map[string]any{}, map[string]any{}
	})
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
	require.Eventually(t, condition, 20*time.Second, 2*time.Millisecond)
}

func TestNudge_FollowsTheController(t *testing.T) {
	t.Parallel()
	s := cluster(t)
	done := make(chan struct{})
	go func() {
		nudge.New(s.Client(t), slog.New(slog.DiscardHandler)).Nudge(t.Context(), run(), node)
		close(done)
	}()
	eventually(t, func() bool { return watches(s) == 2 })
	require.Zero(t, patches(s), "not before the result is there to be found")
	report(s)
	eventually(t, func() bool { return patches(s) == 1 })
	copyResult(s)
	eventually(t, func() bool { return patches(s) >= 2 })
	moveOn(s)
	<-done
	require.LessOrEqual(t, patches(s), 4)
	annotations, _ := s.Get("workflows", "shop", "shop-1")["metadata"].(map[string]any)["annotations"].(map[string]any)
	require.NotEmpty(t, annotations[nudge.Annotation])
}

func watches(s *kubetest.Server) int {
	n := 0
	for _, c := range s.Calls() {
		if c.Verb == "watch" {
			n++
		}
	}
	return n
}

func TestNudge_IsBounded(t *testing.T) {
	t.Parallel()
	s := cluster(t)
	report(s)
	nudge.New(s.Client(t), slog.New(slog.DiscardHandler)).Nudge(t.Context(), run(), node)
	require.Equal(t, 4, patches(s), "a controller that does not react is left alone")
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
			nudge.New(s.Client(t), slog.New(slog.DiscardHandler)).Nudge(t.Context(), run(), node)
			require.Zero(t, patches(s))
		})
	}
}

func TestNudge_WithoutWatchItIsPeriodic(t *testing.T) {
	t.Parallel()
	s := cluster(t)
	s.Forbid("workflowtasksets", "get", "watch")
	begin := time.Now()
	nudge.New(s.Client(t), slog.New(slog.DiscardHandler)).Nudge(t.Context(), run(), node)
	require.Equal(t, 4, patches(s))
	require.GreaterOrEqual(t, time.Since(begin), 3*400*time.Millisecond)
}

func TestNudge_WithoutPatchOneWarningThenOff(t *testing.T) {
	t.Parallel()
	s := cluster(t)
	report(s)
	s.Forbid("workflows", "patch")
	var log bytes.Buffer
	n := nudge.New(s.Client(t), slog.New(slog.NewTextHandler(&log, nil)))
	for range 3 {
		n.Nudge(t.Context(), run(), node)
	}
	require.Equal(t, 1, patches(s))
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
		n := nudge.New(s, slog.New(slog.DiscardHandler))
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
