package cfn

import (
	"context"
	"encoding/json"
	"fmt"
)

// step is what an intent announces.
type step string

const (
	stepDeleteStack     step = "delete-stack"
	stepCreate          step = "create-change-set"
	stepExecute         step = "execute-change-set"
	stepDeleteChangeSet step = "delete-change-set"
	stepRollBack        step = "roll-back"
	stepProtect         step = "set-termination-protection"
	stepDeleteEmpty     step = "delete-empty-stack"
	stepDone            step = "done"
)

// intent is the journal entry of one stack: how far the execution has come
// and the last thing that was about to be done.
type intent struct {
	Step       step `json:"step,omitempty"`
	Generation int  `json:"generation"`
	// Name is the name of this generation's change set, known before it is made.
	Name string `json:"name,omitempty"`
	// ChangeSet is the ARN of this generation's change set, once known.
	ChangeSet string `json:"changeSet,omitempty"`
	// Stack is the ARN of the stack, once known.
	Stack string `json:"stack,omitempty"`
	// Executing is set before the change set is executed and says that it may
	// have been.
	Executing bool `json:"executing,omitempty"`
	// Outcome is what the deployment is, or will be if it goes well.
	Outcome Outcome `json:"outcome,omitempty"`
}

// recall loads what this execution has done to the stack so far.
func (o *operation) recall(ctx context.Context) error {
	data, ok, err := o.d.cfg.Journal.Get(ctx, o.entry)
	if err != nil {
		return fmt.Errorf("%s: read the journal: %w", o.op, err)
	}
	o.state = intent{Generation: 1}
	if !ok {
		return nil
	}
	if err := json.Unmarshal(data, &o.state); err != nil {
		return fmt.Errorf("%s: read the journal entry %s: %w", o.op, o.entry, err)
	}
	return nil
}

// announce makes the state durable before next is done.
func (o *operation) announce(ctx context.Context, next step) error {
	o.state.Step = next
	data, err := json.Marshal(o.state)
	if err != nil {
		return fmt.Errorf("%s: encode the journal entry: %w", o.op, err)
	}
	if err := o.d.cfg.Journal.Put(ctx, o.entry, data); err != nil {
		return fmt.Errorf("%s: write the journal: %w", o.op, err)
	}
	return nil
}

// replan moves on to the next generation.
func (o *operation) replan() error {
	o.state = intent{Generation: o.state.Generation + 1, Outcome: o.state.Outcome}
	return errReplan
}
