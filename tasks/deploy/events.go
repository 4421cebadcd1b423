package deploy

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/aphex-pipeline/aphex/internal/cfn"
	"github.com/aphex-pipeline/aphex/internal/record"
)

const (
	// firstEvents and lastEvents bound what is kept of one stack, which has at
	// most 500 resources, and each of them some events. How it began and how it
	// ended count more than what was between: a failure is at the end.
	firstEvents, lastEvents = 1000, 3000
	// storeTimeout bounds keeping them.
	storeTimeout = 15 * time.Second
)

// events are what has been said about one stack so far.
type events struct {
	mu    sync.Mutex
	first []record.Event
	// last is a ring once it is full: oldest is the next to go.
	last            []record.Event
	oldest, omitted int
}

func newEvents() *events { return &events{} }

func (e *events) add(said cfn.Event) {
	event := record.Event{
		Time: said.Time.UTC(), Status: said.Status, Type: said.Type, LogicalID: said.LogicalID, Path: said.Path, Reason: said.Reason,
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case len(e.first) < firstEvents:
		e.first = append(e.first, event)
	case len(e.last) < lastEvents:
		e.last = append(e.last, event)
	default:
		e.last[e.oldest] = event
		e.oldest = (e.oldest + 1) % lastEvents
		e.omitted++
	}
}

// kept are those that there was room for, in order, and how many were left out
// after the first of them.
func (e *events) kept() (list []record.Event, omitted int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Concat(e.first, e.last[e.oldest:], e.last[:e.oldest]), e.omitted
}

// storeEvents keeps the events of a stack whose deployment has ended, however.
// A stack that had none (it was as wanted) leaves what is there alone. The
// events are in the log too: not to be able to keep them fails nothing.
func (d *deployment) storeEvents(ctx context.Context, stack string, said *events) {
	list, omitted := said.kept()
	if d.stage.cfg.Events == nil || len(list) == 0 {
		return
	}
	if redact := d.stage.cfg.Redact; redact != nil {
		for i := range list {
			list[i].Reason = redact(list[i].Reason)
		}
	}
	kept := record.Events{
		WorkflowID: d.req.Run.UID, Environment: d.target.Name, Account: d.target.Account, Region: d.target.Region,
		Stack: stack, Epoch: d.req.Run.Epoch, Attempt: d.req.Attempt, Events: list,
	}
	if omitted > 0 {
		kept.Truncated, kept.Omitted, kept.OmittedAfter = true, omitted, firstEvents
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := d.stage.cfg.Events.PutEvents(ctx, kept); err != nil {
		d.say("warning: the events of %s could not be kept: %v", stack, err)
	}
}

// Deployment is how the deployment of one stack ended.
type Deployment struct {
	Stack     string
	Succeeded bool
	Began     time.Time
	Ended     time.Time
}

// report tells Config.Deployed of the stacks whose deployment has ended, which
// is beside the point of the work as well.
func (d *deployment) report(ctx context.Context) {
	if d.stage.cfg.Deployed == nil || len(d.ended) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := d.stage.cfg.Deployed(ctx, d.req, d.ended); err != nil {
		d.say("warning: %v", err)
	}
}
