package execution

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/aphex-pipeline/aphex/plugin/journal"
)

// reclaimAfter is how long an agent has to go on asking a process that has lost
// the journal before that takes it back: longer than a pod that has been given
// up lives, which may have claimed the journal with its last breath.
const reclaimAfter = time.Minute

// fenced answers a call for an execution that was cut off. A process that was
// replaced is not asked for long. One that is, although another pod has its
// journal, is the run's only one: it forgets the run, and the next call opens
// it again.
func (e *Engine) fenced(ctx context.Context, r *run) []byte {
	if _, _, err := r.book.Entry(ctx, ""); !errors.Is(err, journal.ErrFenced) || !r.lostFor(reclaimAfter) {
		return e.quietFor(e.cfg.Grace)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.runs[r.id.UID] != r || !e.idle(r) {
		return e.quietFor(e.cfg.Grace)
	}
	for key, x := range e.live {
		if x.call.Request.Run.UID == r.id.UID {
			delete(e.live, key)
		}
	}
	delete(e.runs, r.id.UID)
	r.leave()
	e.cfg.Logger.WarnContext(ctx, "run is taken back from another pod: its agent still asks here", slog.String("workflow_uid", r.id.UID))
	return e.quietFor(e.cfg.Requeue)
}

// idle reports whether nothing of r is at work. The lock is held.
func (e *Engine) idle(r *run) bool {
	for _, x := range e.live {
		if x.call.Request.Run.UID == r.id.UID && !x.over() {
			return false
		}
	}
	return true
}

// lostFor reports whether it has been asked for the first time at least d ago.
func (r *run) lostFor(d time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lostAt.IsZero() {
		r.lostAt = time.Now()
	}
	return time.Since(r.lostAt) >= d
}
