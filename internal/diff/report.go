package diff

import (
	"cmp"
	"encoding/json"
	"slices"
)

// Version is that of the JSON document. It grows when a field changes its
// meaning or goes; new fields alone do not change it.
const Version = 1

// Strength is how much was asked.
type Strength string

// The strengths.
const (
	// Templates compares templates and settings, and writes nothing.
	Templates Strength = "template"
	// ChangeSets asks CloudFormation as well.
	ChangeSets Strength = "change-set"
)

// Report is what is different, stack by stack.
type Report struct {
	Version  int      `json:"version"`
	Strength Strength `json:"strength"`
	// Differences says whether any stack differs.
	Differences bool    `json:"differences"`
	Stacks      []Stack `json:"stacks"`
}

// New returns the report of stacks.
func New(strength Strength, stacks []Stack) Report {
	r := Report{Version: Version, Strength: strength, Stacks: slices.Clip(stacks)}
	if r.Stacks == nil {
		r.Stacks = []Stack{}
	}
	r.Differences = slices.ContainsFunc(r.Stacks, func(s Stack) bool { return s.Differs() })
	return r
}

// Security reports whether anything that grants or limits access differs.
func (r Report) Security() bool {
	return slices.ContainsFunc(r.Stacks, func(s Stack) bool { return len(s.Security) > 0 })
}

// Stack is what is different about one stack.
type Stack struct {
	Environment string `json:"environment"`
	Account     string `json:"account"`
	Region      string `json:"region"`
	// Name is the name in CloudFormation, Path the construct path.
	Name string `json:"stack"`
	Path string `json:"constructPath"`
	// Status is the live status; empty if there is no stack.
	Status string `json:"status,omitempty"`
	// New says that a deployment creates the stack.
	New bool `json:"new"`
	// Changes are in the order of kinds, then of ids.
	Changes []Change `json:"changes"`
	// Security is what of Changes grants or limits access, apart.
	Security []Security `json:"security"`
	// Notes are sentences about what the lists cannot show.
	Notes []string `json:"notes,omitempty"`
	// ChangeSet is nil where CloudFormation was not asked.
	ChangeSet *ChangeSet `json:"changeSet,omitempty"`
}

// Differs reports whether a deployment would change the stack.
func (s Stack) Differs() bool { return s.New || len(s.Changes) > 0 }

// Kind is what changes.
type Kind string

// The kinds, in the order in which they are shown.
const (
	Resource  Kind = "resource"
	Output    Kind = "output"
	Parameter Kind = "parameter"
	Condition Kind = "condition"
	Mapping   Kind = "mapping"
	Rule      Kind = "rule"
	// Section is any other section of the template, such as Description.
	Section Kind = "section"
	Tag     Kind = "tag"
	// Setting is a property of the stack that is not in its template.
	Setting Kind = "setting"
)

func kinds() []Kind {
	return []Kind{Resource, Output, Parameter, Condition, Mapping, Rule, Section, Tag, Setting}
}

// Action is what happens to it.
type Action string

// The actions.
const (
	Add    Action = "add"
	Modify Action = "change"
	Remove Action = "remove"
)

// Replacement says whether a resource is made anew.
type Replacement string

// The answers; empty is "not known", which a template alone never tells.
const (
	Replaced     Replacement = "yes"
	Kept         Replacement = "no"
	MaybeReplace Replacement = "conditional"
)

// Change is one entry of a template, a tag or a setting that differs.
type Change struct {
	Kind   Kind   `json:"kind"`
	Action Action `json:"action"`
	// ID is the logical id or key; that of a resource in a nested stack is
	// below the ids of the nested stacks, separated by "/".
	ID string `json:"id"`
	// Type and ConstructPath are those of resources; empty if unknown.
	Type          string `json:"type,omitempty"`
	ConstructPath string `json:"constructPath,omitempty"`
	// Replacement is what CloudFormation says; empty if it was not asked.
	Replacement Replacement `json:"replacement,omitempty"`
	// DeletionPolicy is that of a resource to be removed, as deployed; empty
	// means CloudFormation's default.
	DeletionPolicy string `json:"deletionPolicy,omitempty"`
	// Details are the values that differ, each once. That of an entry which is
	// added or removed as a whole has an empty path.
	Details []Detail `json:"details,omitempty"`
	// Note is a sentence about the change; mostly empty.
	Note string `json:"note,omitempty"`
	// CloudFormation is what a change set says; nil if it was not asked or does
	// not mention the resource.
	CloudFormation *ResourceChange `json:"cloudFormation,omitempty"`
}

// Detail is one value that differs. Old or New is absent if the value is on one
// side only; a value of null is present.
type Detail struct {
	// Path leads to the value: keys separated by ".", positions in brackets.
	// A position is that on the side that has the value.
	Path string          `json:"path"`
	Old  json.RawMessage `json:"old,omitempty"`
	New  json.RawMessage `json:"new,omitempty"`
	// Hidden says that secrets in Old or New were replaced.
	Hidden bool `json:"hidden,omitempty"`
}

// ChangeSet is how asking CloudFormation ended.
type ChangeSet struct {
	// Status is "created", "empty", "failed" or "not made".
	Status ChangeSetStatus `json:"status"`
	// Reason says why there are no changes from CloudFormation.
	Reason string `json:"reason,omitempty"`
}

// ChangeSetStatus is how asking CloudFormation ended.
type ChangeSetStatus string

// The ends of asking.
const (
	Created ChangeSetStatus = "created"
	Empty   ChangeSetStatus = "empty"
	Failed  ChangeSetStatus = "failed"
	NotMade ChangeSetStatus = "not made"
)

// ResourceChange is what CloudFormation says about a resource, in its own
// words.
type ResourceChange struct {
	Action       string   `json:"action"`
	Replacement  string   `json:"replacement,omitempty"`
	PolicyAction string   `json:"policyAction,omitempty"`
	Scope        []string `json:"scope,omitempty"`
	PhysicalID   string   `json:"physicalId,omitempty"`
	// Details are the attributes that change.
	Details []ResourceDetail `json:"details,omitempty"`
}

// ResourceDetail is one attribute that CloudFormation changes.
type ResourceDetail struct {
	// Attribute is "Properties", "Metadata", "Tags", …
	Attribute string `json:"attribute"`
	// Path is the JSON pointer or name of the property; may be empty.
	Path string `json:"path,omitempty"`
	// RequiresRecreation is "Never", "Conditionally" or "Always".
	RequiresRecreation string `json:"requiresRecreation,omitempty"`
	// Evaluation is "Static", or "Dynamic" for what is known only while the
	// change set is carried out.
	Evaluation string `json:"evaluation,omitempty"`
	// Source and Cause say what the change comes from.
	Source string `json:"source,omitempty"`
	Cause  string `json:"cause,omitempty"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
	// Hidden says that Before and After were replaced.
	Hidden bool `json:"hidden,omitempty"`
}

// sortChanges brings changes into their order.
func sortChanges(changes []Change) {
	order := kinds()
	slices.SortStableFunc(changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Kind), slices.Index(order, b.Kind)), cmp.Compare(a.ID, b.ID))
	})
}
