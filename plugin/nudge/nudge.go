package nudge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// Annotation is what a nudge changes. Its value has no meaning.
const Annotation = "aphex.dev/nudge"

const (
	// maxPatches bounds the nudges for one node: each is a reconcile.
	maxPatches = 4
	// patience is how long the controller has to react before it is nudged
	// once more: its informers may have been a moment behind.
	patience = 400 * time.Millisecond
	// limit bounds the whole. The agent hands results over every ten seconds
	// unless told otherwise.
	limit = 30 * time.Second
)

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
	logger *slog.Logger
	// off is set once the right to patch turned out to be missing.
	off atomic.Bool

	mu     sync.Mutex
	active map[string]bool
}

// New returns a Nudger on top of client.
func New(client cluster, logger *slog.Logger) *Nudger {
	return &Nudger{client: client, logger: logger, active: map[string]bool{}}
}

// Nudge is called when the final reply for the node called node of run is on
// its way. It returns when the controller has acted on it, after at most
// maxPatches patches and limit, or when ctx ends. A second call for the same
// node meanwhile returns at once. It fails silently: without the right to
// patch there is one warning, and nothing more is tried.
func (n *Nudger) Nudge(ctx context.Context, run task.Run, node string) {
	key := run.UID + "/" + node
	n.mu.Lock()
	busy := n.active[key]
	n.active[key] = true
	n.mu.Unlock()
	if busy || n.off.Load() {
		return
	}
	defer func() {
		n.mu.Lock()
		delete(n.active, key)
		n.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	a := &attempt{Nudger: n, run: run, node: node, id: kube.NodeID(run.Name, node)}
	if err := a.exact(ctx); err != nil {
		a.periodic(ctx)
	}
	n.logger.DebugContext(ctx, "controller nudged", slog.String("workflow_uid", run.UID), slog.String("node", node), slog.Int("patches", a.patches))
}

// attempt is one call of Nudge.
type attempt struct {
	*Nudger
	run      task.Run
	node, id string
	patches  int
	// over says that no more patches are useful.
	over bool
}

// view is what both watches have shown so far.
type view struct {
	workflow *kube.Workflow
	taskSet  *kube.TaskSet
}

// reported: the result is where the controller will find it.
func (v *view) reported(id string) bool {
	return v.taskSet != nil && kube.Fulfilled(v.taskSet.Results[id].Phase)
}

// copied: the controller has taken the result over.
func (v *view) copied(a *attempt) bool {
	if v.workflow != nil && kube.Fulfilled(v.workflow.NodePhase(a.node)) {
		return true
	}
	return v.taskSet != nil && !v.taskSet.Tasks[a.id] && !v.reported(a.id)
}

// finished: nothing is left to be nudged.
func (v *view) finished(run task.Run) bool {
	return v.workflow != nil && (v.workflow.Finished() || v.workflow.UID != run.UID)
}

// exact nudges by what it sees. The error is that of a watch that cannot be
// had.
func (a *attempt) exact(ctx context.Context) error {
	watchCtx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	views := make(chan view)
	errs := make(chan error, 2)
	wg.Go(func() {
		errs <- a.client.WatchWorkflow(watchCtx, a.run.Namespace, a.run.Name, func(w *kube.Workflow) bool {
			return !send(watchCtx, views, view{workflow: w})
		})
	})
	wg.Go(func() {
		errs <- a.client.WatchTaskSet(watchCtx, a.run.Namespace, a.run.Name, func(t *kube.TaskSet) bool {
			return !send(watchCtx, views, view{taskSet: t})
		})
	})
	next := func(seen *view, d time.Duration) error {
		var timeout <-chan time.Time
		if d > 0 {
			timer := time.NewTimer(d)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case v := <-views:
			if v.workflow != nil {
				seen.workflow = v.workflow
			}
			if v.taskSet != nil {
				seen.taskSet = v.taskSet
			}
			return nil
		case <-timeout:
			return errPatience
		case err := <-errs:
			return err
		case <-ctx.Done():
			return errOver
		}
	}
	err := a.follow(ctx, next)
	switch {
	case errors.Is(err, errOver), errors.Is(err, kube.ErrNotFound), a.over:
		return nil
	}
	return err
}

var (
	errOver     = errors.New("nothing is left to be nudged")
	errPatience = errors.New("nothing has happened")
)

func send(ctx context.Context, views chan<- view, v view) bool {
	select {
	case views <- v:
		return true
	case <-ctx.Done():
		return false
	}
}

// follow waits for the result to be reported, nudges until it has been copied,
// and nudges until the Workflow has moved on from there.
func (a *attempt) follow(ctx context.Context, next func(*view, time.Duration) error) error {
	var seen view
	for seen.workflow == nil || seen.taskSet == nil || (!seen.reported(a.id) && !seen.copied(a)) {
		if seen.finished(a.run) {
			return errOver
		}
		if err := next(&seen, 0); err != nil {
			return err
		}
	}
	if err := a.until(ctx, &seen, next, func() bool { return seen.copied(a) }); err != nil {
		return err
	}
	before := a.patches
	nodes, fulfilled := seen.workflow.Progress()
	return a.until(ctx, &seen, next, func() bool {
		n, f := seen.workflow.Progress()
		return a.patches > before && (n != nodes || f != fulfilled)
	})
}

// until nudges, and again after each patience, until reached holds.
func (a *attempt) until(ctx context.Context, seen *view, next func(*view, time.Duration) error, reached func() bool) error {
	for !reached() {
		if seen.finished(a.run) || !a.patch(ctx) {
			return errOver
		}
		deadline := time.Now().Add(patience)
		for !reached() {
			err := next(seen, max(time.Until(deadline), time.Millisecond))
			if errors.Is(err, errPatience) || (err == nil && time.Now().After(deadline)) {
				break
			}
			if err != nil {
				return err
			}
			if seen.finished(a.run) {
				return errOver
			}
		}
	}
	return nil
}

// periodic nudges without seeing anything but the Workflow its own patches
// return.
func (a *attempt) periodic(ctx context.Context) {
	for a.patch(ctx) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(patience):
		}
	}
}

// patch nudges once and reports whether another nudge is possible.
func (a *attempt) patch(ctx context.Context) bool {
	if a.over || a.patches >= maxPatches || a.off.Load() || ctx.Err() != nil {
		a.over = true
		return false
	}
	a.patches++
	value := fmt.Sprintf("%s.%d.%d", a.id, time.Now().UnixMilli(), a.patches)
	w, err := a.client.AnnotateWorkflow(ctx, a.run.Namespace, a.run.Name, a.run.UID, map[string]string{Annotation: value})
	switch {
	case errors.Is(err, kube.ErrForbidden):
		a.over = true
		if !a.off.Swap(true) {
			a.logger.WarnContext(ctx, "runs will be slower: the service account may not patch workflows", slog.String("err", err.Error()))
		}
	case errors.Is(err, kube.ErrNotFound), errors.Is(err, kube.ErrConflict):
		a.over = true // gone, or another one of the same name
	case err != nil:
		a.logger.DebugContext(ctx, "nudge failed", slog.String("err", err.Error()))
	case w.Finished():
		a.over = true
	}
	return !a.over
}
