package cfn

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// list returns the change sets of the stack; none if it does not exist.
func (v *preview) list(ctx context.Context) ([]cfntypes.ChangeSetSummary, error) {
	var out []cfntypes.ChangeSetSummary
	pages := cfnsdk.NewListChangeSetsPaginator(v.p.stacks, &cfnsdk.ListChangeSetsInput{StackName: aws.String(v.in.StackName)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if awserr.StackNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, awserr.Fault(ctx, err, v.op+": list its change sets")
		}
		out = append(out, page.Summaries...)
	}
	return out, nil
}

// previewsOnly reports whether a stack without resources is there for previews
// only: every change set says so, or none is left and the stack itself names
// one as what it was made for.
func previewsOnly(sets []cfntypes.ChangeSetSummary, live *cfntypes.Stack) bool {
	if len(sets) == 0 {
		return strings.Contains(aws.ToString(live.ChangeSetId), ":changeSet/"+previewPrefix)
	}
	return !slices.ContainsFunc(sets, func(s cfntypes.ChangeSetSummary) bool {
		return !strings.HasPrefix(aws.ToString(s.ChangeSetName), previewPrefix) || !strings.HasSuffix(aws.ToString(s.Description), previewMark)
	})
}

// sweepPreviews removes what killed processes have left: of our own name, and
// of any that is too old to be at work.
func (v *preview) sweepPreviews(ctx context.Context) error {
	sets, err := v.list(ctx)
	if err != nil {
		return err
	}
	for _, set := range sets {
		name := aws.ToString(set.ChangeSetName)
		old := strings.HasPrefix(name, previewPrefix) && time.Since(aws.ToTime(set.CreationTime)) > previewAge
		if name != v.name && !old {
			continue
		}
		v.note("removing change set %s, which an earlier preview left", name)
		if err := v.remove(ctx, name, strings.HasSuffix(aws.ToString(set.Description), previewMark)); err != nil {
			return err
		}
	}
	if len(sets) > 0 {
		return nil
	}
	live, err := v.d.describe(ctx, v.in.StackName, v.op)
	if err != nil || live == nil || !Status(live.StackStatus).Reviewing() || !previewsOnly(nil, live) {
		return err
	}
	v.note("removing the stack, which an earlier preview left without a change set")
	return v.removeStack(ctx, live)
}

// cleanUp removes what this preview made, also after the end of ctx.
func (v *preview) cleanUp(ctx context.Context) error {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), removalLimit)
	defer cancel()
	if err := v.remove(limited, v.name, v.mark); err != nil {
		return fault.Newf(fault.System, fault.ChangeSetFailed, v.op,
			"Run the preview again: it removes what is left over; or delete the change set yourself, and the stack if it is in REVIEW_IN_PROGRESS",
			"change set %s could not be removed: %w", v.name, err)
	}
	return nil
}

// remove removes a change set of ours and, if the stack was made for it, is
// still without resources and has no other, the stack.
//
// CloudFormation has no way to delete a stack on condition: another change set
// that is made and executed between the look and the deletion is lost.
func (v *preview) remove(ctx context.Context, name string, mark bool) error {
	if err := v.awaitWorkedOut(ctx, name); err != nil {
		return err
	}
	if !mark {
		return v.removeSet(ctx, name)
	}
	live, err := v.reviewed(ctx)
	if err != nil {
		return err
	}
	sets, err := v.list(ctx)
	if err != nil {
		return err
	}
	alone := !slices.ContainsFunc(sets, func(s cfntypes.ChangeSetSummary) bool { return aws.ToString(s.ChangeSetName) != name })
	if live != nil && alone && !v.nests() {
		// At once, so that nothing without a change set is left in between.
		return v.removeStack(ctx, live)
	}
	// Change sets of nested stacks, and stacks made for them, go with the
	// root's, but not with its stack.
	if err := v.removeSet(ctx, name); err != nil {
		return err
	}
	if sets, err = v.list(ctx); err != nil || len(sets) > 0 {
		return err
	}
	if live, err = v.reviewed(ctx); err != nil || live == nil {
		return err
	}
	return v.removeStack(ctx, live)
}

// reviewed returns the stack if it is still without resources; nil otherwise.
func (v *preview) reviewed(ctx context.Context) (*cfntypes.Stack, error) {
	live, err := v.d.describe(ctx, v.in.StackName, v.op)
	if err != nil || live == nil || !Status(live.StackStatus).Reviewing() {
		return nil, err
	}
	return live, nil
}

// nests reports whether the template has nested stacks.
func (v *preview) nests() bool {
	resources, _ := v.template.document["Resources"].(map[string]any)
	for _, resource := range resources {
		if object, ok := resource.(map[string]any); ok && object["Type"] == stackType {
			return true
		}
	}
	return false
}

// awaitWorkedOut waits until a change set is no longer being made: until then
// CloudFormation does not delete it.
func (v *preview) awaitWorkedOut(ctx context.Context, name string) error {
	for pause := v.d.cfg.Limits.pause(); ; {
		set, err := v.describeChangeSet(ctx, v.in.StackName, name)
		if err != nil || set == nil || !set.pending() {
			return err
		}
		if !pause.wait(ctx) {
			return ended(ctx, v.op, "")
		}
	}
}

// removeSet deletes a change set, again as long as there is one of the name: a
// request whose answer was lost may have made a second one.
func (v *preview) removeSet(ctx context.Context, name string) error {
	in := &cfnsdk.DeleteChangeSetInput{ChangeSetName: aws.String(name), StackName: aws.String(v.in.StackName)}
	for pause := v.d.cfg.Limits.pause(); ; {
		_, err := v.d.changeSets.DeleteChangeSet(ctx, in)
		if err != nil && !awserr.ChangeSetNotFound(err) {
			return awserr.Fault(ctx, err, v.op+": delete change set "+name)
		}
		set, err := v.describeChangeSet(ctx, v.in.StackName, name)
		if err != nil || set == nil {
			return err
		}
		if !pause.wait(ctx) {
			return ended(ctx, v.op, "")
		}
	}
}

// removeStack deletes a stack without resources, by ARN, and waits until it is
// gone.
func (v *preview) removeStack(ctx context.Context, live *cfntypes.Stack) error {
	if _, err := v.d.stacks.DeleteStack(ctx, &cfnsdk.DeleteStackInput{StackName: live.StackId}); err != nil && !awserr.StackNotFound(err) {
		return awserr.Fault(ctx, err, v.op+": delete the stack that was made for the preview")
	}
	for pause := v.d.cfg.Limits.pause(); ; {
		left, err := v.d.describe(ctx, aws.ToString(live.StackId), v.op)
		if err != nil || left == nil {
			return err
		}
		if !pause.wait(ctx) {
			return ended(ctx, v.op, Status(left.StackStatus))
		}
	}
}
