package cfn

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// maxAttempts bounds how often one execution plans anew because somebody else
// changed the stack under it.
const maxAttempts = 16

// errReplan says that the plan no longer fits the stack.
var errReplan = errors.New("the stack changed since the plan was made")

// operation is one call of Deploy.
type operation struct {
	d        *Deployer
	in       Input
	template template
	id       identity
	entry    string
	op       string
	state    intent
	warnings []string
	// busySince is when somebody else's operation was first met.
	busySince time.Time
	// rolledBack says that a paused stack was rolled back by this process.
	rolledBack bool
	// ahead is a template that was read before it was known to be needed.
	ahead readAhead
}

// readAhead is what came of reading the template of live.
type readAhead struct {
	live *cfntypes.Stack
	body []byte
	err  error
}

// Deploy brings one stack to the wanted state and returns when CloudFormation
// is done with it. Called again with the same Input.Execution, by this process
// or another, it joins what was begun.
//
// When ctx ends Deploy stops waiting; it neither cancels nor rolls back.
//
// Errors: StackBusy, StackPaused, StackEmpty, ParameterMissing,
// ChangeSetFailed, StackFailed with the first causal event, AWSRejected,
// AWSUnavailable, Cancelled or the cause of ctx.
func (d *Deployer) Deploy(ctx context.Context, in Input) (Result, error) {
	o := &operation{
		d: d, in: in,
		id:    newIdentity(in.Execution, d.cfg.Account, d.region, in.StackName),
		entry: entryName(d.cfg.Account, d.region, in.StackName),
		op:    fmt.Sprintf("deploy stack %s (%s)", in.StackName, d.region),
	}
	var err error
	if o.template, err = parseTemplate(in.Template); err != nil {
		return Result{}, fault.Wrap(fault.User, fault.AssemblyInvalid, o.op, "", err)
	}
	if err := o.recall(ctx); err != nil {
		return Result{}, err
	}
	if o.state.Step == stepDone {
		return o.done(ctx)
	}
	if o.state.Step == stepDeleteEmpty {
		if result, err := o.joinDeletion(ctx); !errors.Is(err, errReplan) {
			return result, err
		}
	}
	for range maxAttempts {
		result, err := o.attempt(ctx)
		if !errors.Is(err, errReplan) {
			return result, err
		}
	}
	return Result{}, fault.Newf(fault.Transient, fault.StackBusy, o.op, "Find out who else deploys the stack, then retry the run",
		"somebody else changed the stack %d times while it was being planned", maxAttempts)
}

// attempt plans and carries out one generation, or joins it if it exists.
func (o *operation) attempt(ctx context.Context) (Result, error) {
	live, err := o.d.describe(ctx, o.in.StackName, o.op)
	if err != nil {
		return Result{}, err
	}
	set, err := o.survey(ctx, live)
	switch {
	case err != nil:
		return Result{}, err
	case set != nil:
		return o.join(ctx, set)
	case o.state.Executing:
		return o.joinUnseen(ctx)
	default:
		return o.plan(ctx, live)
	}
}

// survey finds this generation's change set. Where the template has the last
// word on whether there is anything to do it is read at the same time: most
// stacks of most runs need these two looks and nothing else.
func (o *operation) survey(ctx context.Context, live *cfntypes.Stack) (*changeSet, error) {
	if !o.templateDecides(live) {
		return o.find(ctx, live)
	}
	read := make(chan readAhead, 1)
	go func() {
		body, err := o.liveTemplate(ctx, live)
		read <- readAhead{live, body, err}
	}()
	set, err := o.find(ctx, live)
	o.ahead = <-read
	return set, err
}

// templateDecides reports whether live is as wanted if its template is, and
// nothing has been begun yet.
func (o *operation) templateDecides(live *cfntypes.Stack) bool {
	if live == nil || o.template.resources == 0 || o.state.ChangeSet != "" || o.state.Executing {
		return false
	}
	if status := Status(live.StackStatus); !status.Terminal() || status.Unusable() {
		return false
	}
	values := resolveParameters(o.template.declared, o.in.Parameters, live.Parameters)
	return len(values.missing) == 0 && differs(o.in, live, values) == ""
}

