package diff

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// shownValue is how many characters of a value are shown to people; JSON has
// all of them.
const shownValue = 120

// lead is how much of what two long values have in common at their beginning is
// shown before their difference.
const lead = 20

// clean makes one line of others' words, without what moves a terminal or
// turns the direction of writing.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case !unicode.IsPrint(r):
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
}

func cut(text string) string {
	if runes := []rune(text); len(runes) > shownValue {
		return string(runes[:shownValue]) + "…"
	}
	return text
}

// values are the two sides of a detail, as they are shown.
func (d Detail) values() (old, now string) {
	old, now = clean(string(d.Old)), clean(string(d.New))
	if d.Old != nil && d.New != nil && utf8.RuneCountInString(old)+utf8.RuneCountInString(now) > shownValue {
		common := 0
		for common < min(len(old), len(now)) && old[common] == now[common] {
			common++
		}
		for common > 0 && !utf8.RuneStart(old[min(common, len(old)-1)]) {
			common--
		}
		if skip := []rune(old[:common]); len(skip) > lead {
			rest := string(skip[len(skip)-lead:])
			old, now = "…"+rest+old[common:], "…"+rest+now[common:]
		}
	}
	return cut(old), cut(now)
}

// text is a detail in one line.
func (d Detail) text() string {
	old, now := d.values()
	line := clean(d.Path)
	if line != "" {
		line += ": "
	}
	switch {
	case d.Old == nil:
		line += "+ " + now
	case d.New == nil:
		line += "- " + old
	default:
		line += old + " → " + now
	}
	if d.Hidden {
		line += " (secrets are not shown)"
	}
	return line
}

// sign is the mark of an action.
func sign(a Action) string {
	switch a {
	case Add:
		return "+"
	case Remove:
		return "-"
	case Modify:
	}
	return "~"
}

// fate is what becomes of a resource, as far as it is known.
func (c Change) fate() string {
	switch {
	case c.Kind != Resource:
		return ""
	case c.Action == Remove && (c.DeletionPolicy == "Retain" || c.DeletionPolicy == "RetainExceptOnCreate"):
		return "kept, no longer managed (" + c.DeletionPolicy + ")"
	case c.Action == Remove && c.DeletionPolicy == "Snapshot":
		return "deleted after a snapshot"
	case c.Action == Remove && c.CloudFormation != nil && c.CloudFormation.PolicyAction == "Retain":
		return "kept, no longer managed"
	case c.Replacement == Replaced:
		return "REPLACED"
	case c.Replacement == MaybeReplace:
		return "may be replaced"
	case c.Replacement == Kept && c.CloudFormation == nil:
		return "not in the change set"
	}
	return ""
}

// title is what a change is about, in one line.
func (c Change) title() string {
	name := clean(c.ID)
	if c.ConstructPath != "" {
		name += " (" + clean(c.ConstructPath) + ")"
	}
	return name
}

// whole reports whether the one detail of a change is the whole entry, which is
// not shown for resources: it says no more than the title.
func (c Change) whole() bool {
	return c.Kind == Resource && c.Action != Modify
}

// lines are the details of a change and its note, one per line.
func (c Change) lines() []string {
	var out []string
	if !c.whole() {
		for _, d := range c.Details {
			out = append(out, d.text())
		}
	}
	if c.CloudFormation != nil && c.Action == Modify {
		for _, d := range c.CloudFormation.Details {
			if line := d.text(); line != "" {
				out = append(out, line)
			}
		}
	}
	if c.Note != "" {
		out = append(out, clean(c.Note))
	}
	return out
}

// text is what CloudFormation says about an attribute beyond what the template
// shows; empty if that is nothing.
func (d ResourceDetail) text() string {
	var words []string
	if d.RequiresRecreation == "Always" || d.RequiresRecreation == "Conditionally" {
		words = append(words, "requires replacement "+strings.ToLower(d.RequiresRecreation))
	}
	if d.Evaluation == "Dynamic" && d.Cause != "" {
		words = append(words, "because of "+clean(d.Cause))
	}
	if len(words) == 0 {
		return ""
	}
	name := clean(d.Attribute)
	if d.Path != "" {
		name = clean(strings.ReplaceAll(strings.TrimPrefix(d.Path, "/"), "/", "."))
	}
	line := "CloudFormation: " + name + " " + strings.Join(words, ", ")
	if d.Before != "" || d.After != "" {
		line += ": " + cut(clean(d.Before)) + " → " + cut(clean(d.After))
	}
	return line
}

