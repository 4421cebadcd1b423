package record

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/store"
)

// objects is what the recorder needs of the bucket.
type objects interface {
	Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error)
	Get(ctx context.Context, key string) (io.ReadCloser, store.Object, error)
	List(ctx context.Context, prefix string) ([]store.Object, error)
	URL(key string) string
}

// maxRecordBytes bounds what is read back. A record is a few KiB; the events
// of a stack may be 4,000, each with a reason of a KiB.
const maxRecordBytes = 16 << 20

var (
	// errTooLarge is a record that nobody could read back.
	errTooLarge = errors.New("the record is too large")
	// errUnreadable is an object that is no record.
	errUnreadable = errors.New("this is no record")
)

// Recorder writes the records of runs. Its methods are safe for concurrent use
// on different stages.
type Recorder struct{ store objects }

// New returns a Recorder that writes to s.
func New(s objects) *Recorder { return &Recorder{store: s} }

// Begin writes the run's record with status running, unless it exists: a
// retried run keeps the moment it was first triggered, and is open again.
func (r *Recorder) Begin(ctx context.Context, run Run) error {
	old, err := r.Run(ctx, run.WorkflowID)
	switch {
	case err == nil:
		run.TriggeredAt, run.Metrics = old.TriggeredAt, old.Metrics
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	run.SchemaVersion, run.Status, run.CompletedAt = SchemaVersion, Running, nil
	if run.Stages == nil {
		run.Stages = []Stage{}
	}
	return r.putRun(ctx, run)
}

// PutStage writes the record of one stage of run uid, replacing an earlier
// one of the same stage and environment.
func (r *Recorder) PutStage(ctx context.Context, uid string, s Stage) error {
	return r.put(ctx, StageKey(uid, s.Stage, s.Environment), s)
}

// Finish closes the run's record: it collects the stages and artifacts, sets the status and
// the time, and returns the record and its URL. A run without a record (its
// first stage never began) gets one from run.
//
// With an error, the record is what could be read, and is not written: a run
// whose TriggeredAt is not known keeps the one that was given.
func (r *Recorder) Finish(ctx context.Context, run Run, status Status, at time.Time) (Run, string, error) {
	run.SchemaVersion, run.Status, run.CompletedAt = SchemaVersion, status, new(at)
	old, failed := r.Run(ctx, run.WorkflowID)
	switch {
	case failed == nil:
		run.TriggeredAt, run.Metrics = old.TriggeredAt, old.Metrics
	case errors.Is(failed, store.ErrNotFound):
		run.TriggeredAt, failed = at, nil
	}
	stages, err := r.Stages(ctx, run.WorkflowID)
	failed = cmp.Or(failed, err) // the second usually says the same
	run.Stages, run.Reason = stages, reason(stages)
	run.Artifacts, err = r.total(ctx, run.WorkflowID)
	if failed = cmp.Or(failed, err); failed != nil {
		return run, "", failed
	}
	return run, r.store.URL(RunKey(run.WorkflowID)), r.putRun(ctx, run)
}

// Put writes a run's record as it is given: for an onlooker who closes the
// record of a run that could not do it itself.
func (r *Recorder) Put(ctx context.Context, run Run) error {
	run.SchemaVersion = SchemaVersion
	return r.putRun(ctx, run)
}

// RunURL returns the URL of a run's record.
func (r *Recorder) RunURL(uid string) string { return r.store.URL(RunKey(uid)) }

// Run reads a run's record; the error wraps store.ErrNotFound if there is none.
func (r *Recorder) Run(ctx context.Context, uid string) (Run, error) {
	var run Run
	return run, r.get(ctx, RunKey(uid), &run)
}

// reason is that of the first failed stage, else of the first qualified one.
// A stage that may fail (deploy-pipeline) counts only if nothing else does.
func reason(stages []Stage) string {
	if failed := FirstFailed(stages); failed != nil && failed.Stage != pipeline.StageDeployPipeline {
		return failed.Reason
	}
	for _, s := range stages {
		if s.Reason != "" {
			return s.Reason
		}
	}
	return ""
}

// FirstFailed returns the first stage that failed, nil if none did. One that
// may fail (deploy-pipeline) counts only if no other failed.
func FirstFailed(stages []Stage) *Stage {
	var found *Stage
	for i := range stages {
		switch {
		case stages[i].Status != Failed:
		case stages[i].Stage != pipeline.StageDeployPipeline:
			return &stages[i]
		default:
			found = &stages[i]
		}
	}
	return found
}

// Stages returns the records of a run's stages, in the order they began. With
// an error, they are those that could be read.
func (r *Recorder) Stages(ctx context.Context, uid string) ([]Stage, error) {
	listed, err := r.store.List(ctx, StagePrefix(uid))
	if err != nil {
		return nil, fmt.Errorf("list stage records: %w", err)
	}
	stages := make([]Stage, 0, len(listed))
	var failed error
	for _, o := range listed {
		var s Stage
		if err := r.get(ctx, o.Key, &s); err != nil {
			failed = cmp.Or(failed, err)
			continue
		}
		stages = append(stages, s)
	}
	slices.SortFunc(stages, func(a, b Stage) int {
		if c := a.StartedAt.Compare(b.StartedAt); c != 0 {
			return c
		}
		return strings.Compare(a.StageName, b.StageName)
	})
	return stages, failed
}

func (r *Recorder) put(ctx context.Context, key string, v any) error {
	return r.replace(ctx, key, v, "")
}

// replace is put, but for a version that is not empty fails with
// store.ErrChanged where there is another one.
func (r *Recorder) replace(ctx context.Context, key string, v any, version string) error {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	if len(body) >= maxRecordBytes {
		return fmt.Errorf("%s: %w: %d bytes, allowed are %d", key, errTooLarge, len(body), maxRecordBytes)
	}
	_, err = r.store.Put(ctx, key, bytes.NewReader(append(body, '\n')), store.PutOptions{ContentType: "application/json", Replaces: version})
	return err
}

func (r *Recorder) get(ctx context.Context, key string, v any) error {
	_, err := r.read(ctx, key, v)
	return err
}

// read is get, which also returns the version of the object.
func (r *Recorder) read(ctx context.Context, key string, v any) (version string, err error) {
	body, object, err := r.store.Get(ctx, key)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(io.LimitReader(body, maxRecordBytes+1))
	if err = errors.Join(err, body.Close()); err != nil {
		return "", fmt.Errorf("read %s: %w", key, err)
	}
	if len(data) > maxRecordBytes {
		return "", unreadable(key, fmt.Errorf("it is larger than the %d MiB that a record may have; something else than aphex wrote it", maxRecordBytes>>20))
	}
	if err := json.Unmarshal(data, v); err != nil {
		return "", unreadable(key, err)
	}
	return object.Version, nil
}

func unreadable(key string, err error) error {
	return fault.Wrap(fault.System, fault.StoreFailed, "read "+key,
		"Bring back an earlier version of the object, or delete it", fmt.Errorf("%w: %w", errUnreadable, err))
}
