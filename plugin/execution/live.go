package execution

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/plugin/argo"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// workerEnd is how long the loss of the worker is not believed to be a failure
// of the stage: it may be the end of the pod.
const workerEnd = 3 * time.Second

// recordTimeout bounds one call of the Recorder.
const recordTimeout = 15 * time.Second

// execution is one attempt at a stage in this process.
type execution struct {
	key  string
	call argo.Call
	// done is closed once final or detached is set.
	done chan struct{}
	// after are the executions that must have come to their end first.
	after []*execution

	mu       sync.Mutex
	cancel   context.CancelCauseFunc // nil until the work begins
	stopped  error                   // cause given before the work began
	progress string
	reported string
	// reportedAt is zero before the first report.
	reportedAt time.Time
	// begun is set once the journal has said that there is no final reply yet:
	// before that, nothing may be reported.
	begun   bool
	final   []byte
	ended   bool
	endedAt time.Time
	// journalled says that final is in the journal, answered that the agent
	// was given it.
	journalled, answered bool
}

func newExecution(key string, call argo.Call) *execution {
	return &execution{key: key, call: call, done: make(chan struct{}), progress: label(&call.Request) + " is running"}
}

func (x *execution) attrs() []any {
	r := &x.call.Request
	return []any{
		slog.String("workflow_uid", r.Run.UID), slog.String("execution", x.key),
		slog.String("stage", r.Stage), slog.String("environment", r.Environment), slog.Int("attempt", r.Attempt),
	}
}

// begin returns the context the work runs on.
func (x *execution) begin(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cancel = cancel
	if x.stopped != nil {
		cancel(x.stopped)
	}
	return ctx, cancel
}

// stop cancels the work, unless it has ended. The first cause counts.
func (x *execution) stop(cause error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ended || x.stopped != nil {
		return
	}
	x.stopped = cause
	if x.cancel != nil {
		x.cancel(cause)
	}
}

func (x *execution) finish(final []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.ended {
		x.ended, x.final, x.endedAt = true, final, time.Now()
		close(x.done)
	}
}

// replay is finish with a reply that the journal holds.
func (x *execution) replay(final []byte) {
	x.mu.Lock()
	x.journalled = true
	x.mu.Unlock()
	x.finish(final)
}

func (x *execution) isJournalled() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.journalled
}

func (x *execution) setAnswered() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.answered = true
}

// unanswered: there is, or will be, a final reply that the agent does not have.
func (x *execution) unanswered() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return !x.answered && (!x.ended || x.final != nil)
}

// over reports whether nothing of x is at work any more.
func (x *execution) over() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.ended
}

// since returns how long ago x has ended.
func (x *execution) since() time.Duration {
	x.mu.Lock()
	defer x.mu.Unlock()
	return time.Since(x.endedAt)
}

// detach ends the execution in this process without an outcome.
func (x *execution) detach() { x.finish(nil) }

// result returns the final reply; ok is false if it was detached.
func (x *execution) result() (final []byte, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.final, x.final != nil
}

func (x *execution) firstPoll() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.reportedAt.IsZero()
}

func (x *execution) setBegun() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.begun = true
}

func (x *execution) setProgress(message string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.progress = message
}

// report returns the message of a Running report if one is due: the first
// one, and then one whenever the message changed and every has passed. A stage
// that is being stopped is not said to run: Argo may have failed its node
// already, which a report would undo.
func (x *execution) report(every time.Duration) (string, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	first := x.reportedAt.IsZero()
	if !x.begun || x.ended || x.stopped != nil || (!first && (x.progress == x.reported || time.Since(x.reportedAt) < every)) {
		return "", false
	}
	x.reported, x.reportedAt = x.progress, time.Now()
	return x.progress, true
}

