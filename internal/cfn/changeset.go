package cfn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// changeSet is a change set as described.
type changeSet struct {
	arn, stack  string
	status      cfntypes.ChangeSetStatus
	execution   cfntypes.ExecutionStatus
	reason      string
	description string
	created     time.Time
	// update is the stack it changes, if this process has read it.
	update *cfntypes.Stack
}

// executed reports whether the change set was executed or is being executed.
func (c *changeSet) executed() bool {
	return slices.Contains([]cfntypes.ExecutionStatus{
		cfntypes.ExecutionStatusExecuteInProgress, cfntypes.ExecutionStatusExecuteComplete, cfntypes.ExecutionStatusExecuteFailed,
	}, c.execution)
}

// pending reports whether CloudFormation is still working it out.
func (c *changeSet) pending() bool {
	return c.status == cfntypes.ChangeSetStatusCreatePending || c.status == cfntypes.ChangeSetStatusCreateInProgress
}

// describeChangeSet returns a change set by ARN, or by name within a stack;
// nil if there is none.
func (o *operation) describeChangeSet(ctx context.Context, stack, ref string) (*changeSet, error) {
	in := &cfnsdk.DescribeChangeSetInput{ChangeSetName: aws.String(ref)}
	if stack != "" {
		in.StackName = aws.String(stack)
	}
	out, err := o.d.changeSets.DescribeChangeSet(ctx, in)
	if awserr.ChangeSetNotFound(err) {
		return nil, nil //nolint:nilnil // an absent change set is an ordinary answer
	}
	if err != nil {
		return nil, awserr.Fault(ctx, err, o.op+": look at change set "+ref)
	}
	if out.Status == cfntypes.ChangeSetStatusDeleteComplete || out.Status == cfntypes.ChangeSetStatusDeletePending || out.Status == cfntypes.ChangeSetStatusDeleteInProgress {
		return nil, nil //nolint:nilnil // as above
	}
	return &changeSet{
		arn: aws.ToString(out.ChangeSetId), stack: aws.ToString(out.StackId), status: out.Status, execution: out.ExecutionStatus,
		reason: aws.ToString(out.StatusReason), description: aws.ToString(out.Description), created: aws.ToTime(out.CreationTime),
	}, nil
}

// find returns this generation's change set, if there is one.
func (o *operation) find(ctx context.Context, live *cfntypes.Stack) (*changeSet, error) {
	if o.state.ChangeSet != "" {
		return o.describeChangeSet(ctx, o.state.Stack, o.state.ChangeSet)
	}
	if live == nil {
		return nil, nil //nolint:nilnil // without a stack there is no change set
	}
	return o.describeChangeSet(ctx, o.in.StackName, o.id.changeSet(o.state.Generation))
}

// join goes on with a change set that an earlier process of this execution
// made.
func (o *operation) join(ctx context.Context, set *changeSet) (Result, error) {
	same := set.description == description(o.in, o.template)
	o.state.ChangeSet, o.state.Stack = set.arn, set.stack
	switch {
	case set.executed() && same:
		o.note("joining change set %s, which this execution made before", set.arn)
		return o.watch(ctx, set)
	case set.executed():
		return Result{}, o.replan()
	case !same || set.execution == cfntypes.ExecutionStatusObsolete:
		if err := o.discard(ctx, set); err != nil {
			return Result{}, err
		}
		return Result{}, o.replan()
	default:
		return o.carryOut(ctx, set)
	}
}

// create makes the change set and returns it as far as it is known at once.
func (o *operation) create(ctx context.Context, live *cfntypes.Stack, values parameters) (*changeSet, error) {
	in, err := o.createInput(live, values)
	if err != nil {
		return nil, err
	}
	o.state.Name = aws.ToString(in.ChangeSetName)
	if err := o.announce(ctx, stepCreate); err != nil {
		return nil, err
	}
	out, err := o.d.changeSets.CreateChangeSet(ctx, in)
	switch {
	case err == nil:
		o.state.ChangeSet, o.state.Stack = aws.ToString(out.Id), aws.ToString(out.StackId)
		return &changeSet{arn: o.state.ChangeSet, stack: o.state.Stack, status: cfntypes.ChangeSetStatusCreatePending, description: aws.ToString(in.Description)}, nil
	case awserr.AlreadyExists(err), awserr.StackBusy(err):
		return nil, o.collided(ctx, err)
	case refusedChangeSet(err):
		return nil, o.refusalOf(awserr.Text(err), awserr.Brief(err))
	default:
		return nil, awserr.Fault(ctx, err, o.op+": create a change set")
	}
}

