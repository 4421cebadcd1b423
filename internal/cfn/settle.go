package cfn

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// settle waits for other operations and removes what is left of a failed
// creation, until the stack can take a change set. nil means absent.
func (o *operation) settle(ctx context.Context, live *cfntypes.Stack) (*cfntypes.Stack, error) {
	for {
		if live == nil {
			return nil, nil //nolint:nilnil // an absent stack is an ordinary answer
		}
		status := Status(live.StackStatus)
		var err error
		switch {
		case status.InProgress():
			live, err = o.awaitOther(ctx, status)
		case status.Unusable():
			o.state.Outcome = Recreated
			live, err = nil, o.remove(ctx, live)
		case status.Paused() && !o.deletes():
			live, err = o.resolve(ctx, live)
		default:
			return live, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func because(s *cfntypes.Stack) string {
	if reason := aws.ToString(s.StackStatusReason); reason != "" {
		return " (" + reason + ")"
	}
	return ""
}

// awaitOther waits until no operation runs on the stack, and describes it
// anew. All waits of one deployment share one limit.
func (o *operation) awaitOther(ctx context.Context, status Status) (*cfntypes.Stack, error) {
	if o.busySince.IsZero() {
		o.busySince = time.Now()
	}
	o.note("is %s by another operation, waiting for its end (up to %s)", status, o.d.cfg.Limits.Busy)
	for pause := o.d.cfg.Limits.pause(); ; {
		if time.Since(o.busySince) > o.d.cfg.Limits.Busy {
			return nil, fault.Newf(fault.User, fault.StackBusy, o.op, "Wait for the operation or cancel it in CloudFormation, then retry the run",
				"another operation holds the stack in %s for more than %s", status, o.d.cfg.Limits.Busy)
		}
		if !pause.wait(ctx) {
			return nil, ended(ctx, o.op, status)
		}
		live, err := o.d.describe(ctx, o.in.StackName, o.op)
		if err != nil {
			return nil, err
		}
		if live == nil || !Status(live.StackStatus).InProgress() {
			return live, nil
		}
		status = Status(live.StackStatus)
	}
}

// remove deletes a stack whose creation failed, and waits.
func (o *operation) remove(ctx context.Context, live *cfntypes.Stack) error {
	status, stackARN := Status(live.StackStatus), aws.ToString(live.StackId)
	o.note("is %s, its creation failed: deleting it to create it anew", status)
	if aws.ToBool(live.EnableTerminationProtection) {
		// Nothing was ever created that this could protect, and a protected
		// stack in this status can do nothing but be deleted.
		if err := o.setProtection(ctx, stackARN, false); err != nil {
			return err
		}
	}
	return o.deleteStack(ctx, stackARN)
}

// deleteStack deletes a stack that was never created, and waits.
func (o *operation) deleteStack(ctx context.Context, stackARN string) error {
	if err := o.announce(ctx, stepDeleteStack); err != nil {
		return err
	}
	// No role: CloudFormation uses the one that the stack was made with.
	in := &cfnsdk.DeleteStackInput{StackName: aws.String(stackARN), ClientRequestToken: aws.String(o.id.token("delete", o.state.Generation))}
	if _, err := o.d.stacks.DeleteStack(ctx, in); err != nil && !awserr.StackNotFound(err) {
		return awserr.Fault(ctx, err, o.op+": delete what is left of its failed creation")
	}
	for pause := o.d.cfg.Limits.pause(); ; {
		live, err := o.d.describe(ctx, stackARN, o.op)
		if err != nil {
			return err
		}
		if live == nil {
			return nil
		}
		status := Status(live.StackStatus)
		if status.Paused() {
			return fault.Newf(fault.User, fault.StackPaused, o.op, status.advice(),
				"what is left of its failed creation could not be deleted: %s%s", status, because(live))
		}
		if !pause.wait(ctx) {
			return ended(ctx, o.op, status)
		}
	}
}

// protect brings termination protection to the wanted state.
func (o *operation) protect(ctx context.Context, live *cfntypes.Stack) error {
	if aws.ToBool(live.EnableTerminationProtection) == o.in.TerminationProtection {
		return nil
	}
	return o.setProtection(ctx, aws.ToString(live.StackId), o.in.TerminationProtection)
}

func (o *operation) setProtection(ctx context.Context, stackARN string, on bool) error {
	if err := o.announce(ctx, stepProtect); err != nil {
		return err
	}
	_, err := o.d.stacks.UpdateTerminationProtection(ctx, &cfnsdk.UpdateTerminationProtectionInput{
		StackName: aws.String(stackARN), EnableTerminationProtection: aws.Bool(on),
	})
	if err != nil {
		return awserr.Fault(ctx, err, fmt.Sprintf("%s: set termination protection to %t", o.op, on))
	}
	o.note("termination protection is now %t", on)
	return nil
}
