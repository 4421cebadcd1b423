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

const (
	// openDelay is the pause before a run that cannot be opened is tried again,
	// each try taking up to the journal's own two minutes.
	openDelay = 5 * time.Second
	// stateAge is how long a state is trusted that no watch keeps fresh.
	stateAge = 30 * time.Second
	// startedDelay is the pause before a run that has not started is looked at
	// again: the controller creates the agent pod just before it writes that.
	startedDelay = 200 * time.Millisecond
	// startedWait bounds that.
	startedWait = 30 * time.Second
	// shutdownTerminate is a shutdown that leaves no time for exit handlers.
	shutdownTerminate = "Terminate"
	// noEpoch stands for the epoch where Workflows cannot be read.
	noEpoch = "none"
)

// run is one Workflow as this process sees it.
type run struct {
	id     task.Run
	source Runs // nil without access
	// ready is closed once book or err is set.
	ready chan struct{}
	book  journal.Book
	err   error

	mu      sync.Mutex
	state   RunState
	seenAt  time.Time
	watched bool
	blind   bool

	// lostAt is when a call met a journal that another pod has; leave ends
	// everything that serves the run.
	lostAt time.Time
	leave  context.CancelFunc

	tidyOnce sync.Once
}

// run returns the run that call belongs to, opened. It waits for that as long
// as ctx lasts; an error that is not ctx's is final.
func (e *Engine) run(ctx context.Context, call argo.Call) (*run, error) {
	id := call.Request.Run
	e.mu.Lock()
	r, ok := e.runs[id.UID]
	if !ok {
		r = &run{id: id, source: e.cfg.Runs, ready: make(chan struct{}), blind: e.cfg.Runs == nil}
		e.runs[id.UID] = r
	}
	e.mu.Unlock()
	if !ok && !e.start(ctx, func(ctx context.Context) { e.open(ctx, r) }) {
		e.mu.Lock()
		delete(e.runs, id.UID)
		e.mu.Unlock()
		return nil, context.Cause(ctx)
	}
	select {
	case <-r.ready:
		return r, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// open reads the run's state and claims its journal. It tries for as long as
// that may help: meanwhile the stages stay pending, and Argo ends them if it
// takes too long.
func (e *Engine) open(ctx context.Context, r *run) {
	ctx, r.leave = context.WithCancel(ctx)
	defer r.leave()
	for {
		r.err = e.openOnce(ctx, r)
		if r.err == nil || ctx.Err() != nil || fault.From(r.err).Class != fault.Transient {
			break
		}
		e.cfg.Logger.WarnContext(ctx, "run cannot be opened yet", slog.String("workflow_uid", r.id.UID), slog.String("err", r.err.Error()))
		select {
		case <-ctx.Done():
		case <-time.After(openDelay):
		}
	}
	if r.err != nil && ctx.Err() != nil {
		r.err = ctx.Err() // the process ends: that says nothing about the run
	}
	close(r.ready)
	if r.err != nil {
		e.cfg.Logger.ErrorContext(ctx, "run cannot be opened", slog.String("workflow_uid", r.id.UID), slog.String("err", e.cfg.Redactor.String(r.err.Error())))
		return
	}
	if !r.isBlind() {
		e.start(ctx, func(ctx context.Context) { e.tidy(ctx, r) })
		e.follow(ctx, r)
	}
	<-ctx.Done()
	r.book.Wait()
}

func (e *Engine) openOnce(ctx context.Context, r *run) error {
	if err := r.refresh(ctx); err != nil {
		return err
	}
	book, err := e.cfg.Journal.Open(ctx, r.id)
	if err != nil {
		return err
	}
	r.book = book
	return nil
}

// refresh reads the run's state, waiting for it to have started.
func (r *run) refresh(ctx context.Context) error {
	if r.isBlind() {
		return nil
	}
	deadline := time.Now().Add(startedWait)
	for {
		state, err := r.source.State(ctx, r.id)
		switch {
		case errors.Is(err, ErrNoAccess):
			r.mu.Lock()
			r.blind = true
			r.mu.Unlock()
			return nil
		case err == nil && (state.Epoch != "" || state.Finished):
			r.set(state)
			return nil
		case time.Now().After(deadline):
			if err == nil {
				err = errors.New("the controller has not set status.startedAt")
			}
			return fault.Wrap(fault.Transient, fault.KubernetesRejected, "read workflow "+r.id.Name,
				"Check that the Kubernetes API server and the workflow controller work, then retry the run", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(startedDelay):
		}
	}
}

func (r *run) isBlind() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.blind
}

func (r *run) set(state RunState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if state.Epoch == "" {
		state.Epoch = r.state.Epoch
	}
	r.state, r.seenAt = state, time.Now()
}

// silent: nothing that is said now could do any good. A run that is terminated
// has its nodes failed by the controller, which reads no more results: a reply
// would be found by the next try.
func (r *run) silent() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Finished || r.state.Shutdown == shutdownTerminate
}

func (r *run) finished() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Finished
}

