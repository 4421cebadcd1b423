package reconcile

import (
	"context"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
)

// DefaultAnswer is how long a bucket may take for one call, which is more than
// the tries of one that refuses.
const DefaultAnswer = 20 * time.Second

// records are those of a pipeline, whose bucket may be away. It is not asked
// again in this Pass after a call that had no answer: the runs that are left
// are to be told of, before the time of the Pass is up.
type records struct {
	all    *record.Recorder
	answer time.Duration
	away   error
}

func (r *records) run(ctx context.Context, uid string) (run record.Run, err error) {
	err = r.call(ctx, func(ctx context.Context) error { run, err = r.all.Run(ctx, uid); return err })
	return run, err
}

func (r *records) stages(ctx context.Context, uid string) (stages []record.Stage, err error) {
	err = r.call(ctx, func(ctx context.Context) error { stages, err = r.all.Stages(ctx, uid); return err })
	return stages, err
}

func (r *records) putStage(ctx context.Context, uid string, s record.Stage) error {
	return r.call(ctx, func(ctx context.Context) error { return r.all.PutStage(ctx, uid, s) })
}

func (r *records) put(ctx context.Context, run record.Run) error {
	return r.call(ctx, func(ctx context.Context) error { return r.all.Put(ctx, run) })
}

func (r *records) call(ctx context.Context, do func(context.Context) error) error {
	if r.away != nil {
		return r.away
	}
	limited, cancel := context.WithTimeoutCause(ctx, r.answer, unanswered("the bucket did not answer within %s", r.answer))
	defer cancel()
	err := do(limited)
	if err != nil && ctx.Err() == nil && (limited.Err() != nil || fault.From(err).Class == fault.Transient) {
		r.away = unanswered("the bucket did not answer for a run before this one")
	}
	return err
}

func unanswered(format string, args ...any) error {
	return fault.Newf(fault.Transient, fault.AWSUnavailable, "reach the records",
		"Check that the bucket can be reached from the cluster; the next pass tries again", format, args...)
}
