package diff

import (
	"slices"
	"strings"
)

// ResourceInput is what a change set says about one resource.
type ResourceInput struct {
	ResourceChange

	// ID is the logical id, below those of nested stacks.
	ID string
	// Type is the resource's type.
	Type string
}

// AddChangeSet returns the stack with what a change set says: whether resources are replaced,
// and resources that change although their part of the template does not.
// Values that the templates say are secrets are hidden. old and now are the
// templates of the stack itself.
func (s Stack) AddChangeSet(set ChangeSet, resources []ResourceInput, old, now map[string]any) Stack {
	s.ChangeSet, s.Changes = &set, slices.Clone(s.Changes)
	if set.Status != Created && set.Status != Empty {
		return s
	}
	known := map[string]int{}
	for i, change := range s.Changes {
		if change.Kind == Resource {
			known[change.ID] = i
			if change.Action == Modify && set.Status == Created && !strings.Contains(change.ID, "/") {
				s.Changes[i].Replacement = Kept
			}
		}
	}
	for _, r := range resources {
		i, ok := known[r.ID]
		if !ok {
			i = len(s.Changes)
			s.Changes = append(s.Changes, Change{
				Kind: Resource, Action: actionOf(r.Action), ID: r.ID, Type: r.Type, ConstructPath: constructPathOf(r.ID, now),
				Note: "its part of the template is as it was: it changes with what it refers to",
			})
			known[r.ID] = i
		}
		said := r.ResourceChange
		said.Details = hideDetails(r, old, now)
		s.Changes[i].CloudFormation = &said
		if s.Changes[i].Action == Modify {
			s.Changes[i].Replacement = replacementOf(r.Replacement)
		}
	}
	sortChanges(s.Changes)
	return s
}

// actionOf translates an action of CloudFormation.
func actionOf(action string) Action {
	switch action {
	case "Add", "Import":
		return Add
	case "Remove":
		return Remove
	}
	return Modify
}

func replacementOf(said string) Replacement {
	switch said {
	case "True":
		return Replaced
	case "Conditional":
		return MaybeReplace
	}
	return Kept
}

func constructPathOf(id string, template map[string]any) string {
	resource, _ := entries(template, "Resources")[id].(map[string]any)
	metadata, _ := resource["Metadata"].(map[string]any)
	return text(metadata["aws:cdk:path"])
}

// hideDetails hides values of properties that hold or refer to secrets, and
// those in nested stacks, whose parameters are not known here.
func hideDetails(r ResourceInput, old, now map[string]any) []ResourceDetail {
	out := make([]ResourceDetail, 0, len(r.Details))
	for _, d := range r.Details {
		nested := strings.Contains(r.ID, "/")
		if (d.Before != "" || d.After != "") && (nested || secretPath(d.Path) || refersToSecret(r.ID, d, old, now) || refersToSecret(r.ID, d, now, old)) {
			d.Hidden = true
			if d.Before != "" {
				d.Before = hiddenValue
			}
			if d.After != "" {
				d.After = hiddenValue
			}
		}
		out = append(out, d)
	}
	return out
}

func secretPath(path string) bool {
	for part := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '/' || r == '.' }) {
		if isSecretKey(part) {
			return true
		}
	}
	return false
}

// refersToSecret reports whether the property of a resource, as a template has
// it, mentions a parameter that is a secret in either template.
func refersToSecret(id string, d ResourceDetail, template, other map[string]any) bool {
	secrets := noEcho(template)
	for key := range noEcho(other) {
		secrets[key] = true
	}
	if len(secrets) == 0 {
		return false
	}
	if secrets[d.Cause] {
		return true
	}
	resource, known := entries(template, "Resources")[id].(map[string]any)
	if !known {
		return false
	}
	properties, _ := resource["Properties"].(map[string]any)
	first, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(d.Path, "/Properties"), "/"), "/")
	first, _, _ = strings.Cut(first, ".")
	if value, ok := properties[first]; ok {
		return mentions(value, secrets)
	}
	return mentions(properties, secrets)
}
