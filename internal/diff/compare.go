package diff

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Side is a stack as it is, or as it is wanted.
type Side struct {
	// Template is the parsed template, numbers as json.Number; nil for none.
	Template map[string]any
	// Values are the values of parameters, as far as known.
	Values map[string]string
	// Tags of the stack.
	Tags map[string]string
	// Settings are properties of the stack by name, values of JSON.
	Settings map[string]any
}

// Input is what is compared.
type Input struct {
	Old, New Side
	// Within are the logical ids of the nested stacks that lead to this one,
	// each followed by "/"; empty for a stack that is not nested.
	Within string
	// ConstructPath returns the construct path of a resource that is wanted,
	// by its own logical id, or "". May be nil: templates have most of them.
	ConstructPath func(logicalID string) string
	// Same says that a text may be the live one although it differs: characters
	// that CloudFormation does not give back. May be nil.
	Same func(ours, live string) bool
}

// Result is what differs.
type Result struct {
	Changes  []Change
	Security []Security
	Notes    []string
}

// comparison is one call of Compare.
type comparison struct {
	in     Input
	hidden map[string]bool // parameters whose values are secrets
	unsure bool
	result Result
}

// Compare returns what differs between the two sides. Comparing a side with
// itself returns nothing. Values of parameters with NoEcho and literal secrets
// are not part of what is returned.
func Compare(in Input) Result {
	c := &comparison{in: in, hidden: map[string]bool{}}
	for _, side := range []Side{in.Old, in.New} {
		maps.Copy(c.hidden, noEcho(side.Template))
	}
	for kind, name := range sections() {
		c.section(kind, name)
	}
	c.otherSections()
	c.texts(Tag, in.Old.Tags, in.New.Tags)
	c.objects(Setting, in.Old.Settings, in.New.Settings)
	if c.unsure {
		c.result.Notes = append(c.result.Notes, "CloudFormation does not give back characters beyond ASCII: texts that differ in them alone are taken for equal")
	}
	sortChanges(c.result.Changes)
	sortSecurity(c.result.Security)
	return c.result
}

// sections are the sections of a template that have entries.
func sections() map[Kind]string {
	return map[Kind]string{
		Resource: "Resources", Output: "Outputs", Parameter: "Parameters", Condition: "Conditions", Mapping: "Mappings", Rule: "Rules",
	}
}

// entries returns a section of a template; nil if it has none.
func entries(template map[string]any, section string) map[string]any {
	object, _ := template[section].(map[string]any)
	return object
}

func (c *comparison) section(kind Kind, name string) {
	c.objects(kind, entries(c.in.Old.Template, name), entries(c.in.New.Template, name))
}

// otherSections compares the rest of the templates, section by section. A new
// template's are of no interest by themselves.
func (c *comparison) otherSections() {
	if c.in.Old.Template == nil || c.in.New.Template == nil {
		return
	}
	rest := func(template map[string]any) map[string]any {
		out := maps.Clone(template)
		for _, name := range sections() {
			if _, ok := out[name].(map[string]any); ok {
				delete(out, name)
			}
		}
		return out
	}
	c.objects(Section, rest(c.in.Old.Template), rest(c.in.New.Template))
}

func (c *comparison) texts(kind Kind, old, now map[string]string) {
	values := func(in map[string]string) map[string]any {
		out := make(map[string]any, len(in))
		for key, value := range in {
			out[key] = value
		}
		return out
	}
	c.objects(kind, values(old), values(now))
}

// objects compares the entries of one kind.
func (c *comparison) objects(kind Kind, old, now map[string]any) {
	ids := map[string]bool{}
	for id := range old {
		ids[id] = true
	}
	for id := range now {
		ids[id] = true
	}
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		before, hasOld := old[id]
		after, hasNew := now[id]
		w := &walker{same: c.in.Same}
		change := Change{Kind: kind, ID: c.in.Within + id, Action: Modify}
		switch {
		case !hasOld:
			change.Action = Add
			w.add(leaf{new: after, hasNew: true})
		case !hasNew:
			change.Action = Remove
			w.add(leaf{old: before, hasOld: true})
		default:
			w.walk(nil, before, after)
		}
		c.unsure = c.unsure || w.unsure
		if len(w.leaves) == 0 {
			continue
		}
		for _, l := range w.leaves {
			change.Details = append(change.Details, c.detail(kind, id, l))
		}
		switch kind {
		case Resource:
			c.resource(&change, id, before, after, w.leaves)
		case Parameter:
			c.parameter(&change, id, before, after)
		default: // nothing to add
		}
		c.result.Changes = append(c.result.Changes, change)
	}
}

