package execution

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/plugin/argo"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// errReplaced is in the cause given to stages when the process ends but the
// run does not: they stop without an outcome, and the next process runs them
// again.
var errReplaced = errors.New("the plugin is being replaced; the stage is resumed by the next one")

func detached() error {
	return fault.Wrap(fault.Cancelled, fault.Cancellation, "run the stage", "", errReplaced)
}

// Engine holds the executions of this process. Its methods may be called
// concurrently; nothing is executed before Run is called.
type Engine struct {
	cfg   Config
	out   *lineWriter
	spawn chan func(context.Context)
	// draining is closed when the process is asked to end.
	draining  chan struct{}
	drainOnce sync.Once

	mu   sync.Mutex
	runs map[string]*run       // by Workflow UID
	live map[string]*execution // by request key, ended ones included
}

// New returns an Engine. Errors are missing parts of cfg.
func New(cfg Config) (*Engine, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Engine{
		cfg: cfg, out: &lineWriter{w: cfg.Stdout},
		spawn: make(chan func(context.Context)), draining: make(chan struct{}),
		runs: map[string]*run{}, live: map[string]*execution{},
	}, nil
}

// Run owns everything the engine does and returns when ctx has ended and all
// of it has come to an end. Stages are cut off by ctx as by a crash: Drain
// first to end them in order.
func (e *Engine) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for {
		select {
		case work := <-e.spawn:
			wg.Go(func() { work(ctx) })
		case <-ctx.Done():
			wg.Wait()
			return
		}
	}
}

// start hands work to Run, or gives up when ctx ends before that.
func (e *Engine) start(ctx context.Context, work func(context.Context)) bool {
	select {
	case e.spawn <- work:
		return true
	case <-ctx.Done():
		return false
	}
}

// Execute answers one call, within Config.LongPoll. ctx is the call's own:
// when it ends, the answer no longer matters, but the work goes on.
func (e *Engine) Execute(ctx context.Context, call argo.Call) []byte {
	ctx, cancel := context.WithTimeoutCause(ctx, e.cfg.LongPoll, errPollOver)
	defer cancel()
	if e.isDraining() {
		return e.quietFor(e.cfg.Grace)
	}
	r, err := e.run(ctx, call)
	switch {
	case err != nil && ctx.Err() != nil, errors.Is(err, context.Canceled):
		return e.quietFor(e.cfg.Requeue)
	case err != nil:
		return e.Reject(ctx, call, err)
	}
	if r.silent() {
		return e.quietFor(e.cfg.Grace)
	}
	if call.Request.Stage == task.StageFinish {
		e.cancelRun(call.Request.Run.UID, func(x *execution) bool { return x.call.Request.Stage != task.StageFinish },
			cancelled("the run's exit handler has started"))
	}
	x, err := e.execution(ctx, r, call)
	switch {
	case errors.Is(err, journal.ErrFenced):
		return e.fenced(ctx, r)
	case err != nil:
		return e.quietFor(e.cfg.Requeue)
	}
	return e.poll(ctx, r, x)
}

// errPollOver ends the wait of a call.
var errPollOver = errors.New("poll is over")

// Reject is the final answer to a call that cannot be executed. The same call
// gets the same answer, without a journal.
func (e *Engine) Reject(ctx context.Context, call argo.Call, err error) []byte {
	o := e.failure(err)
	reply := e.finalReply(&call, o, "", "")
	e.nudge(ctx, &call)
	e.cfg.Logger.ErrorContext(ctx, "call rejected", slog.String("workflow_uid", call.Request.Run.UID),
		slog.String("stage", call.Request.Stage), slog.String("reason", o.reason), slog.String("err", e.cfg.Redactor.String(err.Error())))
	return reply.Encode()
}

// execution returns the execution that call asks for, started if need be.
func (e *Engine) execution(ctx context.Context, r *run, call argo.Call) (*execution, error) {
	if err := r.setEpoch(ctx, &call, e.cfg.PodUID); err != nil {
		return nil, err
	}
	key := call.Request.Key()
	e.mu.Lock()
	if x, ok := e.live[key]; ok {
		e.mu.Unlock()
		if x.call.Digest != call.Digest {
			e.cfg.Logger.Debug("call repeated with another body", x.attrs()...)
		}
		return x, nil
	}
	x := newExecution(key, call)
	if cause := r.unwanted(&call.Request); cause != nil {
		x.stop(cause)
	}
	x.after = e.replaced(x)
	e.live[key] = x
	e.mu.Unlock()
	if !e.start(ctx, func(ctx context.Context) { e.work(ctx, r, x) }) {
		e.mu.Lock()
		delete(e.live, key)
		e.mu.Unlock()
		x.detach()
		return nil, context.Cause(ctx)
	}
	return x, nil
}

// replaced stops the other executions of x's node that x takes the place of,
// and returns all of them: two of one node must not be at work together. It
// must be called with the lock held.
func (e *Engine) replaced(x *execution) (others []*execution) {
	is := &x.call.Request
	for _, o := range e.live {
		was := &o.call.Request
		if was.Run.UID != is.Run.UID || was.Node != is.Node || o.over() {
			continue
		}
		others = append(others, o)
		if was.Run.Epoch != is.Run.Epoch || was.Attempt < is.Attempt {
			o.stop(cancelled("another attempt at the stage has begun"))
		}
	}
	return others
}

