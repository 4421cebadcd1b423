package watchdog

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// Defaults of Timing.
const (
	// DefaultDelay is above what the agent needs to hand a result in when all
	// its five tries are used: up to ten seconds until the first one, fifteen
	// in between, and what the API server takes.
	DefaultDelay = time.Minute
	// DefaultEvery is long enough that the controller is not in the middle of
	// the same reconcile at two looks.
	DefaultEvery = 15 * time.Second
	// DefaultSweep is the pause between two looks for entries left behind; the
	// agent may hand its last ones in while the run ends.
	DefaultSweep = time.Second
)

// sweeps is how often Tidy looks.
const sweeps = 3

// Timing is when a Watchdog looks. Zero values mean the defaults.
type Timing struct {
	Delay, Every, Sweep time.Duration
}

// cluster is what a Watchdog needs. It takes get on Workflows and task sets,
// and patch on the task sets' status.
type cluster interface {
	Workflow(ctx context.Context, namespace, name string) (*kube.Workflow, error)
	TaskSet(ctx context.Context, namespace, name string) (*kube.TaskSet, error)
	PatchResults(ctx context.Context, namespace, name, version string, entries map[string]json.RawMessage) error
}

var _ cluster = (*kube.Client)(nil)

// Watchdog watches. It is safe for concurrent use.
type Watchdog struct {
	client cluster
	logger *slog.Logger
	timing Timing
	// off is set once a right turned out to be missing.
	off atomic.Bool

	mu      sync.Mutex
	answers map[string]time.Time // last answer, by run, node and epoch
}

// New returns a Watchdog on top of client.
func New(client cluster, timing Timing, logger *slog.Logger) *Watchdog {
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{{&timing.Delay, DefaultDelay}, {&timing.Every, DefaultEvery}, {&timing.Sweep, DefaultSweep}} {
		if *d.value <= 0 {
			*d.value = d.fallback
		}
	}
	return &Watchdog{client: client, logger: logger, timing: timing, answers: map[string]time.Time{}}
}

// Answered is called whenever final, which the journal holds, is given as the
// final reply for the node called node of run. It returns once the Workflow
// has the node's end, or waits for it no more, or ctx ends; a call for a node
// that is watched already only puts the next look off and returns at once.
func (w *Watchdog) Answered(ctx context.Context, run task.Run, node string, final []byte) {
	var reply struct {
		Node json.RawMessage `json:"node"`
	}
	if json.Unmarshal(final, &reply) != nil || len(reply.Node) == 0 {
		return
	}
	key := run.UID + "/" + run.Epoch + "/" + node
	w.mu.Lock()
	_, watched := w.answers[key]
	w.answers[key] = time.Now()
	w.mu.Unlock()
	if watched {
		return
	}
	defer func() {
		w.mu.Lock()
		delete(w.answers, key)
		w.mu.Unlock()
	}()
	p := &patient{Watchdog: w, run: run, node: node, id: kube.NodeID(run.Name, node), result: reply.Node}
	missing := false
	for w.rest(ctx, key) {
		switch state, version := p.look(ctx); {
		case state == settled:
			return
		case state == waiting:
			missing = false
		case !missing: // once more, to be sure
			missing = true
		case p.mend(ctx, version):
			missing = false
			w.mu.Lock()
			w.answers[key] = time.Now()
			w.mu.Unlock()
		}
	}
}

