package cfn

import (
	"context"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// rollbackAPI is what brings a paused stack back.
type rollbackAPI interface {
	RollbackStack(ctx context.Context, in *cfnsdk.RollbackStackInput, opts ...func(*cfnsdk.Options)) (*cfnsdk.RollbackStackOutput, error)
	ContinueUpdateRollback(ctx context.Context, in *cfnsdk.ContinueUpdateRollbackInput, opts ...func(*cfnsdk.Options)) (*cfnsdk.ContinueUpdateRollbackOutput, error)
}

var _ rollbackAPI = (*cfnsdk.Client)(nil)

// Rollbackable reports whether a paused stack can be rolled back.
func (s Status) Rollbackable() bool {
	return slices.Contains([]Status{"CREATE_FAILED", "UPDATE_FAILED", "UPDATE_ROLLBACK_FAILED"}, s)
}

// resolve deals with a stack that is paused in a failed state: it is rolled
// back once if that is asked for, otherwise a person has to decide.
func (o *operation) resolve(ctx context.Context, live *cfntypes.Stack) (*cfntypes.Stack, error) {
	status := Status(live.StackStatus)
	if !o.in.RollBackPaused || o.rolledBack || !status.Rollbackable() {
		return nil, fault.Newf(fault.User, fault.StackPaused, o.op, status.advice(), "the stack is %s%s", status, because(live))
	}
	o.rolledBack = true
	o.note("is %s, rolling it back first (onFailedStack: rollback)", status)
	if err := o.announce(ctx, stepRollBack); err != nil {
		return nil, err
	}
	if err := o.rollBack(ctx, aws.ToString(live.StackId), status); err != nil {
		return nil, err
	}
	return o.awaitRollback(ctx, aws.ToString(live.StackId), status)
}

func (o *operation) rollBack(ctx context.Context, stackARN string, status Status) error {
	var role *string
	if o.in.RoleARN != "" {
		role = aws.String(o.in.RoleARN)
	}
	token := aws.String(o.id.token("rollback", o.state.Generation))
	var err error
	if status == "UPDATE_ROLLBACK_FAILED" {
		_, err = o.d.rollbacks.ContinueUpdateRollback(ctx, &cfnsdk.ContinueUpdateRollbackInput{StackName: aws.String(stackARN), RoleARN: role, ClientRequestToken: token})
	} else {
		_, err = o.d.rollbacks.RollbackStack(ctx, &cfnsdk.RollbackStackInput{
			StackName: aws.String(stackARN), RoleARN: role, ClientRequestToken: token, RetainExceptOnCreate: aws.Bool(true),
		})
	}
	if err == nil || awserr.StackBusy(err) { // a repeated request has begun it already
		return nil
	}
	if awserr.Code(err) == "ValidationError" {
		// Or even ended it, before it was repeated.
		if live, describeErr := o.d.describe(ctx, stackARN, o.op); describeErr == nil && (live == nil || Status(live.StackStatus) != status) {
			return nil
		}
	}
	return awserr.Fault(ctx, err, o.op+": roll the stack back")
}

// awaitRollback returns the stack once its rollback has ended. A read may
// still show the status before it began.
func (o *operation) awaitRollback(ctx context.Context, stackARN string, before Status) (*cfntypes.Stack, error) {
	began := false
	for pause, start := o.d.cfg.Limits.pause(), time.Now(); ; {
		live, err := o.d.describe(ctx, stackARN, o.op)
		if err != nil {
			return nil, err
		}
		if live == nil {
			return nil, nil //nolint:nilnil // an absent stack is an ordinary answer
		}
		status := Status(live.StackStatus)
		began = began || status != before
		if status.Terminal() && (began || time.Since(start) > lag) {
			return live, nil
		}
		if !pause.wait(ctx) {
			return nil, ended(ctx, o.op, status)
		}
	}
}
