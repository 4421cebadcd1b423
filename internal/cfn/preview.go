package cfn

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

const (
	// previewPrefix begins the name of every change set that is made for a
	// look only. None of them is ever executed.
	previewPrefix = "aphex-diff-"
	// previewMark ends the description of a change set that a stack was made
	// for: the stack goes with the last of them.
	previewMark = " (the stack is there for previews only)"
	// previewLimit bounds the time that CloudFormation has for one change set.
	previewLimit = 15 * time.Minute
	// previewAge is the age at which a preview of somebody else was left over
	// for certain.
	previewAge = 4 * previewLimit
	// removalLimit bounds the removal of a preview, also of one that was
	// interrupted.
	removalLimit = 2 * time.Minute
)

// PreviewStatus is how a preview ended.
type PreviewStatus string

// The ends.
const (
	// PreviewCreated is a change set with changes.
	PreviewCreated PreviewStatus = "created"
	// PreviewEmpty is one without.
	PreviewEmpty PreviewStatus = "empty"
	// PreviewFailed is one that CloudFormation refuses.
	PreviewFailed PreviewStatus = "failed"
	// PreviewNotMade is none, because the stack takes none as it is.
	PreviewNotMade PreviewStatus = "not made"
)

// Preview is what CloudFormation says about a deployment.
type Preview struct {
	Status PreviewStatus
	// Reason says why there are no changes; empty for PreviewCreated.
	Reason  string
	Changes []PreviewChange
}

// PreviewChange is what happens to one resource.
type PreviewChange struct {
	// LogicalID is below the ids of nested stacks, separated by "/".
	LogicalID, PhysicalID, Type string
	// Action, Replacement and PolicyAction are CloudFormation's own words; the
	// latter two may be empty.
	Action, Replacement, PolicyAction string
	Scope                             []string
	Details                           []PreviewDetail
}

// PreviewDetail is one attribute that changes, in CloudFormation's own words.
type PreviewDetail struct {
	Attribute, Path, RequiresRecreation string
	Evaluation, Source, Cause           string
	Before, After                       string
}

// preview is one call of Preview.
type preview struct {
	*operation

	p    *Previewer
	name string
	// mark is set if the stack is there for previews only.
	mark bool
	// nonce tells this change set from one of the same name.
	nonce string
}

// Preview asks CloudFormation what a deployment would change: it makes a change
// set, reads it and removes it, and a stack that was made for it. Nothing is
// executed. What a killed process of the same in.Execution left, and previews
// of anybody that are an hour old, are removed first. Two calls with the same
// in.Execution and stack must not run at once.
//
// What it made is removed also when ctx ends; that may take two minutes.
//
// Errors: AssemblyInvalid, ChangeSetFailed for one that cannot be removed, with
// its name; AWSRejected, AWSUnavailable, Cancelled.
func (p *Previewer) Preview(ctx context.Context, in Input) (found Preview, err error) {
	v := &preview{
		p: p, name: previewPrefix + digestOf(in.Execution)[:16], nonce: rand.Text(),
		operation: &operation{
			d: p.d, in: in, id: newIdentity(in.Execution, p.d.cfg.Account, p.d.region, in.StackName),
			op: fmt.Sprintf("preview stack %s (%s)", in.StackName, p.d.region),
		},
	}
	if v.template, err = parseTemplate(in.Template); err != nil {
		return Preview{}, fault.Wrap(fault.User, fault.AssemblyInvalid, v.op, "", err)
	}
	if err := v.sweepPreviews(ctx); err != nil {
		return Preview{}, err
	}
	live, err := p.d.describe(ctx, in.StackName, v.op)
	if err != nil {
		return Preview{}, err
	}
	if reason := v.unfit(live); reason != "" {
		return Preview{Status: PreviewNotMade, Reason: reason}, nil
	}
	request, err := v.request(ctx, live)
	if err != nil || request == nil {
		return Preview{Status: PreviewFailed, Reason: "a template parameter has no value and no default"}, err
	}
	defer func() {
		if e := v.cleanUp(ctx); e != nil && err == nil {
			found, err = Preview{}, e
		}
	}()
	limited, cancel := context.WithTimeoutCause(ctx, previewLimit, fault.Newf(fault.Transient, fault.ChangeSetFailed, v.op, "Try again later",
		"CloudFormation has not worked out the change set within %s", previewLimit))
	defer cancel()
	return v.ask(limited, request)
}

// unfit says why a stack takes no change set as it is; empty if it does.
func (v *preview) unfit(live *cfntypes.Stack) string {
	if v.template.resources == 0 {
		return "the template has no resources"
	}
	if live == nil {
		return ""
	}
	switch status := Status(live.StackStatus); {
	case status.Unusable():
		return fmt.Sprintf("the stack is %s: a deployment deletes it and makes it anew", status)
	case status.Paused():
		return fmt.Sprintf("the stack is %s and takes no change set", status)
	case status.InProgress():
		return fmt.Sprintf("the stack is %s: an operation is under way", status)
	}
	return ""
}

