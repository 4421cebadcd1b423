package deploy

import (
	"context"
	"sync"
	"time"

	"github.com/aphex-pipeline/aphex/internal/cfn"
	"github.com/aphex-pipeline/aphex/internal/record"
)

const (
	// maxEvents bounds what is kept of one stack: a stack has at most 500
	// resources, and each of them some events.
	maxEvents = 4000
	// storeTimeout bounds keeping them.
	storeTimeout = 15 * time.Second
)

// events are what has been said about one stack so far.
type events struct {
	mu        sync.Mutex
	list      []record.Event
	truncated bool
}

func newEvents() *events { return &events{list: []record.Event{}} }

func (e *events) add(said cfn.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.list) == maxEvents {
		e.truncated = true
		return
	}
	e.list = append(e.list, record.Event{
		Time: said.Time.UTC(), Status: said.Status, Type: said.Type, LogicalID: said.LogicalID, Path: said.Path, Reason: said.Reason,
	})
}

// storeEvents keeps the events of a stack whose deployment has ended, however.
// A stack that had none (it was as wanted) leaves what is there alone. The
// events are in the log too: not to be able to keep them fails nothing.
func (d *deployment) storeEvents(ctx context.Context, stack string, said *events) {
	said.mu.Lock()
	defer said.mu.Unlock()
	if d.stage.cfg.Events == nil || len(said.list) == 0 {
		return
	}
	if redact := d.stage.cfg.Redact; redact != nil {
		for i := range said.list {
			said.list[i].Reason = redact(said.list[i].Reason)
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	err := d.stage.cfg.Events.PutEvents(ctx, record.Events{
		WorkflowID: d.req.Run.UID, Environment: d.target.Name, Account: d.target.Account, Region: d.target.Region,
		Stack: stack, Events: said.list, Truncated: said.truncated,
	})
	if err != nil {
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