// collided decides what a refused CreateChangeSet means: our own change set,
// whose answer was lost or which another process made, is joined; an operation
// that began meanwhile is waited for.
func (o *operation) collided(ctx context.Context, err error) error {
	if awserr.AlreadyExists(err) {
		o.state.ChangeSet = ""
		return errReplan
	}
	live, describeErr := o.d.describe(ctx, o.in.StackName, o.op)
	if describeErr != nil {
		return describeErr
	}
	if live == nil || !Status(live.StackStatus).InProgress() {
		return o.replan()
	}
	if _, err := o.awaitOther(ctx, Status(live.StackStatus)); err != nil {
		return err
	}
	return errReplan
}

func (o *operation) createInput(live *cfntypes.Stack, values parameters) (*cfnsdk.CreateChangeSetInput, error) {
	in := &cfnsdk.CreateChangeSetInput{
		ChangeSetName: aws.String(o.id.changeSet(o.state.Generation)),
		ClientToken:   aws.String(o.id.token("create", o.state.Generation)),
		StackName:     aws.String(o.in.StackName),
		ChangeSetType: cfntypes.ChangeSetTypeCreate,
		Description:   aws.String(description(o.in, o.template)),
		Capabilities: []cfntypes.Capability{
			cfntypes.CapabilityCapabilityIam, cfntypes.CapabilityCapabilityNamedIam, cfntypes.CapabilityCapabilityAutoExpand,
		},
		IncludeNestedStacks: aws.Bool(true),
		Parameters:          values.values,
		Tags:                sortedTags(o.in.Tags),
		NotificationARNs:    o.in.NotificationARNs,
	}
	if live != nil && !Status(live.StackStatus).Reviewing() {
		// The ARN, so that a stack deleted and made anew meanwhile is not hit.
		// A CREATE change set takes names only.
		in.StackName, in.ChangeSetType = live.StackId, cfntypes.ChangeSetTypeUpdate
	}
	if o.in.RoleARN != "" {
		in.RoleARN = aws.String(o.in.RoleARN)
	}
	if o.in.ImportExisting { // false is the default of the API
		in.ImportExistingResources = aws.Bool(true)
	}
	if o.in.TemplateURL != "" {
		url, err := o.d.templateURL(o.in.TemplateURL)
		if err != nil {
			return nil, fault.Wrap(fault.User, fault.AssemblyInvalid, o.op, "", err)
		}
		in.TemplateURL = aws.String(url)
		return in, nil
	}
	body, ok := Inline(o.in.Template)
	if !ok {
		return nil, fault.Newf(fault.User, fault.ChangeSetFailed, o.op, "Publish the template and give its URL",
			"the template has %d bytes, more than the %d that a request may carry", len(o.in.Template), maxInlineTemplate)
	}
	in.TemplateBody = aws.String(body)
	return in, nil
}

// carryOut waits until the change set is worked out, and executes it unless it
// is empty.
func (o *operation) carryOut(ctx context.Context, set *changeSet) (Result, error) {
	update := set.update
	o.state.ChangeSet, o.state.Stack = set.arn, set.stack
	set, err := o.awaitChangeSet(ctx, set)
	if err != nil {
		return Result{}, err
	}
	if set.status == cfntypes.ChangeSetStatusFailed {
		return o.failedChangeSet(ctx, set)
	}
	if update != nil {
		if err := o.protect(ctx, update); err != nil {
			return Result{}, err
		}
	}
	if err := o.execute(ctx, set); err != nil {
		return Result{}, err
	}
	return o.watch(ctx, set)
}

// awaitChangeSet returns the change set once it is worked out. One that cannot
// be found may only just have been created: reads lag behind writes.
func (o *operation) awaitChangeSet(ctx context.Context, set *changeSet) (*changeSet, error) {
	began := time.Now()
	for pause := o.d.cfg.Limits.pause(); ; {
		next, err := o.describeChangeSet(ctx, set.stack, set.arn)
		if err != nil {
			return nil, err
		}
		switch {
		case next == nil && time.Since(began) > lag:
			return nil, o.replan()
		case next != nil && !next.pending():
			return next, nil
		}
		if !pause.wait(ctx) {
			return nil, ended(ctx, o.op, "")
		}
	}
}

// failedChangeSet tells "nothing to change" from a real failure. Either way
// the change set is deleted: failed ones count against a quota.
func (o *operation) failedChangeSet(ctx context.Context, set *changeSet) (Result, error) {
	var failure error
	if !awserr.NoChanges(set.reason) {
		said := o.diagnose(ctx, set)
		failure = o.refusalOf(said, errors.New(said))
	}
	if err := o.discard(ctx, set); err != nil && failure == nil {
		return Result{}, err
	}
	live, err := o.d.describe(ctx, set.stack, o.op)
	if err == nil && live != nil && Status(live.StackStatus).Reviewing() && (o.state.Outcome == Created || o.state.Outcome == Recreated) {
		err = o.deleteStack(ctx, set.stack)
		live = nil
	}
	switch {
	case failure != nil:
		return Result{}, failure
	case err != nil:
		return Result{}, err
	case live == nil:
		return Result{Outcome: Skipped, Outputs: map[string]string{}}, nil
	default:
		return o.noChange(ctx, live)
	}
}