// work is the life of an execution, from the journal's first word to its last.
func (e *Engine) work(ctx context.Context, r *run, x *execution) {
	defer x.detach() // whatever happens, nobody waits for ever
	taskCtx, cancel := x.begin(ctx)
	defer cancel(nil)
	for _, other := range x.after {
		select {
		case <-other.done:
		case <-ctx.Done():
			return
		}
	}

	entry, err := e.beginEntry(ctx, r, x)
	switch {
	case errors.Is(err, journal.ErrFenced):
		e.lost(r, err)
		return
	case ctx.Err() != nil:
		return
	case err != nil:
		x.finish(e.finalReply(&x.call, e.failure(err), "", "").Encode())
		return
	case entry.Ended():
		x.replay(entry.Final)
		return
	}
	x.setBegun()
	e.record(ctx, x, "start", func(ctx context.Context, rec Recorder) error {
		return rec.StageStarted(ctx, x.call.Request, entry.StartedAt)
	})
	logger := e.cfg.Logger.With(x.attrs()...)
	logger.InfoContext(ctx, "stage started", slog.Int("starts", entry.Starts))
	log := e.openLog(ctx, &x.call.Request, entry.Starts)
	asking, stopAsking := context.WithCancel(taskCtx)
	e.start(ctx, func(context.Context) { e.ask(asking, r, x) })
	o := e.runTask(taskCtx, r, x, log, logger)
	stopAsking()
	if o.detached {
		log.discard(ctx)
		logger.InfoContext(ctx, "stage detached", slog.String("cause", fmt.Sprint(context.Cause(taskCtx))))
		return
	}
	e.conclude(ctx, r, x, entry, o, log)
}

// conclude uploads the log, records the end and makes the final reply durable.
func (e *Engine) conclude(life context.Context, r *run, x *execution, entry journal.Entry, o outcome, log *stageLog) {
	ctx := context.WithoutCancel(life)
	url, warning := e.uploadLog(ctx, &x.call.Request, log, o)
	o.logged = true
	reply := e.finalReply(&x.call, o, url, warning)
	at := time.Now().UTC()
	e.record(ctx, x, "end", func(ctx context.Context, rec Recorder) error {
		return rec.StageEnded(ctx, x.call.Request, entry.StartedAt, at, string(reply.Node.Phase), reply.Node.Message, o.reason, url)
	})
	e.cfg.Logger.InfoContext(ctx, "stage ended", append(x.attrs(), slog.String("phase", string(reply.Node.Phase)),
		slog.String("reason", o.reason), slog.Int64("duration_ms", at.Sub(entry.StartedAt).Milliseconds()))...)

	final := reply.Encode()
	var err error
	for {
		var ended journal.Entry
		if ended, err = r.book.End(ctx, x.key, final, string(reply.Node.Phase), at); err == nil {
			x.replay(ended.Final)
			return
		}
		if errors.Is(err, journal.ErrFenced) {
			e.lost(r, err)
			return
		}
		if life.Err() != nil {
			return // the journal has ended with us: the next process goes on
		}
		if fault.From(err).Class != fault.Transient {
			break
		}
		e.cfg.Logger.WarnContext(ctx, "final reply waits for the journal", append(x.attrs(), slog.String("err", err.Error()))...)
	}
	// The journal will never take it. The work is done; a reply that may be
	// given differently after a restart is better than a node that hangs.
	e.cfg.Logger.ErrorContext(ctx, "final reply could not be journalled", append(x.attrs(), slog.String("err", err.Error()))...)
	x.finish(final)
}

func (e *Engine) beginEntry(ctx context.Context, r *run, x *execution) (entry journal.Entry, err error) {
	req := &x.call.Request
	for {
		entry, err = r.book.Begin(ctx, journal.Entry{
			Key: x.key, Stage: req.Stage, Environment: req.Environment, Node: req.Node, Attempt: req.Attempt,
			Epoch: req.Run.Epoch, Digest: x.call.Digest, StartedAt: time.Now().UTC(),
		})
		if err == nil || ctx.Err() != nil || errors.Is(err, journal.ErrFenced) || fault.From(err).Class != fault.Transient {
			return entry, err
		}
		e.cfg.Logger.WarnContext(ctx, "stage waits for the journal", append(x.attrs(), slog.String("err", err.Error()))...)
	}
}

// lost stops everything of a run whose journal belongs to another pod now.
func (e *Engine) lost(r *run, err error) {
	e.cfg.Logger.Error("run has been taken over by another pod", slog.String("workflow_uid", r.id.UID), slog.String("err", err.Error()))
	e.cancelRun(r.id.UID, func(*execution) bool { return true }, detached())
}

