package cfn

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// deletes reports whether the stack is to go if it is there.
func (o *operation) deletes() bool { return o.template.resources == 0 && o.in.DeleteEmpty }

// empty is the answer to a template without resources.
func (o *operation) empty(ctx context.Context, live *cfntypes.Stack, fresh bool) (Result, error) {
	if fresh {
		return Result{Outcome: Skipped, Outputs: map[string]string{}, Warnings: []string{"the template has no resources: nothing to deploy"}}, nil
	}
	if !o.in.DeleteEmpty {
		return Result{}, fault.Newf(fault.User, fault.StackEmpty, o.op,
			"Let it be deleted (onEmpty: delete of the stack in the configuration), delete it yourself and remove it there, or give it a resource",
			"the template has no resources, which would mean deleting the stack; that is never done unasked")
	}
	if aws.ToBool(live.EnableTerminationProtection) {
		return Result{}, fault.Newf(fault.User, fault.StackEmpty, o.op,
			"Switch the termination protection off yourself, or give the stack a resource, then retry the run",
			"the template has no resources, and the stack that would be deleted for that is protected from termination")
	}
	return o.deleteEmpty(ctx, live)
}

// deleteEmpty deletes the stack and waits for the end of that. Asked for twice
// it is one deletion: the request has the stack's ARN and always the same
// token.
func (o *operation) deleteEmpty(ctx context.Context, live *cfntypes.Stack) (Result, error) {
	o.state.Stack = aws.ToString(live.StackId)
	if err := o.announce(ctx, stepDeleteEmpty); err != nil {
		return Result{}, err
	}
	o.note("has no resources any more: deleting it (onEmpty: delete)")
	in := &cfnsdk.DeleteStackInput{StackName: live.StackId, ClientRequestToken: aws.String(o.deletionToken())}
	if o.in.RoleARN != "" {
		in.RoleARN = aws.String(o.in.RoleARN)
	}
	_, err := o.d.stacks.DeleteStack(ctx, in)
	switch {
	case err == nil, awserr.StackNotFound(err):
		return o.watchDeletion(ctx)
	case ctx.Err() != nil:
		return Result{}, o.left(ctx, "") // it may have begun
	case awserr.StackBusy(err): // with what began meanwhile
		return Result{}, o.replan()
	default:
		return Result{}, awserr.Fault(ctx, err, o.op+": delete the stack, which has no resources any more")
	}
}

func (o *operation) deletionToken() string { return o.id.token("delete-empty", o.state.Generation) }

// joinDeletion goes on with a deletion that an earlier process of this
// execution was about to ask for. errReplan says that it has to be asked for
// again.
func (o *operation) joinDeletion(ctx context.Context) (Result, error) {
	live, err := o.d.describe(ctx, o.state.Stack, o.op)
	switch {
	case err != nil:
		return Result{}, err
	case live == nil || live.StackStatus == cfntypes.StackStatusDeleteInProgress:
		return o.watchDeletion(ctx)
	default:
		return Result{}, errReplan
	}
}

// watchDeletion waits for the end of the deletion and turns it into the
// result.
func (o *operation) watchDeletion(ctx context.Context) (Result, error) {
	w := o.watcher(o.state.Stack, time.Time{})
	w.token, w.deleting = o.deletionToken(), true
	stack, status, err := w.wait(ctx)
	if err != nil {
		return Result{}, err
	}
	if stack != nil {
		return Result{}, o.failure(ctx, w, stack, status)
	}
	o.state.Outcome = Deleted
	if err := o.announce(ctx, stepDone); err != nil {
		return Result{}, err
	}
	return o.deleted(), nil
}

func (o *operation) deleted() Result {
	return Result{Outcome: Deleted, StackARN: o.state.Stack, Outputs: map[string]string{}, Warnings: o.warnings}
}
