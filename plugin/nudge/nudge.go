package nudge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// Annotation is what a nudge changes. Its value names the node, the try and
// which of the two nudges it was, so that a process that has been started
// again does not repeat it.
const Annotation = "aphex.dev/nudge"

// The two nudges that a node may get, in this order: each is a reconcile.
const (
	// forResult: the result is where the controller will find it.
	forResult = 1
	// forNext: the controller has copied the result, and may go on.
	forNext = 2
)

// Defaults of Timing.
const (
	// DefaultGrace is enough for a controller that acts on events at once, and
	// for the informers of another one to have what our watches have shown.
	DefaultGrace = 50 * time.Millisecond
	// DefaultBlind is above the pace at which the agent of a generated template
	// hands results over, and above what a reconcile takes.
	DefaultBlind = 600 * time.Millisecond
	// DefaultLimit is above what a stock controller needs by itself: ten
	// seconds for the agent, ten for each of two reconciles.
	DefaultLimit = 30 * time.Second
)

// Timing is the pace of a Nudger. Zero values mean the defaults.
type Timing struct {
	// Grace is what the controller has to act by itself before each nudge.
	Grace time.Duration
	// Blind is the pause before each nudge where nothing can be watched.
	Blind time.Duration
	// Limit bounds the whole.
	Limit time.Duration
}

// cluster is what a Nudger needs. It takes patch on Workflows, and get and
// watch on Workflows and task sets to be exact.
type cluster interface {
	AnnotateWorkflow(ctx context.Context, namespace, name, uid string, annotations map[string]string) (*kube.Workflow, error)
	WatchWorkflow(ctx context.Context, namespace, name string, fn func(*kube.Workflow) (done bool)) error
	WatchTaskSet(ctx context.Context, namespace, name string, fn func(*kube.TaskSet) (done bool)) error
}

var _ cluster = (*kube.Client)(nil)

// Nudger nudges. It is safe for concurrent use.
type Nudger struct {
	client cluster
	timing Timing
	logger *slog.Logger
	// off is set once the right to patch turned out to be missing, blind once
	// that to watch was.
	off, blind atomic.Bool

	mu    sync.Mutex
	nodes map[string]*tally // by run, try and node
}

// tally is what one node has had.
type tally struct {
	busy bool
	// last is the last nudge it got: 0, forResult or forNext.
	last int
}

// New returns a Nudger on top of client.
func New(client cluster, timing Timing, logger *slog.Logger) *Nudger {
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{{&timing.Grace, DefaultGrace}, {&timing.Blind, DefaultBlind}, {&timing.Limit, DefaultLimit}} {
		if *d.value <= 0 {
			*d.value = d.fallback
		}
	}
	return &Nudger{client: client, timing: timing, logger: logger, nodes: map[string]*tally{}}
}

// Nudge is called when the final reply for the node called node of run is on
// its way. It returns when the controller has acted on it or needs no more
// nudges, after at most Timing.Limit, or when ctx ends.
//
// However often it is called for a node, that gets at most two nudges, and none
// that the controller did not need. A call while another one is at work
// returns at once. It fails silently: without the right to patch there is one
// warning, and nothing more is tried.
func (n *Nudger) Nudge(ctx context.Context, run task.Run, node string) {
	t := n.take(run.UID + "/" + run.Epoch + "/" + node)
	if t == nil {
		return
	}
	a := &attempt{Nudger: n, run: run, node: node, id: kube.NodeID(run.Name, node), last: t.last}
	ctx, cancel := context.WithTimeout(ctx, n.timing.Limit)
	defer cancel()
	err := kube.ErrForbidden
	if !n.blind.Load() {
		err = a.exact(ctx)
	}
	if errors.Is(err, kube.ErrForbidden) {
		if !n.blind.Swap(true) {
			n.logger.WarnContext(ctx, "nudges are less exact: the service account may not watch workflows and workflowtasksets", slog.String("err", err.Error()))
		}
		a.unseen(ctx)
	}
	n.mu.Lock()
	t.busy, t.last = false, a.last
	n.mu.Unlock()
}

// take reserves the node called key for one call, or returns nil if there is
// nothing to be done for it.
func (n *Nudger) take(key string) *tally {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.nodes[key]
	if t == nil {
		t = &tally{}
		n.nodes[key] = t
	}
	if t.busy || t.last == forNext || n.off.Load() {
		return nil
	}
	t.busy = true
	return t
}

// attempt is one call of Nudge.
type attempt struct {
	*Nudger

	run      task.Run
	node, id string
	last     int
}

// unseen nudges without seeing anything.
func (a *attempt) unseen(ctx context.Context) {
	for _, nudge := range []int{forResult, forNext} {
		select {
		case <-ctx.Done():
			return
		case <-time.After(a.timing.Blind):
		}
		if !a.patch(ctx, nudge) {
			return
		}
	}
}

// patch gives the nudge, unless the node has had it already, and reports
// whether a further one is possible. One whose answer is lost counts: it may
// have taken effect.
func (a *attempt) patch(ctx context.Context, nudge int) bool {
	if a.last >= nudge {
		return true
	}
	if a.off.Load() || ctx.Err() != nil {
		return false
	}
	a.last = nudge
	w, err := a.client.AnnotateWorkflow(ctx, a.run.Namespace, a.run.Name, a.run.UID, map[string]string{Annotation: a.prefix() + strconv.Itoa(nudge)})
	switch {
	case errors.Is(err, kube.ErrForbidden):
		if !a.off.Swap(true) {
			a.logger.WarnContext(ctx, "runs will be slower: the service account may not patch workflows", slog.String("err", err.Error()))
		}
		return false
	case errors.Is(err, kube.ErrNotFound), errors.Is(err, kube.ErrConflict):
		return false // gone, or another one of the same name
	case err != nil:
		a.logger.DebugContext(ctx, "nudge failed", slog.String("err", err.Error()))
		return true
	}
	a.logger.DebugContext(ctx, "controller nudged", slog.String("workflow_uid", a.run.UID), slog.String("node", a.node), slog.Int("nudge", nudge))
	return !w.Finished()
}

func (a *attempt) prefix() string { return fmt.Sprintf("%s/%s/", a.id, a.run.Epoch) }

// remember takes from w which nudges an earlier process has given to the node.
func (a *attempt) remember(w *kube.Workflow) {
	if text, ok := strings.CutPrefix(w.Annotations[Annotation], a.prefix()); ok {
		if nudge, err := strconv.Atoi(text); err == nil && nudge <= forNext {
			a.last = max(a.last, nudge)
		}
	}
}
