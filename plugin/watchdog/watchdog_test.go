package watchdog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/plugin/watchdog"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

const (
	node  = "shop-1.build"
	final = `{"node":{"phase":"Failed","message":"npm ci: exit 1 [CommandFailed]","outputs":{"parameters":[{"name":"log-url","value":""}],"exitCode":"1"}}}`
)

func run() task.Run {
	return task.Run{Namespace: "shop", Name: "shop-1", UID: "uid-1", Epoch: "2026-11-24T06:00:00Z"}
}

func id(name string) string { return kube.NodeID("shop-1", name) }

// quick looks every few milliseconds.
func quick() watchdog.Timing {
	return watchdog.Timing{Delay: 20 * time.Millisecond, Every: 10 * time.Millisecond, Sweep: 5 * time.Millisecond}
}

// cluster is a run whose build was answered, and the answer was lost.
func cluster(t *testing.T) *kubetest.Server {
	t.Helper()
	s := kubetest.New(t)
	s.Put("workflows", kubetest.Object{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
		"metadata": map[string]any{"name": "shop-1", "namespace": "shop", "uid": "uid-1"},
		"spec":     map[string]any{},
		"status": map[string]any{"phase": "Running", "startedAt": "2026-11-24T06:00:00Z", "nodes": map[string]any{
			"shop-1": map[string]any{"name": "shop-1", "phase": "Running"},
			id(node): map[string]any{"name": node, "phase": "Running"},
		}},
	})
	s.Put("workflowtasksets", kubetest.Object{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTaskSet",
		"metadata": map[string]any{"name": "shop-1", "namespace": "shop", "ownerReferences": []any{
			map[string]any{"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "shop-1", "uid": "uid-1"},
		}},
		"spec": map[string]any{"tasks": map[string]any{id(node): map[string]any{"name": "build"}}},
	})
	return s
}

func workflow(s *kubetest.Server, change func(status map[string]any)) {
	s.Change("workflows", "shop", "shop-1", func(o kubetest.Object) { change(o["status"].(map[string]any)) })
}

func tasks(s *kubetest.Server, change func(spec, results map[string]any)) {
	s.Change("workflowtasksets", "shop", "shop-1", func(o kubetest.Object) {
		results := entriesOf(o)
		change(o["spec"].(map[string]any)["tasks"].(map[string]any), results)
		o["status"] = map[string]any{"nodes": results}
	})
}

func entriesOf(o kubetest.Object) map[string]any {
	status, _ := o["status"].(map[string]any)
	if results, ok := status["nodes"].(map[string]any); ok {
		return results
	}
	return map[string]any{}
}

func entries(s *kubetest.Server) map[string]any {
	return entriesOf(s.Get("workflowtasksets", "shop", "shop-1"))
}

func writes(s *kubetest.Server) int {
	n := 0
	for _, c := range s.Calls() {
		if c.Verb == "patch" {
			n++
		}
	}
	return n
}

func looks(s *kubetest.Server) int {
	n := 0
	for _, c := range s.Calls() {
		if c.Verb == "get" && c.Resource == "workflowtasksets" {
			n++
		}
	}
	return n
}

func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, 20*time.Second, 2*time.Millisecond)
}

// watch starts Answered; end waits for its end.
func watch(t *testing.T, s *kubetest.Server, log *bytes.Buffer) (end func()) {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	if log != nil {
		logger = slog.New(slog.NewTextHandler(log, nil))
	}
	w := watchdog.New(s.Client(t), quick(), logger)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { w.Answered(ctx, run(), node, []byte(final)); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return func() {
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Error("the watch goes on")
		}
	}
}

func TestWatchdog_HandsALostResultInAndWatchesOn(t *testing.T) {
	t.Parallel()
	s := cluster(t)
	end := watch(t, s, nil)
	eventually(t, func() bool { return len(entries(s)) == 1 })
	var want struct {
		Node map[string]any `json:"node"`
	}
	require.NoError(t, json.Unmarshal([]byte(final), &want))
	require.Equal(t, map[string]any{id(node): want.Node}, entries(s), "as the agent would have written it")

	tasks(s, func(_, results map[string]any) { delete(results, id(node)) }) // lost once more, by the controller
	eventually(t, func() bool { return len(entries(s)) == 1 })
	workflow(s, func(status map[string]any) {
		status["nodes"].(map[string]any)[id(node)].(map[string]any)["phase"] = "Failed"
	})
	end()
	require.Equal(t, 2, writes(s))
	for _, c := range s.Calls() {
		if c.Verb == "patch" {
			require.Equal(t, "workflowtasksets/status", c.Resource+"/"+c.Subresource)
			require.Contains(t, string(c.Body), `"resourceVersion"`)
		}
	}
}

