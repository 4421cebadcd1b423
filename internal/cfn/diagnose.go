package cfn

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"

	"github.com/aphex-pipeline/aphex/internal/awserr"
)

// diagnoseAPI is what is asked of CloudFormation about a change set that
// failed.
type diagnoseAPI interface {
	DescribeEvents(ctx context.Context, in *cfnsdk.DescribeEventsInput, opts ...func(*cfnsdk.Options)) (*cfnsdk.DescribeEventsOutput, error)
	ListHookResults(ctx context.Context, in *cfnsdk.ListHookResultsInput, opts ...func(*cfnsdk.Options)) (*cfnsdk.ListHookResultsOutput, error)
	GetHookResult(ctx context.Context, in *cfnsdk.GetHookResultInput, opts ...func(*cfnsdk.Options)) (*cfnsdk.GetHookResultOutput, error)
}

var _ diagnoseAPI = (*cfnsdk.Client)(nil)

const (
	// maxDescent bounds the change sets of nested stacks that are asked.
	maxDescent = 5
	// maxFindings bounds how many findings one message lists.
	maxFindings = 5
	// maxFinding bounds one of them, in bytes.
	maxFinding = 400
)

func changeSetARN() *regexp.Regexp {
	return regexp.MustCompile(`arn:[\w-]+:cloudformation:[^\s:]+:\d+:changeSet/[\w-]+/[\w-]+`)
}

// diagnose returns why a change set failed: for a failure in a nested stack,
// what that one says; what early validation or a hook found, where the reason
// only says that one of them did.
func (o *operation) diagnose(ctx context.Context, set *changeSet) string {
	reason, arn, pattern := set.reason, set.arn, changeSetARN()
	for range maxDescent {
		nested := pattern.FindString(reason)
		if nested == "" || !strings.Contains(strings.ToLower(reason), "nested") {
			break
		}
		inner, err := o.describeChangeSet(ctx, "", nested)
		if err != nil || inner == nil || inner.reason == "" {
			break
		}
		reason, arn = "nested stack "+stackNameOf(inner.stack)+": "+inner.reason, inner.arn
	}
	if findings := o.findings(ctx, arn, reason); len(findings) > 0 {
		return orUnknown(reason) + ": " + strings.Join(findings, "; ")
	}
	return orUnknown(reason)
}

func orUnknown(reason string) string {
	if reason == "" {
		return "it gives no reason"
	}
	return strings.TrimSuffix(reason, ".")
}

// findings are the events and hooks behind a failed change set. Whether they
// can be read depends on the role: without the permission the reason has to
// do.
func (o *operation) findings(ctx context.Context, arn, reason string) []string {
	lower := strings.ToLower(reason)
	if !strings.Contains(lower, "earlyvalidation") && !strings.Contains(lower, "hook") && reason != "" {
		return nil
	}
	findings := o.failedEvents(ctx, &cfnsdk.DescribeEventsInput{ChangeSetName: aws.String(arn)})
	if len(findings) == 0 {
		findings = o.hooks(ctx, arn)
	}
	return atMost(findings)
}

// failedEvents are what the failed events of a change set or a stack find.
func (o *operation) failedEvents(ctx context.Context, in *cfnsdk.DescribeEventsInput) []string {
	in.Filters = &cfntypes.EventFilter{FailedEvents: aws.Bool(true)}
	out, err := o.d.diagnosis.DescribeEvents(ctx, in)
	if err != nil {
		o.note("the events of the operation cannot be read: %v", awserr.Brief(err))
		return nil
	}
	var findings []string
	for i := range out.OperationEvents {
		if e := &out.OperationEvents[i]; o.concerns(e) {
			findings = append(findings, o.finding(e)...)
		}
	}
	return findings
}

// concerns reports whether an event is of our operation, as far as it says:
// those of a stack go back to earlier ones.
func (o *operation) concerns(e *cfntypes.OperationEvent) bool {
	token := aws.ToString(e.ClientRequestToken)
	return token == "" || token == o.id.token("execute", o.state.Generation)
}

