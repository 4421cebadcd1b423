package record

import (
	"context"
	"errors"
	"time"

	"github.com/aphex-pipeline/aphex/internal/store"
)

// reopenTries bounds how often a record is looked at that others change: the
// stages of one run, which want the same.
const reopenTries = 10

// Reopen makes the record of run uid one that is under way, if it was closed by
// an earlier try than the stage belongs to that began at began, in the try that
// epoch names. A record that is open, or that the stage's own try closed, stays
// as it is, so a stage that is resumed late reopens nothing. What is written
// replaces what was read only: of stages that begin at once one reopens the
// record, and none undoes what was written meanwhile.
//
// Errors: one that wraps store.ErrNotFound if there is no record; those of the
// store.
func (r *Recorder) Reopen(ctx context.Context, uid, epoch string, began time.Time) error {
	for try := 1; ; try++ {
		var run Run
		version, err := r.read(ctx, RunKey(uid), &run)
		if err != nil || !run.closedBefore(epoch, began) {
			return err
		}
		// What the end added goes with it.
		run.Status, run.CompletedAt, run.Reason = Running, nil, ""
		run.Stages, run.Artifacts, run.Notifications = []Stage{}, nil, nil
		err = r.replace(ctx, RunKey(uid), run, version)
		if !errors.Is(err, store.ErrChanged) || try == reopenTries {
			return err
		}
	}
}

// closedBefore reports whether the record was closed in a try before the one
// that epoch names. Epochs are times of one clock, the controller's, unless
// nobody could read the Workflow: then the time at which the stage began tells,
// which is that of its first begin, however often it is resumed.
func (r *Run) closedBefore(epoch string, began time.Time) bool {
	if r.CompletedAt == nil {
		return false
	}
	var latest time.Time
	for _, s := range r.Stages {
		if at, err := time.Parse(time.RFC3339, s.Epoch); err == nil && at.After(latest) {
			latest = at
		}
	}
	if try, err := time.Parse(time.RFC3339, epoch); err == nil && !latest.IsZero() {
		return try.After(latest)
	}
	return began.After(*r.CompletedAt)
}