// Nothing is written in any of the states that only look like a loss.
func TestWatchdog_WritesNothingElse(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*kubetest.Server){
		"reported, not copied yet": func(s *kubetest.Server) {
			tasks(s, func(_, results map[string]any) { results[id(node)] = map[string]any{"phase": "Failed"} })
		},
		"an earlier report is there": func(s *kubetest.Server) {
			tasks(s, func(_, results map[string]any) { results[id(node)] = map[string]any{"phase": "Running"} })
		},
		"no longer asked for": func(s *kubetest.Server) {
			tasks(s, func(spec, _ map[string]any) { delete(spec, id(node)) })
		},
		"the workflow has no such node": func(s *kubetest.Server) {
			workflow(s, func(status map[string]any) { delete(status["nodes"].(map[string]any), id(node)) })
		},
		"the nodes are kept elsewhere": func(s *kubetest.Server) {
			workflow(s, func(status map[string]any) { delete(status, "nodes") })
		},
		"the run is being stopped": func(s *kubetest.Server) {
			s.Change("workflows", "shop", "shop-1", func(o kubetest.Object) { o["spec"] = map[string]any{"shutdown": "Stop"} })
		},
		"the task set is another run's": func(s *kubetest.Server) {
			s.Change("workflowtasksets", "shop", "shop-1", func(o kubetest.Object) {
				o["metadata"].(map[string]any)["ownerReferences"].([]any)[0].(map[string]any)["uid"] = "uid-2"
			})
		},
		"the task set is gone": func(s *kubetest.Server) { s.Delete("workflowtasksets", "shop", "shop-1") },
		"the API server fails": func(s *kubetest.Server) {
			s.Deny(func(c kubetest.Call) *metav1.Status {
				if c.Resource != "workflows" {
					return nil
				}
				return kubetest.Status(http.StatusInternalServerError, metav1.StatusReasonInternalError, "etcd is away")
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := cluster(t)
			change(s)
			watch(t, s, nil)
			eventually(t, func() bool { return looks(s) >= 4 })
			require.Zero(t, writes(s))
		})
	}
}

func TestWatchdog_EndsWithTheNeedForIt(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*kubetest.Server){
		"the node is fulfilled": func(s *kubetest.Server) {
			workflow(s, func(status map[string]any) {
				status["nodes"].(map[string]any)[id(node)].(map[string]any)["phase"] = "Failed"
			})
		},
		"the run has ended": func(s *kubetest.Server) { workflow(s, func(status map[string]any) { status["phase"] = "Failed" }) },
		"the run was retried": func(s *kubetest.Server) {
			workflow(s, func(status map[string]any) { status["startedAt"] = "2026-11-24T07:00:00Z" })
		},
		"the run is gone": func(s *kubetest.Server) { s.Delete("workflows", "shop", "shop-1") },
		"it is another run's": func(s *kubetest.Server) {
			s.Change("workflows", "shop", "shop-1", func(o kubetest.Object) { o["metadata"].(map[string]any)["uid"] = "uid-2" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := cluster(t)
			change(s)
			watch(t, s, nil)()
			require.Zero(t, writes(s))
		})
	}
}

// A task set that somebody writes between the look and the patch is left as it
// is; the next look decides anew.
func TestWatchdog_LosesEveryRace(t *testing.T) {
	t.Parallel()
	s := cluster(t)
	var once sync.Once
	s.Deny(func(c kubetest.Call) *metav1.Status {
		if c.Verb == "patch" {
			once.Do(func() { // the controller was about to remove the task
				workflow(s, func(status map[string]any) {
					status["nodes"].(map[string]any)[id(node)].(map[string]any)["phase"] = "Failed"
				})
				tasks(s, func(spec, _ map[string]any) { delete(spec, id(node)) })
			})
		}
		return nil
	})
	watch(t, s, nil)()
	require.Equal(t, 1, writes(s))
	require.Empty(t, entries(s))
}