// detail makes the detail of a leaf of an entry.
func (c *comparison) detail(kind Kind, id string, l leaf) Detail {
	switch {
	case kind == Parameter && c.hidden[id]:
		l.old, l.new = withoutDefault(l.steps, l.old), withoutDefault(l.steps, l.new)
		d := l.detail()
		d.Hidden = true
		return d
	case kind == Tag:
		l.steps = append([]step{{key: id, isKey: true}}, l.steps...)
		d := l.detail()
		d.Path = ""
		return d
	}
	return l.detail()
}

// withoutDefault hides the default of a parameter's declaration.
func withoutDefault(steps []step, value any) any {
	if len(steps) > 0 {
		if steps[0].key == "Default" && value != nil {
			return hiddenValue
		}
		return value
	}
	declaration, ok := value.(map[string]any)
	if !ok || declaration["Default"] == nil {
		return value
	}
	out := maps.Clone(declaration)
	out["Default"] = hiddenValue
	return out
}

// resource completes the change of a resource.
func (c *comparison) resource(change *Change, id string, before, after any, leaves []leaf) {
	old, _ := before.(map[string]any)
	now, _ := after.(map[string]any)
	change.Type = text(now["Type"])
	if change.Action == Remove {
		change.Type = text(old["Type"])
		change.DeletionPolicy = text(old["DeletionPolicy"])
	}
	change.ConstructPath = c.constructPath(id, old, now)
	if was := text(old["Type"]); change.Action == Modify && was != change.Type {
		change.Note = fmt.Sprintf("its type was %s: CloudFormation refuses to change the type of a resource; give the new one another logical id", was)
	}
	for _, s := range securityOf(old, now, leaves) {
		s.ID, s.Type, s.ConstructPath = change.ID, change.Type, change.ConstructPath
		c.result.Security = append(c.result.Security, s)
	}
}

func (c *comparison) constructPath(id string, old, now map[string]any) string {
	for _, object := range []map[string]any{now, old} {
		metadata, _ := object["Metadata"].(map[string]any)
		if path := text(metadata["aws:cdk:path"]); path != "" {
			return path
		}
	}
	if c.in.ConstructPath == nil || now == nil {
		return ""
	}
	return c.in.ConstructPath(id)
}

// parameter says what a changed default means: a stack keeps the value that it
// has.
func (c *comparison) parameter(change *Change, id string, before, after any) {
	old, _ := before.(map[string]any)
	now, _ := after.(map[string]any)
	value, known := c.in.Old.Values[id]
	if change.Action != Modify || !known || encodeText(old["Default"]) == encodeText(now["Default"]) {
		return
	}
	if c.hidden[id] {
		change.Note = "the stack keeps the value it has"
		return
	}
	if isSecretKey(id) {
		value = hiddenValue
	}
	change.Note = fmt.Sprintf("the stack keeps the value it has, %s", encode(value))
}

func encodeText(value any) string { return string(encode(value)) }

// text returns a string, or "" for anything else.
func text(value any) string {
	s, _ := value.(string)
	return s
}

// truthy reports whether a template means true.
func truthy(value any) bool {
	switch v := value.(type) {
	case bool:
		return v
	case string:
		return strings.EqualFold(v, "true")
	}
	return false
}

// noEcho returns the parameters of a template whose values are secrets.
func noEcho(template map[string]any) map[string]bool {
	out := map[string]bool{}
	for key, declared := range entries(template, "Parameters") {
		if object, ok := declared.(map[string]any); ok && truthy(object["NoEcho"]) {
			out[key] = true
		}
	}
	return out
}

// mentions reports whether a value refers to one of the parameters.
func mentions(value any, parameters map[string]bool) bool {
	switch v := value.(type) {
	case string:
		for key := range parameters {
			if strings.Contains(v, "${"+key) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, func(entry any) bool { return mentions(entry, parameters) })
	case map[string]any:
		if parameters[text(v["Ref"])] {
			return true
		}
		for _, entry := range v {
			if mentions(entry, parameters) {
				return true
			}
		}
	}
	return false
}