// follow watches the run until it is over and cancels what it no longer wants.
func (e *Engine) follow(ctx context.Context, r *run) {
	r.mu.Lock()
	r.watched = true
	r.mu.Unlock()
	err := e.cfg.Runs.Watch(ctx, r.id, func(state RunState) {
		r.set(state)
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, x := range e.live {
			if x.call.Request.Run.UID != r.id.UID {
				continue
			}
			if cause := r.unwanted(&x.call.Request); cause != nil {
				x.stop(cause)
			}
		}
		if state.Finished {
			e.start(ctx, func(ctx context.Context) { r.tidyOnce.Do(func() { e.tidy(ctx, r) }) })
		}
	})
	r.mu.Lock()
	r.watched = false
	r.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		e.cfg.Logger.WarnContext(ctx, "run is no longer watched: stop requests are noticed late", slog.String("err", err.Error()))
	}
}

// tidy has the task set cleared of what earlier tries, or this one, left in it.
func (e *Engine) tidy(ctx context.Context, r *run) {
	if e.cfg.Keeper == nil {
		return
	}
	entries, err := r.book.Entries(ctx)
	if err != nil || len(entries) == 0 { // a newer pod has the journal, or there is nothing
		return
	}
	var nodes []string
	for i := range entries { // whether it was a step with retries is not known
		nodes = append(nodes, entries[i].Node, fmt.Sprintf("%s(%d)", entries[i].Node, entries[i].Attempt))
	}
	e.cfg.Keeper.Tidy(ctx, r.id, nodes)
}

// ask stops x when the run has no use for it any more, which Argo tells nobody:
// the agent gave the call up, or a limit of the Workflow has passed. It takes
// two looks in a row to believe that: the controller takes the task away just
// before it writes the Workflow, and puts it back if it cannot.
func (e *Engine) ask(ctx context.Context, r *run, x *execution) {
	ticker := time.NewTicker(e.cfg.AskEvery)
	defer ticker.Stop()
	for unwanted := 0; !r.isBlind(); {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		wanted, err := e.cfg.Runs.Wanted(ctx, r.id, x.call.NodeName())
		switch {
		case errors.Is(err, ErrNoAccess):
			return
		case err != nil, wanted:
			unwanted = 0
			continue
		}
		if unwanted++; unwanted == 2 {
			x.stop(cancelled("the run has ended the stage's node and waits for it no more"))
			return
		}
	}
}

// setEpoch completes call's identity.
func (r *run) setEpoch(ctx context.Context, call *argo.Call, podUID string) error {
	r.mu.Lock()
	blind, stale := r.blind, !r.watched && time.Since(r.seenAt) > stateAge
	r.mu.Unlock()
	if blind {
		return r.setBlindEpoch(ctx, call, podUID)
	}
	if stale {
		r.look(ctx)
	}
	r.mu.Lock()
	call.Request.Run.Epoch = r.state.Epoch
	r.mu.Unlock()
	return nil
}

// look reads the state once. What was known before stays if that fails.
func (r *run) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	if state, err := r.source.State(ctx, r.id); err == nil {
		r.set(state)
	}
}

// unwanted says why an execution of the run should not go on, or nil.
func (r *run) unwanted(req *task.Request) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.state.Finished:
		return cancelled("the run has ended")
	case r.state.Shutdown != "" && req.Stage != task.StageFinish:
		return cancelled("the run was shut down (%s)", r.state.Shutdown)
	case r.state.Epoch != "" && req.Run.Epoch != r.state.Epoch:
		return cancelled("the run was retried")
	}
	return nil
}

// setBlindEpoch picks the first epoch in which this execution has not been
// failed by another pod.
func (r *run) setBlindEpoch(ctx context.Context, call *argo.Call, podUID string) error {
	for n := 0; ; n++ {
		epoch := noEpoch
		if n > 0 {
			epoch = fmt.Sprintf("%s-%d", noEpoch, n)
		}
		call.Request.Run.Epoch = epoch
		entry, ok, err := r.book.Entry(ctx, call.Request.Key())
		if err != nil {
			return err
		}
		if !ok || !entry.Ended() || entry.Phase == string(argo.Succeeded) || entry.PodUID == podUID {
			return nil
		}
	}
}
