package nudge_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/plugin/nudge"
)

const (
	stages = 3
	// agentPace is what the agent takes to hand a result over.
	agentPace = 100 * time.Millisecond
)

// controller is the part of Argo's that has to do with pace, as of v3.7.18: it
// looks at a run when requeue has passed since a change of the task set, or at
// once when the Workflow has been changed by somebody else. At the first look
// it copies a result, at the next one it starts what comes after it.
type controller struct {
	server  *kubetest.Server
	requeue time.Duration
	// full: its parallelism is used up, so that changes of the Workflow are
	// not looked at sooner than others.
	full bool
	// eager: it looks at what it has written itself, as from v4.1 on.
	eager bool
}

// run plays the controller, and the agent that hands over each stage's result,
// until all stages have been started and have ended.
func (c *controller) run(ctx context.Context, t *testing.T, n *nudge.Nudger) {
	t.Helper()
	changes := make(chan bool, 1000) // true for the Workflow's
	client := c.server.Client(t)
	go func() {
		_ = client.WatchWorkflow(ctx, "shop", "shop-1", func(w *kube.Workflow) bool {
			changes <- true
			return false
		})
	}()
	go func() {
		_ = client.WatchTaskSet(ctx, "shop", "shop-1", func(*kube.TaskSet) bool {
			changes <- false
			return false
		})
	}()
	due := time.After(0)
	annotation := c.annotation()
	for started := 0; ; {
		select {
		case <-ctx.Done():
			t.Error("the run stands still")
			return
		case workflow := <-changes:
			value := c.annotation()
			foreign := workflow && value != annotation
			annotation = value
			switch {
			case workflow && !foreign && !c.eager:
			case workflow && !c.full:
				due = time.After(0)
			case due == nil: // an earlier entry in the queue wins
				due = time.After(c.requeue)
			}
		case <-due:
			due = nil
			if c.look(started) {
				started++
				if started > stages {
					return
				}
				name := stage(started)
				go n.Nudge(ctx, run(), name)
				time.AfterFunc(agentPace, func() { c.report(name) })
			}
		}
	}
}

func stage(n int) string { return fmt.Sprintf("shop-1.stage-%d", n) }

func (c *controller) annotation() string {
	annotations, _ := c.server.Get("workflows", "shop", "shop-1")["metadata"].(map[string]any)["annotations"].(map[string]any)
	return fmt.Sprint(annotations[nudge.Annotation])
}

// look is one reconcile. It reports whether the next stage was started.
func (c *controller) look(started int) bool {
	current := kube.NodeID("shop-1", stage(started))
	if started > 0 && phase(nodes(c.server.Get("workflows", "shop", "shop-1"))[current]) == "Pending" {
		if phase(nodes(c.server.Get("workflowtasksets", "shop", "shop-1"))[current]) != "Succeeded" {
			return false
		}
		clean(c.server)
		c.server.Change("workflows", "shop", "shop-1", func(o kubetest.Object) {
			nodes(o)[current].(map[string]any)["phase"] = "Succeeded"
		})
		return false
	}
	next := kube.NodeID("shop-1", stage(started+1))
	c.server.Change("workflows", "shop", "shop-1", func(o kubetest.Object) {
		nodes(o)[next] = map[string]any{"name": stage(started + 1), "phase": "Pending"}
	})
	c.server.Change("workflowtasksets", "shop", "shop-1", func(o kubetest.Object) {
		o["spec"] = map[string]any{"tasks": map[string]any{next: map[string]any{}}}
	})
	return true
}

func (c *controller) report(name string) {
	c.server.Change("workflowtasksets", "shop", "shop-1", func(o kubetest.Object) {
		o["status"] = map[string]any{"nodes": map[string]any{kube.NodeID("shop-1", name): map[string]any{"phase": "Succeeded"}}}
	})
}

func phase(node any) string {
	m, _ := node.(map[string]any)
	text, _ := m["phase"].(string)
	return text
}

// TestNudge_ByController: with a controller that would look in an hour only, a
// run of three stages ends at once, for two nudges each. What a controller does
// by itself it is not nudged for; one that does not react gets no more.
func TestNudge_ByController(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		controller
		timing    nudge.Timing
		min, most int
	}{
		"stock":                      {controller{requeue: time.Hour}, nudge.Timing{}, 2 * stages, 2 * stages},
		"fast by itself":             {controller{requeue: time.Millisecond}, nudge.Timing{Grace: time.Hour, Limit: time.Hour}, 0, 0},
		"fast once it has begun":     {controller{requeue: time.Hour, eager: true}, nudge.Timing{Grace: 2 * time.Second}, 1, stages},
		"with its parallelism full":  {controller{requeue: 100 * time.Millisecond, full: true}, nudge.Timing{Grace: time.Millisecond}, 1, 2 * stages},
		"about as fast as the grace": {controller{requeue: 50 * time.Millisecond}, nudge.Timing{}, 0, 2 * stages},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			tt.server = cluster(t)
			tt.server.Change("workflows", "shop", "shop-1", func(o kubetest.Object) { delete(nodes(o), nodeID()) })
			clean(tt.server)
			n := nudger(t, tt.server, tt.timing)
			tt.run(ctx, t, n)
			require.GreaterOrEqual(t, patches(tt.server), tt.min)
			require.LessOrEqual(t, patches(tt.server), tt.most)
		})
	}
}