// plan decides what a stack needs and does it.
func (o *operation) plan(ctx context.Context, live *cfntypes.Stack) (Result, error) {
	live, err := o.settle(ctx, live)
	if err != nil {
		return Result{}, err
	}
	if live != nil {
		if err := o.sweep(ctx, live); err != nil {
			return Result{}, err
		}
	}
	fresh := live == nil || Status(live.StackStatus).Reviewing()
	if o.template.resources == 0 {
		return o.empty(ctx, live, fresh)
	}
	var current []cfntypes.Parameter
	if !fresh {
		current = live.Parameters
	}
	values := resolveParameters(o.template.declared, o.in.Parameters, current)
	if len(values.missing) > 0 {
		return Result{}, fault.Newf(fault.User, fault.ParameterMissing, o.op, "Give the parameter a default in the app", "%s", missingText(values.missing))
	}
	switch {
	case !fresh:
		same, err := o.unchanged(ctx, live, values)
		if err != nil {
			return Result{}, err
		}
		if same {
			return o.noChange(ctx, live)
		}
		o.state.Outcome = Updated
	case o.state.Outcome != Recreated:
		o.state.Outcome = Created
	}
	set, err := o.create(ctx, live, values)
	if err != nil {
		return Result{}, err
	}
	if !fresh {
		set.update = live
	}
	return o.carryOut(ctx, set)
}

// unchanged reports whether the live stack already is as wanted, without a
// change set.
func (o *operation) unchanged(ctx context.Context, live *cfntypes.Stack, values parameters) (bool, error) {
	if differs(o.in, live, values) != "" {
		return false, nil
	}
	if o.ahead.live != live {
		body, err := o.liveTemplate(ctx, live)
		o.ahead = readAhead{live, body, err}
	}
	if o.ahead.err != nil {
		return false, o.ahead.err
	}
	switch o.template.compare(o.ahead.body) {
	case equal:
		return true, nil
	case mangled:
		return o.madeFromSameInputs(ctx, live)
	default:
		return false, nil
	}
}

// noChange ends a deployment that had nothing to do.
func (o *operation) noChange(ctx context.Context, live *cfntypes.Stack) (Result, error) {
	o.state.Outcome = NoChange
	return o.succeed(ctx, live)
}

// succeed ends a deployment that went well.
func (o *operation) succeed(ctx context.Context, stack *cfntypes.Stack) (Result, error) {
	if err := o.protect(ctx, stack); err != nil {
		return Result{}, err
	}
	if o.state.Outcome == "" { // joined without a journal
		o.state.Outcome = Updated
		if stack.StackStatus == cfntypes.StackStatusCreateComplete {
			o.state.Outcome = Created
		}
	}
	o.state.Stack = aws.ToString(stack.StackId)
	if err := o.announce(ctx, stepDone); err != nil {
		return Result{}, err
	}
	return o.result(stack), nil
}

// done rebuilds the result of a deployment that ended well before, and tells
// its events again: the process that saw them may have died before it kept
// them.
func (o *operation) done(ctx context.Context) (Result, error) {
	if o.state.Outcome == Deleted {
		return o.deleted(), nil
	}
	stack, err := o.d.describe(ctx, o.state.Stack, o.op)
	if err != nil {
		return Result{}, err
	}
	if stack == nil {
		return Result{}, o.disappeared(nil)
	}
	if o.state.Executing {
		if err := o.watcher(o.state.Stack, time.Time{}).poll(ctx); err != nil {
			o.note("the events of its deployment could not be read again: %v", awserr.Brief(err))
		}
	}
	return o.result(stack), nil
}

// disappeared is the fault for a stack that is gone; deletion is when somebody
// began that, nil if it was not seen.
func (o *operation) disappeared(deletion *Event) error {
	text := "the stack was deleted meanwhile"
	if deletion != nil {
		text += fmt.Sprintf("; %s at %s: %s", deletion.Status, deletion.Time.UTC().Format(time.TimeOnly+"Z"), orNone(deletion.Reason))
	}
	return fault.Newf(fault.User, fault.StackFailed, o.op, "Find out who deleted the stack, then retry the run", "%s", text)
}

func (o *operation) result(stack *cfntypes.Stack) Result {
	return Result{Outcome: o.state.Outcome, StackARN: aws.ToString(stack.StackId), Outputs: outputs(stack), Warnings: o.warnings}
}

func (o *operation) note(format string, args ...any) {
	o.d.cfg.OnNote(o.in.StackName + ": " + fmt.Sprintf(format, args...))
}