// poll waits for x and answers.
func (e *Engine) poll(ctx context.Context, r *run, x *execution) []byte {
	wait := e.cfg.LongPoll // ctx ends first
	if x.firstPoll() {
		wait = e.cfg.FirstPoll
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-x.done:
	case <-ctx.Done():
	case <-timer.C:
	case <-e.draining:
	}
	// A run that is over, a shutdown and a lost journal have the same answer:
	// nothing that could reach a node of a later try.
	if e.isDraining() || r.silent() {
		return e.quietFor(e.cfg.Grace)
	}
	select {
	case <-x.done:
		final, ok := x.result()
		switch {
		case !ok:
			return e.fenced(ctx, r)
		case x.call.Request.Stage == task.StageFinish && e.owes(x):
			return e.quietFor(e.cfg.Requeue)
		}
		x.setAnswered()
		e.nudge(ctx, &x.call)
		e.keep(ctx, x, final)
		return final
	default:
	}
	if message, ok := x.report(e.cfg.ReportEvery); ok && !e.cfg.StayPending {
		return argo.Progress(message, e.cfg.Requeue).Encode()
	}
	return e.quietFor(e.cfg.Requeue)
}

func (e *Engine) nudge(ctx context.Context, call *argo.Call) {
	if e.cfg.Nudger == nil || call.Request.Node == "" {
		return
	}
	run, node := call.Request.Run, call.NodeName()
	e.start(ctx, func(ctx context.Context) { e.cfg.Nudger.Nudge(ctx, run, node) })
}

// owes reports whether stages that the exit handler x has cancelled have yet to
// be answered. Their Failed must reach the task set before the end of x does:
// after that the run is over, and a node left Running is one that no retry
// resets. An agent that no longer asks is not waited for.
func (e *Engine) owes(x *execution) bool {
	if x.since() > e.cfg.Grace+2*e.cfg.Requeue {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, o := range e.live {
		if o != x && o.call.Request.Run.UID == x.call.Request.Run.UID && o.unanswered() {
			return true
		}
	}
	return false
}

// keep has the reply watched until it has arrived.
func (e *Engine) keep(ctx context.Context, x *execution, final []byte) {
	if e.cfg.Keeper == nil || !x.isJournalled() {
		return
	}
	run, node := x.call.Request.Run, x.call.NodeName()
	e.start(ctx, func(ctx context.Context) { e.cfg.Keeper.Answered(ctx, run, node, final) })
}

func (e *Engine) quietFor(d time.Duration) []byte { return argo.Quiet(d).Encode() }

func (e *Engine) isDraining() bool {
	select {
	case <-e.draining:
		return true
	default:
		return false
	}
}

// cancelRun ends the live executions of a run that match.
func (e *Engine) cancelRun(uid string, match func(*execution) bool, cause error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.live {
		if x.call.Request.Run.UID == uid && match(x) {
			x.stop(cause)
		}
	}
}

func cancelled(format string, args ...any) error {
	return fault.Newf(fault.Cancelled, fault.Cancellation, "run the stage", "Retry or submit the run when it shall go on", format, args...)
}

// Drain ends the process's work in order and returns whether all runs are
// over; the process may then exit. Stages of a run that is over or shut down
// are cancelled and journalled as Failed. Stages of any other run are detached:
// they stop without an outcome and the next process resumes them. From the
// first moment on only quiet polls are answered.
//
// ctx bounds the wait for stages to stop.
func (e *Engine) Drain(ctx context.Context) (over bool) {
	e.drainOnce.Do(func() { close(e.draining) })
	e.mu.Lock()
	runs := make([]*run, 0, len(e.runs))
	for _, r := range e.runs {
		runs = append(runs, r)
	}
	e.mu.Unlock()
	over = true
	for _, r := range runs {
		cause := detached()
		if e.ended(ctx, r) {
			cause = cancelled("the run has ended")
		} else {
			over = false
		}
		e.cancelRun(r.id.UID, func(*execution) bool { return true }, cause)
	}
	e.mu.Lock()
	executions := make([]*execution, 0, len(e.live))
	for _, x := range e.live {
		executions = append(executions, x)
	}
	e.mu.Unlock()
	for _, x := range executions {
		select {
		case <-x.done:
		case <-ctx.Done():
			e.cfg.Logger.Error("stage did not stop in time", x.attrs()...)
		}
	}
	for _, r := range runs {
		if over {
			r.tidyOnce.Do(func() { e.tidy(ctx, r) })
		}
	}
	return over
}

// stateTimeout bounds the look at a run when the process ends.
const stateTimeout = 5 * time.Second

// ended asks whether r is over or being shut down. When in doubt it is not: a
// stage that is resumed for nothing does less harm than one that is lost.
func (e *Engine) ended(ctx context.Context, r *run) bool {
	if r.finished() {
		return true
	}
	if e.cfg.Runs == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	state, err := e.cfg.Runs.State(ctx, r.id)
	if err != nil {
		e.cfg.Logger.Warn("state of the run is unknown", slog.String("err", fmt.Sprint(err)))
		return false
	}
	return state.Finished || state.Shutdown != ""
}