// request is what a deployment would send, under another name; nil if a
// parameter has no value.
func (v *preview) request(ctx context.Context, live *cfntypes.Stack) (*cfnsdk.CreateChangeSetInput, error) {
	fresh := live == nil || Status(live.StackStatus).Reviewing()
	var current []cfntypes.Parameter
	if !fresh {
		current = live.Parameters
	}
	values := resolveParameters(v.template.declared, v.in.Parameters, current)
	if len(values.missing) > 0 {
		return nil, nil //nolint:nilnil // nothing can be asked
	}
	request, err := v.createInput(live, values)
	if err != nil {
		return nil, err
	}
	v.mark = live == nil
	if live != nil && fresh {
		others, err := v.list(ctx)
		if err != nil {
			return nil, err
		}
		v.mark = previewsOnly(others, live)
	}
	request.ChangeSetName = aws.String(v.name)
	request.ClientToken = aws.String("aphex-diff-" + v.nonce)
	request.Description = aws.String(v.description())
	return request, nil
}

func (v *preview) description() string {
	text := "aphex diff " + v.nonce
	if v.mark {
		text += previewMark
	}
	return text
}

// ask makes the change set and reads it.
func (v *preview) ask(ctx context.Context, request *cfnsdk.CreateChangeSetInput) (Preview, error) {
	// A request that is under way when ctx ends is not given up: it would take
	// effect behind the back of the removal.
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), removalLimit)
	defer cancel()
	_, err := v.d.changeSets.CreateChangeSet(whole, request)
	switch {
	case err == nil, awserr.AlreadyExists(err): // ours, whose answer was lost: told by its description
	case refusedChangeSet(err):
		return Preview{Status: PreviewFailed, Reason: awserr.Brief(err).Error()}, nil
	default:
		return Preview{}, awserr.Fault(ctx, err, v.op+": create a change set")
	}
	set, err := v.await(ctx)
	if err != nil {
		return Preview{}, err
	}
	if set.status == cfntypes.ChangeSetStatusFailed {
		if awserr.NoChanges(set.reason) {
			return Preview{Status: PreviewEmpty, Reason: "there is nothing to change"}, nil
		}
		return Preview{Status: PreviewFailed, Reason: v.diagnose(ctx, set)}, nil
	}
	changes, err := v.changes(ctx, set.arn, "")
	return Preview{Status: PreviewCreated, Changes: changes}, err
}

// await returns the change set once it is worked out.
func (v *preview) await(ctx context.Context) (*changeSet, error) {
	began := time.Now()
	for pause := v.d.cfg.Limits.pause(); ; {
		set, err := v.describeChangeSet(ctx, v.in.StackName, v.name)
		switch {
		case err != nil:
			return nil, err
		case set == nil && time.Since(began) > lag, set != nil && set.description != v.description():
			return nil, fault.Newf(fault.Transient, fault.ChangeSetFailed, v.op, "Let one preview run at a time, or give each its own --owner",
				"change set %s was removed or made anew by somebody else", v.name)
		case set != nil && !set.pending():
			return set, nil
		}
		if !pause.wait(ctx) {
			return nil, ended(ctx, v.op, "")
		}
	}
}

// changes reads what a change set and those of nested stacks say.
func (v *preview) changes(ctx context.Context, arn, within string) ([]PreviewChange, error) {
	var out []PreviewChange
	in := &cfnsdk.DescribeChangeSetInput{ChangeSetName: aws.String(arn), IncludePropertyValues: aws.Bool(true)}
	for {
		page, err := v.d.changeSets.DescribeChangeSet(ctx, in)
		if err != nil {
			return nil, awserr.Fault(ctx, err, v.op+": read change set "+arn)
		}
		for _, c := range page.Changes {
			if c.ResourceChange == nil {
				continue
			}
			change := previewChange(c.ResourceChange, within)
			out = append(out, change)
			nested := aws.ToString(c.ResourceChange.ChangeSetId)
			if nested == "" || strings.Count(within, "/") >= maxDescent {
				continue
			}
			inner, err := v.changes(ctx, nested, change.LogicalID+"/")
			if err != nil {
				return nil, err
			}
			out = append(out, inner...)
		}
		if aws.ToString(page.NextToken) == "" {
			return out, nil
		}
		in.NextToken = page.NextToken
	}
}

func previewChange(c *cfntypes.ResourceChange, within string) PreviewChange {
	out := PreviewChange{
		LogicalID: within + aws.ToString(c.LogicalResourceId), PhysicalID: aws.ToString(c.PhysicalResourceId), Type: aws.ToString(c.ResourceType),
		Action: string(c.Action), Replacement: string(c.Replacement), PolicyAction: string(c.PolicyAction),
	}
	for _, scope := range c.Scope {
		out.Scope = append(out.Scope, string(scope))
	}
	for _, d := range c.Details {
		detail := PreviewDetail{Evaluation: string(d.Evaluation), Source: string(d.ChangeSource), Cause: aws.ToString(d.CausingEntity)}
		if target := d.Target; target != nil {
			detail.Attribute, detail.RequiresRecreation = string(target.Attribute), string(target.RequiresRecreation)
			detail.Before, detail.After = aws.ToString(target.BeforeValue), aws.ToString(target.AfterValue)
			if detail.Path = aws.ToString(target.Path); detail.Path == "" {
				detail.Path = aws.ToString(target.Name)
			}
		}
		out.Details = append(out.Details, detail)
	}
	return out
}