// runTask runs the stage and returns what came of it. It never panics and
// returns Config.Grace after ctx has ended, at the latest.
func (e *Engine) runTask(ctx context.Context, r *run, x *execution, log *stageLog, logger *slog.Logger) outcome {
	req := x.call.Request
	runner, ok := e.cfg.Registry[req.Stage]
	if !ok {
		return e.failure(fault.Newf(fault.User, fault.UnknownStage, "run the stage",
			"Generate the WorkflowTemplate anew with the aphex version that runs in the cluster", "%q is not a stage of this version of aphex", req.Stage))
	}
	if ctx.Err() != nil {
		return e.settle(ctx, e.failure(context.Cause(ctx)))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, e.cfg.StageLimit, fault.Newf(fault.Cancelled, fault.StageTimeout, "run the stage",
		"Find out in its log what takes so long, then retry the run", "it did not end within %s, the limit of any stage", e.cfg.StageLimit))
	defer cancel()
	env := task.Env{
		Output: log, Logger: logger,
		Progress: func(message string) { x.setProgress(e.message(message, gap)) },
		Effects:  effects{journal.Own{Book: r.book, Key: x.key}},
	}
	ended := make(chan outcome, 1)
	go func() { ended <- e.guarded(ctx, runner, req, env, logger) }()
	var o outcome
	select {
	case o = <-ended:
	case <-ctx.Done():
		grace := time.NewTimer(e.cfg.Grace)
		defer grace.Stop()
		select {
		case o = <-ended:
		case <-grace.C:
			logger.ErrorContext(ctx, "stage did not stop in time", slog.Duration("grace", e.cfg.Grace))
			o = e.failure(context.Cause(ctx))
		}
	}
	return e.settle(ctx, o)
}

// settle applies what ended the context to what the stage made of it: success
// stays success, a failure is reported as its cause.
func (e *Engine) settle(ctx context.Context, o outcome) outcome {
	if o.err != nil && ctx.Err() == nil && fault.From(o.err).Reason == fault.WorkerLost {
		// A pod that is deleted ends its worker at the same time as this
		// process, which may hear of it a moment later.
		select {
		case <-ctx.Done():
		case <-time.After(workerEnd):
		}
	}
	if o.err == nil || ctx.Err() == nil {
		if errors.Is(o.err, journal.ErrFenced) {
			o.detached = true
		}
		return o
	}
	cause := context.Cause(ctx)
	f, ok := errors.AsType[*fault.Fault](cause)
	switch {
	case errors.Is(o.err, journal.ErrFenced), errors.Is(cause, errReplaced), !ok:
		return outcome{detached: true}
	case fault.From(o.err).Class == fault.Cancelled:
		return o
	}
	return e.failure(f)
}

// guarded calls the stage and turns a panic, or an end without an answer, into
// a System fault. The stack goes to the log, never into the message.
func (e *Engine) guarded(ctx context.Context, runner task.Runner, req task.Request, env task.Env, logger *slog.Logger) (o outcome) {
	returned := false
	defer func() {
		if returned {
			return
		}
		cause := recover()
		if cause == nil {
			cause = "it ended without an answer"
		}
		logger.ErrorContext(ctx, "stage panicked", slog.String("panic", e.cfg.Redactor.String(fmt.Sprint(cause))), slog.String("stack", string(debug.Stack())))
		o = e.failure(fault.Newf(fault.System, fault.Internal, "run the stage",
			"Report this as a defect of aphex, with the plugin's log", "it panicked: %v", cause))
	}()
	result, err := runner.Run(ctx, req, env)
	returned = true
	if err != nil {
		return e.failure(err)
	}
	return success(result)
}

// record calls the Recorder, whose failures only are worth a line.
func (e *Engine) record(ctx context.Context, x *execution, what string, call func(context.Context, Recorder) error) {
	if e.cfg.Recorder == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if err := call(ctx, e.cfg.Recorder); err != nil {
		e.cfg.Logger.WarnContext(ctx, "stage could not be recorded", append(x.attrs(), slog.String("what", what), slog.String("err", e.cfg.Redactor.String(err.Error())))...)
	}
}

// effects is the stage's part of the journal.
type effects struct{ journal.Own }

// Put waits as long as ctx lasts for a journal that is away: a stage has limits
// of its own.
func (f effects) Put(ctx context.Context, name string, value []byte) error {
	for {
		err := f.Own.Put(ctx, name, value)
		if err == nil || ctx.Err() != nil || fault.From(err).Class != fault.Transient {
			return err
		}
	}
}
