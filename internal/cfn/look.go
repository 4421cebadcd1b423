package cfn

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// previewAPI is what previews ask of CloudFormation beyond what deployments
// ask.
type previewAPI interface {
	ListStackResources(ctx context.Context, in *cfnsdk.ListStackResourcesInput, opts ...func(*cfnsdk.Options)) (*cfnsdk.ListStackResourcesOutput, error)
	ListChangeSets(ctx context.Context, in *cfnsdk.ListChangeSetsInput, opts ...func(*cfnsdk.Options)) (*cfnsdk.ListChangeSetsOutput, error)
}

var _ previewAPI = (*cfnsdk.Client)(nil)

// Previewer tells what a deployment would change. It is safe for concurrent
// use with different stacks.
type Previewer struct {
	d      *Deployer
	stacks previewAPI
}

// NewPreviewer returns a Previewer. It needs no Config.Journal and sends no
// events.
func NewPreviewer(cfg Config) *Previewer {
	d := New(cfg)
	return &Previewer{d: d, stacks: d.cfg.client()}
}

// Live is a stack as CloudFormation has it.
type Live struct {
	ARN    string
	Status Status
	// Template is as it was given: JSON or YAML. It is nil for a stack that
	// consists of change sets only.
	Template []byte
	// Parameters are the values the stack has: for a parameter that names an
	// SSM parameter, that name. Those of NoEcho are asterisks.
	Parameters            map[string]string
	Tags                  map[string]string
	NotificationARNs      []string
	TerminationProtection bool
}

// Look reads a stack, by name or ARN; nil if there is none. It writes nothing.
//
// Errors: AWSRejected, AWSUnavailable, CredentialsMissing, Cancelled.
func (p *Previewer) Look(ctx context.Context, ref string) (*Live, error) {
	op := fmt.Sprintf("look at stack %s (%s)", ref, p.d.region)
	stack, err := p.d.describe(ctx, ref, op)
	if err != nil || stack == nil {
		return nil, err
	}
	live := &Live{
		ARN: aws.ToString(stack.StackId), Status: Status(stack.StackStatus), NotificationARNs: stack.NotificationARNs,
		TerminationProtection: aws.ToBool(stack.EnableTerminationProtection), Parameters: map[string]string{}, Tags: map[string]string{},
	}
	for _, parameter := range stack.Parameters {
		live.Parameters[aws.ToString(parameter.ParameterKey)] = aws.ToString(parameter.ParameterValue)
	}
	for _, tag := range stack.Tags {
		live.Tags[aws.ToString(tag.Key)] = aws.ToString(tag.Value)
	}
	if live.Status.Reviewing() {
		return live, nil
	}
	out, err := p.d.stacks.GetTemplate(ctx, &cfnsdk.GetTemplateInput{StackName: stack.StackId, TemplateStage: cfntypes.TemplateStageOriginal})
	if err != nil {
		return nil, awserr.Fault(ctx, err, op+": read the live template")
	}
	live.Template = []byte(aws.ToString(out.TemplateBody))
	return live, nil
}

// NestedStacks returns the ARNs of the stacks nested in a stack, by logical
// id. It writes nothing.
//
// Errors: as Look.
func (p *Previewer) NestedStacks(ctx context.Context, stackARN string) (map[string]string, error) {
	found := map[string]string{}
	pages := cfnsdk.NewListStackResourcesPaginator(p.stacks, &cfnsdk.ListStackResourcesInput{StackName: aws.String(stackARN)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, awserr.Fault(ctx, err, "list the resources of stack "+stackARN)
		}
		for _, r := range page.StackResourceSummaries {
			if aws.ToString(r.ResourceType) == stackType && aws.ToString(r.PhysicalResourceId) != "" {
				found[aws.ToString(r.LogicalResourceId)] = aws.ToString(r.PhysicalResourceId)
			}
		}
	}
	return found, nil
}

// ParseTemplate reads a template, JSON or YAML; numbers are json.Number.
//
// Errors: AssemblyInvalid.
func ParseTemplate(data []byte) (map[string]any, error) {
	document, err := parseDocument(data)
	return document, fault.Wrap(fault.User, fault.AssemblyInvalid, "parse the template", "", err)
}

// SameText reports whether a live text may be ours although it differs:
// GetTemplate returns "?" for every character beyond ASCII.
func SameText(ours, live string) bool { return likeText(ours, live) }