func atMost(findings []string) []string {
	if more := len(findings) - maxFindings; more > 0 {
		return append(findings[:maxFindings], fmt.Sprintf("and %d more", more))
	}
	return findings
}

// validation is what CloudFormation found before it touched a resource; empty
// unless text, which is all that the stack says, refers to it.
func (o *operation) validation(ctx context.Context, text, stackARN string) string {
	if !strings.Contains(text, "DescribeEvents") {
		return ""
	}
	return strings.Join(atMost(o.failedEvents(ctx, &cfnsdk.DescribeEventsInput{StackName: aws.String(stackARN)})), "; ")
}

// finding says what one failed event is about; nothing if it does not say.
func (o *operation) finding(e *cfntypes.OperationEvent) []string {
	text, where := aws.ToString(e.ResourceStatusReason), ""
	switch {
	case e.EventType == cfntypes.EventTypeValidationError:
		text, where = aws.ToString(e.ValidationStatusReason), aws.ToString(e.ValidationPath)
	case e.HookStatusReason != nil:
		text = "hook " + aws.ToString(e.HookType) + ": " + *e.HookStatusReason
	}
	if text == "" || e.LogicalResourceId == nil {
		return nil
	}
	named := Event{LogicalID: *e.LogicalResourceId}
	if path := o.in.ConstructPath; path != nil {
		named.Path = path(named.LogicalID)
	}
	text = fmt.Sprintf("resource %s (%s): %s", named.name(), aws.ToString(e.ResourceType), oneLine(text))
	if where != "" {
		text += " (at " + where + ")"
	}
	return []string{text}
}

// hooks says what the hooks that failed the change set found. Those that only
// warn do not fail one.
func (o *operation) hooks(ctx context.Context, arn string) []string {
	out, err := o.d.diagnosis.ListHookResults(ctx, &cfnsdk.ListHookResultsInput{
		TargetType: cfntypes.ListHookResultsTargetTypeChangeSet, TargetId: aws.String(arn),
	})
	if err != nil {
		o.note("the results of hooks cannot be read: %v", awserr.Brief(err))
		return nil
	}
	var findings []string
	for _, hook := range out.HookResults {
		if hook.FailureMode != cfntypes.HookFailureModeFail || hook.Status != cfntypes.HookStatusHookCompleteFailed && hook.Status != cfntypes.HookStatusHookFailed {
			continue
		}
		text := aws.ToString(hook.HookStatusReason)
		if detail := o.hookDetail(ctx, aws.ToString(hook.HookResultId)); detail != "" {
			text = detail
		}
		findings = append(findings, fmt.Sprintf("hook %s failed: %s", aws.ToString(hook.TypeName), orNone(oneLine(text))))
	}
	return findings
}

// hookDetail lists the rules that a hook saw broken; empty if it names none.
func (o *operation) hookDetail(ctx context.Context, id string) string {
	if id == "" {
		return ""
	}
	out, err := o.d.diagnosis.GetHookResult(ctx, &cfnsdk.GetHookResultInput{HookResultId: aws.String(id)})
	if err != nil {
		o.note("result %s of a hook cannot be read: %v", id, awserr.Brief(err))
		return ""
	}
	var rules []string
	for _, a := range out.Annotations {
		if a.Status != cfntypes.AnnotationStatusFailed {
			continue
		}
		rule := aws.ToString(a.AnnotationName) + ": " + aws.ToString(a.StatusMessage)
		if a.RemediationMessage != nil {
			rule += " (" + *a.RemediationMessage + ")"
		}
		rules = append(rules, rule)
	}
	return strings.Join(rules, ", ")
}

// oneLine folds white space and bounds the length.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxFinding {
		text = strings.ToValidUTF8(text[:maxFinding], "") + "…"
	}
	return text
}
