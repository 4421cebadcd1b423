package cfn

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// maxReason bounds a reason in a message, in bytes. The events have it whole.
const maxReason = 1000

// cancellation matches the reason of an event that another's failure caused.
func cancellation() *regexp.Regexp {
	return regexp.MustCompile(`(?i)^resource \w+ cancell?ed`)
}

// signedURL returns reason without the queries of URLs: signed ones let
// whoever reads them in, such as the address that a custom resource answers to.
func signedURL(reason string) string {
	return regexp.MustCompile(`(https?://[^\s?"'<>]+)\?[^\s"'<>)]+`).ReplaceAllString(reason, "$1?…")
}

// brief is a reason for people: in one line, without what only machines read.
func brief(reason string) string {
	reason = regexp.MustCompile(`\s*Encoded authorization failure message: \S+`).ReplaceAllString(reason, "")
	reason = strings.Join(strings.Fields(reason), " ")
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "…"
	}
	return orNone(reason)
}

// denied is what a role may not do. What a reason does not say is empty.
type denied struct {
	who, action, resource string
	// explicit says that something forbids it, in the kind of policy by; else
	// nothing in the kind of policy by allows it.
	explicit bool
	by       string
}

// String names the action, and on what if that is known.
func (d denied) String() string {
	if d.resource == "" {
		return d.action
	}
	return d.action + " on " + d.resource
}

// deniedIn finds the action that IAM refused in a reason, such as "User:
// arn:… is not authorized to perform: s3:CreateBucket on resource: arn:… with
// an explicit deny in a service control policy", or what older resources say:
// "API: s3:CreateBucket Access Denied".
func deniedIn(reason string) (denied, bool) {
	m := regexp.MustCompile(`(?:User: (\S+) )?is not authorized to perform: ([\w-]+:\w+)(?: on resource: "?((?:role|user|group|policy) [^\s"()]+|[^\s"()]+))?(.*)`).FindStringSubmatch(reason)
	if m == nil {
		if m = regexp.MustCompile(`^API: ([\w-]+:\w+) (?:Access Denied|You are not authorized to perform this operation)`).FindStringSubmatch(reason); m == nil {
			return denied{}, false
		}
		return denied{action: m[1]}, true
	}
	d := denied{who: m[1], action: m[2], resource: strings.TrimRight(m[3], ".,;"), explicit: strings.Contains(m[4], "with an explicit deny")}
	if by := regexp.MustCompile(`(?:with an explicit deny in|because no) ((?:an? )?[\w -]*?(?:policy|boundary))`).FindStringSubmatch(m[4]); by != nil {
		d.by = by[1]
	}
	return d, true
}

// remedy says what to do: to give the permission, or to lift what forbids it.
func (d denied) remedy() string {
	role := cmp.Or(d.who, "the role that CloudFormation deploys with")
	switch {
	case d.explicit && d.by != "":
		return fmt.Sprintf("Lift the explicit deny in %s that keeps %s from doing %s", d.by, role, d)
	case d.explicit:
		return fmt.Sprintf("Lift the explicit deny that keeps %s from doing %s", role, d)
	case d.by != "" && d.by != "identity-based policy": // that one alone is the role's own
		return fmt.Sprintf("Allow %s to do %s in the %s", role, d, d.by)
	default:
		return fmt.Sprintf("Allow %s to do %s", role, d)
	}
}

// readTheLog is what to do about a custom resource that says no more.
const readTheLog = "Read the log of the function behind the custom resource, mend it"

// remedies are patterns of reasons with what to do about them, the first that
// fits. A remedy has the groups of its pattern.
func remedies() [][2]string {
	const signals = "Read the logs of the instances that should signal success, mend what keeps them from it"
	return [][2]string{
		{`(?i)^(?:delete canceled\. )?(?:cannot delete )?export (\S+) (?:cannot be (?:deleted|updated) )?as it is in use by ([\w, -]*\w)`, "Deploy $2 without the import of $1 first, or keep the export"},
		{`^No export named '?([^\s']+)'? found`, "Deploy the stack that exports $1 first"},
		{`^Parameters: \[([\w, ]+)\] must have values`, "Give template parameters $1 a default in the app"},
		{`already exists in stack arn:[\w-]+:cloudformation:[^:]*:[^:]*:stack/([\w-]+)`, "Give the resource another name, or take it out of stack $1"},
		{`HandlerErrorCode: AlreadyExists|AlreadyExistsException|EntityAlreadyExists|already exists`, "Give the resource another name, or import or remove the one that has it"},
		{`CloudWatch Log Stream: ([\w/.$\[\]-]+)`, "Read what the function of the custom resource wrote to log stream $1, mend it"},
		{`Logs: (/aws/lambda/[\w-]+)`, "Read what the function of the custom resource wrote to log group $1, mend it"},
		{`check your logs for requestId \[([\w-]+)\]`, "Look for request $1 in the log of the function behind the custom resource, mend it"},
		{`(?i)custom resource`, readTheLog},
		{`^WaitCondition timed out`, "Find out why what should signal the wait condition did not, or raise its timeout"},
		{`^WaitCondition received failed message|^Unparsable WaitCondition data`, "Mend what signals the wait condition"},
		{`^Received (?:\d+ )?(?:FAILURE|SUCCESS) signal|^Failed to receive \d+ resource signal`, signals},
		{`HandlerErrorCode: (?:AccessDenied|UnauthorizedTaggingOperation)|You are not authorized to perform this operation`, "Find out which permission the role that CloudFormation deploys with lacks, or which setting of the account forbids it"},
	}
}

// remedyFor says what to do about a reason; empty if there is nothing more to
// say than to mend it.
func remedyFor(reason string) string {
	if d, ok := deniedIn(reason); ok {
		return d.remedy()
	}
	for _, known := range remedies() {
		pattern := regexp.MustCompile(known[0])
		if m := pattern.FindStringSubmatchIndex(reason); m != nil {
			return string(pattern.ExpandString(nil, known[1], reason, m))
		}
	}
	return ""
}

// refusalOf is the fault for a change set that CloudFormation does not take or
// cannot work out, for what it says about that.
func (o *operation) refusalOf(said string, err error) error {
	remedy := remedyFor(said)
	if remedy != "" {
		remedy += ", then push again"
	}
	return fault.Newf(fault.User, fault.ChangeSetFailed, o.op, remedy, "CloudFormation refuses the change set: %w", err)
}

// remedy says what to do about a failing resource; empty as in remedyFor.
func (e Event) remedy() string {
	custom := strings.HasPrefix(e.Type, "Custom::") || e.Type == "AWS::CloudFormation::CustomResource"
	if remedy := remedyFor(e.Reason); remedy != "" || !custom {
		return remedy
	}
	return readTheLog
}

func orNone(reason string) string {
	if reason == "" {
		return "no reason given"
	}
	return reason
}
