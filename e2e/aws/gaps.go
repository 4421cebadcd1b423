package aws

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// edit changes one function of the installed emulator.
type edit struct {
	file     string // below ministack/services/cloudformation
	function string
	anchor   string // must be in the function exactly once
	before   string // put before the anchor
	instead  string // put in place of the anchor; empty keeps it
	after    string // put after the anchor
}

// addition is Python appended to a file of the emulator.
type addition struct{ file, code string }

// gapEdits make ministack 1.5.33 do what AWS does where deployments depend on
// it and it does not: notification topics of stacks (kept by CreateStack,
// UpdateStack and change sets, and a change by themselves), ChangeSetId,
// ParentId and RootId of DescribeStacks, ListChangeSets by stack ARN and with
// ImportExistingResources, ForceRollback of ContinueUpdateRollback, and topic
// names that SNS would refuse.
func gapEdits() []edit {
	const notificationField = ` "NotificationARNs": _aphex_topics(params),`
	return []edit{
		{file: "handlers.py", function: "_create_stack", anchor: `"Tags": tags,`, after: notificationField},
		{
			file: "handlers.py", function: "_update_stack", anchor: `if _stack_has_no_updates(`,
			instead: `if not _aphex_topics_change(params, stack) and _stack_has_no_updates(`,
		},
		{
			file: "handlers.py", function: "_update_stack", anchor: `stack["_template_body"] = template_body`,
			before: `_aphex_set_topics(stack, _aphex_topics(params)); `,
		},
		{
			file: "handlers.py", function: "_continue_update_rollback", anchor: `unknown = sorted(set(skip) - set(pending))`,
			before: `forced = _p(params, "ForceRollback", "false").lower() == "true"
    if forced and skip:
        return _error("ValidationError", "ForceRollback cannot be combined with ResourcesToSkip")
    if forced:
        skip = [name for name, state in pending.items() if "RevertTo" in state]
    `,
		},
		{
			file: "handlers.py", function: "_describe_stacks", anchor: `f"<Outputs>{outputs_xml}</Outputs>"`,
			before: `f"{_aphex_stack_xml(s)}" `,
		},
		{
			file: "changesets.py", function: "_create_change_set", anchor: `elif changes:`,
			instead: `elif changes or (stack is not None and _aphex_topics_change(params, stack)):`,
		},
		{file: "changesets.py", function: "_create_change_set", anchor: `"OnStackFailure": on_stack_failure,`, after: notificationField},
		{
			file: "changesets.py", function: "_execute_change_set", anchor: `stack["LastUpdatedTime"] = now_iso()`,
			before: `stack["ChangeSetId"] = cs["ChangeSetId"]; _aphex_set_topics(stack, cs.get("NotificationARNs")); `,
		},
		{
			file: "changesets.py", function: "_list_change_sets", anchor: `cs["StackName"] == stack_name`,
			instead: `stack_name in (cs["StackName"], cs["StackId"])`,
		},
		{
			file: "changesets.py", function: "_list_change_sets", anchor: `"</member>"`,
			before: `f"<ImportExistingResources>{'true' if cs.get('ImportExistingResources') else 'false'}</ImportExistingResources>" `,
		},
		{
			file: "provisioners.py", function: "_sns_create", anchor: `arn = f"arn:aws:sns:`,
			before: `_aphex_check_topic(name)
    `,
		},
	}
}

func gapAdditions() []addition {
	const topics = `

def _aphex_topics(params):
    """The topics of a request; None if it says nothing about them."""
    if any(key.startswith("NotificationARNs") for key in params):
        return _extract_string_members(params, "NotificationARNs")
    return None


def _aphex_topics_change(params, stack):
    topics = _aphex_topics(params)
    return topics is not None and topics != (stack.get("NotificationARNs") or [])


def _aphex_set_topics(stack, topics):
    if topics is not None:
        stack["NotificationARNs"] = topics
`
	return []addition{
		{file: "handlers.py", code: topics + `

def _aphex_stack_xml(stack):
    xml = "".join(f"<{field}>{_esc(stack[field])}</{field}>"
                  for field in ("ChangeSetId", "ParentId", "RootId") if stack.get(field))
    arns = "".join(f"<member>{_esc(arn)}</member>" for arn in stack.get("NotificationARNs") or [])
    return f"{xml}<NotificationARNs>{arns}</NotificationARNs>"
`},
		{file: "changesets.py", code: topics},
		{file: "provisioners.py", code: `

def _aphex_check_topic(name):
    import re
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,256}(\.fifo)?", name):
        raise ValueError("Invalid parameter: Topic Name (Service: Sns, Status Code: 400)")
`},
	}
}

// fillGaps applies the edits to the emulator installed in sitePackages and
// returns the files it changed. It stops when a text is not where it was in
// the pinned version.
func fillGaps(sitePackages string) ([]string, error) {
	dir := filepath.Join(sitePackages, "ministack", "services", "cloudformation")
	sources := map[string]string{}
	for _, a := range gapAdditions() {
		data, err := os.ReadFile(filepath.Join(dir, a.file))
		if err != nil {
			return nil, fmt.Errorf("read the emulator: %w", err)
		}
		sources[a.file] = string(data)
	}
	for _, e := range gapEdits() {
		changed, err := e.apply(sources[e.file])
		if err != nil {
			return nil, err
		}
		sources[e.file] = changed
	}
	var files []string
	for _, a := range gapAdditions() {
		path := filepath.Join(dir, a.file)
		if err := os.WriteFile(path, []byte(sources[a.file]+a.code), 0o644); err != nil {
			return nil, fmt.Errorf("write the emulator: %w", err)
		}
		files = append(files, path)
	}
	return files, nil
}

func (e edit) apply(source string) (string, error) {
	start := strings.Index(source, "\ndef "+e.function+"(")
	if start < 0 {
		return "", fmt.Errorf("edit the emulator: %s has no function %s; was the version changed without its edits?", e.file, e.function)
	}
	end := len(source)
	if next := strings.Index(source[start+1:], "\ndef "); next >= 0 {
		end = start + 1 + next
	}
	body := source[start:end]
	if n := strings.Count(body, e.anchor); n != 1 {
		return "", fmt.Errorf("edit the emulator: %s, %s: %q is there %d times, not once", e.file, e.function, e.anchor, n)
	}
	middle := e.anchor
	if e.instead != "" {
		middle = e.instead
	}
	return source[:start] + strings.Replace(body, e.anchor, e.before+middle+e.after, 1) + source[end:], nil
}