func TestWatchdog_WaitsWellAfterTheLastAnswer(t *testing.T) {
	t.Parallel()
	s := cluster(t)
	w := watchdog.New(s.Client(t), watchdog.Timing{Delay: 400 * time.Millisecond, Every: time.Millisecond}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	begin, last := time.Now(), time.Time{}
	for time.Since(begin) < 600*time.Millisecond { // the agent asks again and again
		last = time.Now()
		wg.Go(func() { w.Answered(ctx, run(), node, []byte(final)) })
		<-time.After(5 * time.Millisecond)
	}
	eventually(t, func() bool { return writes(s) > 0 })
	require.GreaterOrEqual(t, time.Since(last), 400*time.Millisecond)
	cancel()
}

func TestWatchdog_WithoutTheRightOneWarningThenOff(t *testing.T) {
	t.Parallel()
	for _, denied := range []struct{ resource, verb string }{{"workflowtasksets/status", "patch"}, {"workflowtasksets", "get"}, {"workflows", "get"}} {
		t.Run(denied.verb+" "+denied.resource, func(t *testing.T) {
			t.Parallel()
			s := cluster(t)
			s.Forbid(denied.resource, denied.verb)
			var log bytes.Buffer
			w := watchdog.New(s.Client(t), quick(), slog.New(slog.NewTextHandler(&log, nil)))
			for range 3 {
				w.Answered(t.Context(), run(), node, []byte(final))
			}
			calls := len(s.Calls())
			w.Tidy(t.Context(), run(), []string{node})
			require.Len(t, s.Calls(), calls, "nothing more is tried")
			require.Equal(t, 1, strings.Count(log.String(), "level=WARN"), log.String())
			require.Contains(t, log.String(), "workflowtasksets/status")
		})
	}
}

func TestTidy_RemovesWhatNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	const late, foreign = "shop-1.deploy-dev", "shop-1.hello"
	poison := func(_, results map[string]any) {
		for _, n := range []string{node, late, foreign} {
			results[id(n)] = map[string]any{"phase": "Failed", "message": "of the try before"}
		}
	}
	for name, c := range map[string]struct {
		change func(*kubetest.Server)
		left   []string
	}{
		"the run is over": {
			change: func(s *kubetest.Server) { workflow(s, func(status map[string]any) { status["phase"] = "Failed" }) },
			left:   []string{foreign},
		},
		"the run goes on": { // only the node that neither side knows: its entry stops every reconcile
			change: func(*kubetest.Server) {},
			left:   []string{node, foreign},
		},
		"the controller is about to make the node": {
			change: func(s *kubetest.Server) {
				tasks(s, func(spec, _ map[string]any) { spec[id(late)] = map[string]any{} })
			},
			left: []string{node, late, foreign},
		},
		"the nodes are kept elsewhere": {
			change: func(s *kubetest.Server) { workflow(s, func(status map[string]any) { delete(status, "nodes") }) },
			left:   []string{node, late, foreign},
		},
		"it is another run's": {
			change: func(s *kubetest.Server) {
				s.Change("workflows", "shop", "shop-1", func(o kubetest.Object) { o["metadata"].(map[string]any)["uid"] = "uid-2" })
			},
			left: []string{node, late, foreign},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := cluster(t)
			tasks(s, poison)
			c.change(s)
			watchdog.New(s.Client(t), quick(), slog.New(slog.DiscardHandler)).Tidy(t.Context(), run(), []string{node, late})
			var left []string
			for _, n := range []string{node, late, foreign} {
				if entries(s)[id(n)] != nil {
					left = append(left, n)
				}
			}
			require.Equal(t, c.left, left)
		})
	}
}

// The agent hands its last results in while the run ends.
func TestTidy_CatchesLateEntries(t *testing.T) {
	t.Parallel()
	s := cluster(t)
	workflow(s, func(status map[string]any) { status["phase"] = "Failed" })
	done := make(chan struct{})
	go func() {
		defer close(done)
		w := watchdog.New(s.Client(t), watchdog.Timing{Sweep: 2 * time.Second}, slog.New(slog.DiscardHandler))
		w.Tidy(t.Context(), run(), []string{node})
	}()
	eventually(t, func() bool { return looks(s) == 1 })
	tasks(s, func(_, results map[string]any) { results[id(node)] = map[string]any{"phase": "Failed"} })
	<-done
	require.Empty(t, entries(s))
	require.Equal(t, 3, looks(s))
}