// rest waits for the next look: Every, but not before Delay has passed since
// the last answer. It returns false if there is no sense in another one.
func (w *Watchdog) rest(ctx context.Context, key string) bool {
	pause := w.timing.Every
	for !w.off.Load() {
		w.mu.Lock()
		left := w.timing.Delay - time.Since(w.answers[key])
		w.mu.Unlock()
		if pause = max(pause, left); pause <= 0 {
			return true
		}
		if !sleep(ctx, pause) {
			return false
		}
		pause = 0
	}
	return false
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// patient is one node under watch.
type patient struct {
	*Watchdog
	run      task.Run
	node, id string
	result   json.RawMessage
}

// state is what a look has found.
type state int

const (
	// waiting: the result is on its way, or nothing can be said.
	waiting state = iota
	// missing: the controller waits for a result that nobody will bring.
	missing
	// settled: there is nothing left to be done.
	settled
)

// look finds out how the node is, and at which version of the task set. The
// task set is read first: what the Workflow says is then never older than it.
func (p *patient) look(ctx context.Context) (state, string) {
	tasks, err := p.client.TaskSet(ctx, p.run.Namespace, p.run.Name)
	if err != nil && !errors.Is(err, kube.ErrNotFound) {
		return p.unknown(ctx, err), ""
	}
	w, err := p.client.Workflow(ctx, p.run.Namespace, p.run.Name)
	switch {
	case errors.Is(err, kube.ErrNotFound):
		return settled, ""
	case err != nil:
		return p.unknown(ctx, err), ""
	case w.UID != p.run.UID, w.Finished(), p.run.Epoch != "" && !w.StartedAt.IsZero() && epoch(w) != p.run.Epoch:
		return settled, ""
	}
	node, known := w.Node(p.id)
	switch {
	case known && kube.Fulfilled(node.Phase):
		return settled, ""
	case !known, w.Shutdown != "", tasks == nil || tasks.OwnerUID != p.run.UID:
		return waiting, ""
	}
	if _, reported := tasks.Results[p.id]; reported || !tasks.Tasks[p.id] {
		return waiting, ""
	}
	return missing, tasks.ResourceVersion
}

func (p *patient) unknown(ctx context.Context, err error) state {
	if p.refused(ctx, err) {
		return settled
	}
	p.logger.DebugContext(ctx, "results cannot be looked at", slog.String("err", err.Error()))
	return waiting
}

func epoch(w *kube.Workflow) string { return w.StartedAt.UTC().Format(time.RFC3339) }

// mend hands the result in.
func (p *patient) mend(ctx context.Context, version string) bool {
	err := p.client.PatchResults(ctx, p.run.Namespace, p.run.Name, version, map[string]json.RawMessage{p.id: p.result})
	switch {
	case err == nil:
		p.logger.WarnContext(ctx, "lost result handed in again", slog.String("workflow_uid", p.run.UID), slog.String("node", p.node))
		return true
	case !p.refused(ctx, err):
		p.logger.DebugContext(ctx, "lost result not handed in", slog.String("node", p.node), slog.String("err", err.Error()))
	}
	return false
}

// refused reports whether err is a missing right, which switches the watchdog
// off, with one warning.
func (w *Watchdog) refused(ctx context.Context, err error) bool {
	if !errors.Is(err, kube.ErrForbidden) {
		return false
	}
	if !w.off.Swap(true) {
		w.logger.WarnContext(ctx, "lost results will not be noticed: the service account may not read task sets and Workflows, or not patch workflowtasksets/status",
			slog.String("err", err.Error()))
	}
	return true
}

// Tidy is called when this process meets run and when run has ended, with the
// names that nodes of ours may have. It removes what nobody waits for from the
// task set, and returns after the last look.
func (w *Watchdog) Tidy(ctx context.Context, run task.Run, nodes []string) {
	for n := range sweeps {
		if n > 0 && !sleep(ctx, w.timing.Sweep) {
			return
		}
		if w.off.Load() || !w.sweep(ctx, run, nodes) {
			return
		}
	}
}

// sweep looks once and reports whether another look makes sense.
func (w *Watchdog) sweep(ctx context.Context, run task.Run, nodes []string) bool {
	tasks, err := w.client.TaskSet(ctx, run.Namespace, run.Name)
	switch {
	case errors.Is(err, kube.ErrNotFound):
		return false
	case err != nil:
		return !w.refused(ctx, err)
	case tasks.OwnerUID != run.UID:
		return false
	}
	workflow, err := w.client.Workflow(ctx, run.Namespace, run.Name)
	switch {
	case errors.Is(err, kube.ErrNotFound):
		return false
	case err != nil:
		return !w.refused(ctx, err)
	case workflow.UID != run.UID:
		return false
	}
	stale := map[string]json.RawMessage{}
	for _, node := range nodes {
		id := kube.NodeID(run.Name, node)
		if _, reported := tasks.Results[id]; reported && unwanted(workflow, tasks, id) {
			stale[id] = nil
		}
	}
	if len(stale) == 0 {
		return true
	}
	err = w.client.PatchResults(ctx, run.Namespace, run.Name, tasks.ResourceVersion, stale)
	switch {
	case err == nil:
		w.logger.InfoContext(ctx, "stale results removed", slog.String("workflow_uid", run.UID), slog.Int("entries", len(stale)))
	case w.refused(ctx, err):
		return false
	default:
		w.logger.DebugContext(ctx, "stale results not removed", slog.String("err", err.Error()))
	}
	return true
}

// unwanted: the run is over, or nothing but the entry knows the node. A
// Workflow whose nodes cannot be seen says nothing about them.
func unwanted(w *kube.Workflow, tasks *kube.TaskSet, id string) bool {
	if w.Finished() {
		return true
	}
	nodes, _ := w.Progress()
	_, known := w.Node(id)
	return nodes > 0 && !known && !tasks.Tasks[id]
}