// text is one security entry in one line.
func (s Security) text() string {
	value := s.New
	if s.Action == Remove {
		value = s.Old
	}
	switch s.Kind {
	case Statement:
		return statementText(value)
	case Property:
		return Detail{Path: s.Path, Old: s.Old, New: s.New}.text()
	default:
	}
	return strings.ReplaceAll(string(s.Kind), "-", " ") + " " + cut(clean(string(value)))
}

// statementText puts a statement of a policy as people say it.
func statementText(value json.RawMessage) string {
	var statement map[string]any
	if json.Unmarshal(value, &statement) != nil || statement["Effect"] == nil {
		return "statement " + cut(clean(string(value)))
	}
	words := []string{said(statement["Effect"])}
	for _, part := range []struct{ key, words string }{
		{"Action", ""},
		{"NotAction", "all but "},
		{"Resource", "on "},
		{"NotResource", "on all but "},
		{"Principal", "by "},
		{"NotPrincipal", "by all but "},
		{"Condition", "if "},
	} {
		if entry, ok := statement[part.key]; ok {
			words = append(words, part.words+cut(said(entry)))
		}
	}
	return strings.Join(words, " ")
}

// said is a value as people write it: texts without quotes, lists with commas.
func said(value any) string {
	switch v := value.(type) {
	case string:
		return clean(v)
	case []any:
		words := make([]string, 0, len(v))
		for _, entry := range v {
			words = append(words, said(entry))
		}
		return strings.Join(words, ", ")
	}
	return clean(encodeText(value))
}

// count is how many entries change how.
func (s Stack) count() string {
	var added, changed, removed, replaced, maybe int
	for _, c := range s.Changes {
		switch c.Action {
		case Add:
			added++
		case Modify:
			changed++
		case Remove:
			removed++
		}
		switch c.Replacement {
		case Replaced:
			replaced++
		case MaybeReplace:
			maybe++
		case Kept:
		}
	}
	text := fmt.Sprintf("%d to add, %d to change, %d to remove", added, changed, removed)
	if replaced > 0 {
		text += fmt.Sprintf("; %d of them REPLACED", replaced)
	}
	if maybe > 0 {
		text += fmt.Sprintf("; %d may be replaced", maybe)
	}
	return text
}

// title names a stack and its place.
func (s Stack) title() string {
	name := clean(s.Name)
	if s.Path != "" && s.Path != s.Name {
		name += " (" + clean(s.Path) + ")"
	}
	return fmt.Sprintf("%s in %s", name, clean(s.Environment))
}

// state is what the stack is at present.
func (s Stack) state() string {
	state := "account " + clean(s.Account) + ", " + clean(s.Region)
	if s.New {
		return state + ", new stack"
	}
	return state + ", " + clean(s.Status)
}

// asked says how asking CloudFormation ended, where that is not plain.
func (s Stack) asked() string {
	if s.ChangeSet == nil {
		return ""
	}
	switch s.ChangeSet.Status {
	case Failed:
		return "CloudFormation refuses the change set: " + clean(s.ChangeSet.Reason)
	case NotMade:
		return "no change set was made: " + clean(s.ChangeSet.Reason)
	case Empty:
		return "CloudFormation has nothing to change"
	case Created:
	}
	return ""
}

// unknownReplacements is the note under changes whose effect is not known.
const unknownReplacements = "whether a changed resource is replaced, only CloudFormation knows: ask it with --change-set"

// leavesOpen reports whether replacements are not known.
func (s Stack) leavesOpen() bool {
	if s.New || s.ChangeSet != nil {
		return false
	}
	for _, c := range s.Changes {
		if c.Kind == Resource && c.Action == Modify {
			return true
		}
	}
	return false
}
