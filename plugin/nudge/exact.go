package nudge

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/aphex-pipeline/aphex/internal/kube"
)

// errOver ends an attempt: nothing is left to be nudged.
var errOver = errors.New("the controller needs no more nudges")

// exact nudges by what two watches show: the result's arrival in the task set,
// then the controller's work on it.
//
// Errors: kube.ErrForbidden if there is no right to watch.
func (a *attempt) exact(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	v := &view{attempt: a, changes: make(chan func()), errs: make(chan error, 2)}
	wg.Go(func() {
		v.errs <- a.client.WatchWorkflow(ctx, a.run.Namespace, a.run.Name, func(w *kube.Workflow) bool {
			return !v.send(ctx, func() { v.workflow = w })
		})
	})
	wg.Go(func() {
		v.errs <- a.client.WatchTaskSet(ctx, a.run.Namespace, a.run.Name, func(t *kube.TaskSet) bool {
			return !v.send(ctx, func() { v.taskSet = t })
		})
	})
	if err := a.follow(ctx, v); errors.Is(err, kube.ErrForbidden) {
		return err
	}
	return nil // done, or the run is gone
}

// follow nudges for the result, if that lies there for longer than the grace,
// and for what comes next, if the Workflow stands still for longer than that.
func (a *attempt) follow(ctx context.Context, v *view) error {
	if err := v.until(ctx, func() bool { return v.reported() || v.copied() }); err != nil {
		return err
	}
	a.remember(v.workflow)
	copied, err := v.within(ctx, a.timing.Grace, v.copied)
	if err != nil {
		return err
	}
	if !copied && !a.patch(ctx, forResult) {
		return errOver
	}
	if err := v.until(ctx, v.copied); err != nil {
		return err
	}
	nodes, fulfilled := v.workflow.Progress()
	moved, err := v.within(ctx, a.timing.Grace, func() bool {
		n, f := v.workflow.Progress()
		return n != nodes || f != fulfilled
	})
	if err == nil && !moved {
		a.patch(ctx, forNext)
	}
	return err
}

// view is what both watches have shown so far.
type view struct {
	*attempt

	changes  chan func()
	errs     chan error
	workflow *kube.Workflow
	taskSet  *kube.TaskSet
}

func (v *view) send(ctx context.Context, change func()) bool {
	select {
	case v.changes <- change:
		return true
	case <-ctx.Done():
		return false
	}
}

// reported: the result is where the controller will find it.
func (v *view) reported() bool { return kube.Fulfilled(v.taskSet.Results[v.id].Phase) }

// copied: the controller has taken the result over. It clears the task set just
// before it writes that into the Workflow, so the task set counts only where
// the Workflow's nodes are kept elsewhere.
func (v *view) copied() bool {
	if nodes, _ := v.workflow.Progress(); nodes > 0 {
		return kube.Fulfilled(v.workflow.NodePhase(v.node))
	}
	return !v.taskSet.Tasks[v.id] && !v.reported()
}

// until waits for holds, which is asked once both objects have been seen.
func (v *view) until(ctx context.Context, holds func() bool) error {
	_, err := v.wait(ctx, nil, holds)
	return err
}

// within is until for at most d.
func (v *view) within(ctx context.Context, d time.Duration, holds func() bool) (bool, error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	return v.wait(ctx, timer.C, holds)
}

func (v *view) wait(ctx context.Context, timeout <-chan time.Time, holds func() bool) (bool, error) {
	for {
		switch seen := v.workflow != nil && v.taskSet != nil; {
		case v.workflow != nil && (v.workflow.Finished() || v.workflow.UID != v.run.UID):
			return false, errOver
		case seen && holds():
			return true, nil
		}
		select {
		case change := <-v.changes:
			change()
		case <-timeout:
			return false, nil
		case err := <-v.errs:
			return false, err
		case <-ctx.Done():
			return false, errOver
		}
	}
}