// sweep deletes the change sets that earlier tries of this execution made and
// did not live to execute. CloudFormation does so itself when another one of
// the stack is executed, but not if there is nothing to change any more.
func (o *operation) sweep(ctx context.Context, live *cfntypes.Stack) error {
	earlier, err := o.d.cfg.Journal.Earlier(ctx, o.entry)
	if err != nil {
		return fmt.Errorf("%s: read the journal: %w", o.op, err)
	}
	for _, data := range earlier {
		was := intent{}
		if err := json.Unmarshal(data, &was); err != nil {
			return fmt.Errorf("%s: read the journal entry %s of an earlier try: %w", o.op, o.entry, err)
		}
		if was.Name == "" || was.Step == stepDone {
			continue
		}
		_, err := o.d.changeSets.DeleteChangeSet(ctx, &cfnsdk.DeleteChangeSetInput{ChangeSetName: aws.String(was.Name), StackName: live.StackId})
		switch {
		case err == nil:
			o.note("deleted change set %s of an earlier try, if it was left over", was.Name)
		case awserr.ChangeSetNotFound(err), awserr.ChangeSetNotExecutable(err):
		default:
			return awserr.Fault(ctx, err, o.op+": delete change set "+was.Name)
		}
	}
	return nil
}

func (o *operation) discard(ctx context.Context, set *changeSet) error {
	if err := o.announce(ctx, stepDeleteChangeSet); err != nil {
		return err
	}
	_, err := o.d.changeSets.DeleteChangeSet(ctx, &cfnsdk.DeleteChangeSetInput{ChangeSetName: aws.String(set.arn), StackName: aws.String(set.stack)})
	if err != nil && !awserr.ChangeSetNotFound(err) {
		return awserr.Fault(ctx, err, o.op+": delete change set "+set.arn)
	}
	return nil
}

// execute executes the change set once, however often it is called.
func (o *operation) execute(ctx context.Context, set *changeSet) error {
	o.state.Executing = true
	if err := o.announce(ctx, stepExecute); err != nil {
		return err
	}
	_, err := o.d.changeSets.ExecuteChangeSet(ctx, &cfnsdk.ExecuteChangeSetInput{
		ChangeSetName: aws.String(set.arn), StackName: aws.String(set.stack), ClientRequestToken: aws.String(o.id.token("execute", o.state.Generation)),
	})
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return o.left(ctx, "") // it may have begun
	}
	if awserr.AccessDenied(err) || awserr.Temporary(err) {
		return awserr.Fault(ctx, err, o.op+": execute the change set")
	}
	// Refused: because an earlier request of ours did it, or because the stack
	// has moved on. The change set itself knows.
	now, describeErr := o.describeChangeSet(ctx, set.stack, set.arn)
	switch {
	case describeErr != nil:
		return describeErr
	case now == nil:
		return errReplan
	case now.executed():
		return nil
	case now.execution == cfntypes.ExecutionStatusObsolete, awserr.StackBusy(err):
		o.state.Executing = false
		if err := o.discard(ctx, set); err != nil {
			return err
		}
		return o.replan()
	default:
		return awserr.Fault(ctx, err, o.op+": execute the change set")
	}
}

// liveTemplate returns the template of the stack as it was given.
func (o *operation) liveTemplate(ctx context.Context, live *cfntypes.Stack) ([]byte, error) {
	out, err := o.d.stacks.GetTemplate(ctx, &cfnsdk.GetTemplateInput{StackName: live.StackId, TemplateStage: cfntypes.TemplateStageOriginal})
	if err != nil {
		return nil, awserr.Fault(ctx, err, o.op+": read the live template")
	}
	return []byte(aws.ToString(out.TemplateBody)), nil
}

// refusedChangeSet reports whether CloudFormation takes no change set of what
// it was given.
func refusedChangeSet(err error) bool {
	return slices.Contains([]string{"ValidationError", "InsufficientCapabilitiesException", "LimitExceededException"}, awserr.Code(err))
}

// madeFromSameInputs reports whether the last executed change set of the stack
// was ours and made from the same inputs, which settles what GetTemplate
// cannot tell. If it is not known a change set has to find out.
func (o *operation) madeFromSameInputs(ctx context.Context, live *cfntypes.Stack) (bool, error) {
	if live.ChangeSetId == nil {
		return false, nil
	}
	set, err := o.describeChangeSet(ctx, aws.ToString(live.StackId), *live.ChangeSetId)
	if err != nil || set == nil {
		return false, err
	}
	return set.description == description(o.in, o.template) && set.execution == cfntypes.ExecutionStatusExecuteComplete, nil
}
