package cfn

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
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
type denied struct{ who, action, resource, by string }

// String names the action, and on what if that is known.
func (d denied) String() string {
	if d.resource == "" {
		return d.action
	}
	return d.action + " on " + d.resource
}

// deniedIn finds the action that IAM refused in a reason, such as "User:
// arn:… is not authorized to perform: s3:CreateBucket on resource: arn:… with
// an explicit deny in a service control policy".
func deniedIn(reason string) (denied, bool) {
	m := regexp.MustCompile(`(?:User: (\S+) )?is not authorized to perform: ([\w-]+:\w+)(?: on resource: "?((?:role|user|group|policy) [^\s"()]+|[^\s"()]+))?(.*)`).FindStringSubmatch(reason)
	if m == nil {
		return denied{}, false
	}
	d := denied{who: m[1], action: m[2], resource: strings.TrimRight(m[3], ".,;")}
	if by := regexp.MustCompile(`with an explicit deny in (an? [\w -]*?(?:policy|boundary))`).FindStringSubmatch(m[4]); by != nil {
		d.by = by[1]
	}
	return d, true
}

// remedy says what to do: to give the permission, or to lift what forbids it.
func (d denied) remedy() string {
	role := cmp.Or(d.who, "the role that CloudFormation deploys with")
	if d.by != "" {
		return fmt.Sprintf("Lift the explicit deny in %s that keeps %s from doing %s", d.by, role, d)
	}
	return fmt.Sprintf("Allow %s to do %s", role, d)
}

// remedyFor says what to do about a reason; empty if there is nothing more to
// say than to mend it.
func remedyFor(reason string) string {
	if d, ok := deniedIn(reason); ok {
		return d.remedy()
	}
	for _, known := range []struct{ pattern, remedy string }{
		{`(?i)^(?:delete canceled\. )?(?:cannot delete )?export (\S+) (?:cannot be (?:deleted|updated) )?as it is in use by ([\w, -]*\w)`, "Deploy $2 without the import of $1 first, or keep the export"},
		{`HandlerErrorCode: AlreadyExists|AlreadyExistsException|EntityAlreadyExists|already exists`, "Give the resource another name, or import or remove the one that has it"},
		{`CloudWatch Log Stream: ([\w/.$\[\]-]+)`, "Read what the function of the custom resource wrote to log stream $1, mend it"},
		{`(?i)custom resource|^CloudFormation did not receive a response`, "Read the log of the function behind the custom resource, mend it"},
		{`^WaitCondition timed out`, "Find out why what should signal the wait condition did not, or raise its timeout"},
	} {
		pattern := regexp.MustCompile(known.pattern)
		if m := pattern.FindStringSubmatchIndex(reason); m != nil {
			return string(pattern.ExpandString(nil, known.remedy, reason, m))
		}
	}
	return ""
}

func orNone(reason string) string {
	if reason == "" {
		return "no reason given"
	}
	return reason
}
