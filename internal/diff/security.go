package diff

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
)

// Security is one thing that grants or limits access and differs. A statement
// or rule that is changed is one removed and one added.
type Security struct {
	Kind   SecurityKind `json:"kind"`
	Action Action       `json:"action"`
	// Reach says whether access becomes wider by it.
	Reach Reach `json:"reach"`
	// ID, Type and ConstructPath are those of the Change of the resource.
	ID            string `json:"id"`
	Type          string `json:"type"`
	ConstructPath string `json:"constructPath,omitempty"`
	// Path leads to it in the resource, without positions.
	Path string `json:"path"`
	// Old and New are the statement, rule or value, as in Detail.
	Old json.RawMessage `json:"old,omitempty"`
	New json.RawMessage `json:"new,omitempty"`
}

// SecurityKind is what grants or limits access.
type SecurityKind string

// The kinds.
const (
	// Statement is one of a policy: of an identity, a role's trust, or a
	// resource.
	Statement SecurityKind = "statement"
	// ManagedPolicy is a policy attached by its ARN.
	ManagedPolicy SecurityKind = "managed-policy"
	// NetworkRule is a rule of a security group.
	NetworkRule SecurityKind = "network-rule"
	// Permission is a Lambda permission.
	Permission SecurityKind = "permission"
	// Property is any other property that matters, such as a permissions
	// boundary.
	Property SecurityKind = "property"
)

// Reach says whether access becomes wider.
type Reach string

// The answers. They look at the entry alone: what another statement denies or
// grants anyway is not known here.
const (
	Wider    Reach = "wider"
	Narrower Reach = "narrower"
	Unknown  Reach = "unknown"
)

func sortSecurity(list []Security) {
	slices.SortStableFunc(list, func(a, b Security) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Path, b.Path), cmp.Compare(b.Action, a.Action), cmp.Compare(string(a.Old)+string(a.New), string(b.Old)+string(b.New)))
	})
}

// grant is one statement, rule or attachment of a resource.
type grant struct {
	kind  SecurityKind
	path  string
	value any
	// key is equal for equal grants, however they are written.
	key string
}

// securityOf returns what differs between two versions of a resource; either
// may be nil.
func securityOf(old, now map[string]any, leaves []leaf) []Security {
	before, after := grants(old), grants(now)
	var out []Security
	for _, g := range without(before, after) {
		out = append(out, Security{Kind: g.kind, Action: Remove, Reach: g.reach(Remove), Path: g.path, Old: g.shown()})
	}
	for _, g := range without(after, before) {
		out = append(out, Security{Kind: g.kind, Action: Add, Reach: g.reach(Add), Path: g.path, New: g.shown()})
	}
	kind := ""
	if old != nil && now != nil { // else its grants say it all
		kind = text(now["Type"])
	}
	for _, l := range leaves {
		out = append(out, properties(kind, l)...)
	}
	return out
}

// without returns those of a that b lacks, as often as it lacks them.
func without(a, b []grant) []grant {
	count := map[string]int{}
	for _, g := range b {
		count[g.key]++
	}
	var out []grant
	for _, g := range a {
		if count[g.key] > 0 {
			count[g.key]--
			continue
		}
		out = append(out, g)
	}
	return out
}

func (g grant) shown() json.RawMessage {
	value, _ := hide(nil, g.value)
	return encode(value)
}

// reach is what adding or removing the grant does.
func (g grant) reach(action Action) Reach {
	wider := action == Add
	if g.kind == Statement {
		statement, _ := g.value.(map[string]any)
		switch statement["Effect"] {
		case "Allow":
		case "Deny":
			wider = !wider
		default:
			return Unknown
		}
	}
	if wider {
		return Wider
	}
	return Narrower
}

// grants finds the statements, rules and attachments of a resource.
func grants(resource map[string]any) []grant {
	inside, _ := resource["Properties"].(map[string]any)
	if inside == nil {
		return nil
	}
	var out []grant
	add := func(kind SecurityKind, path string, value any) {
		out = append(out, grant{kind: kind, path: path, value: value, key: string(kind) + path + encodeText(canonical(value))})
	}
	switch text(resource["Type"]) {
	case "AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress":
		add(NetworkRule, "Properties", inside)
	case "AWS::Lambda::Permission", "AWS::Lambda::LayerVersionPermission":
		add(Permission, "Properties", inside)
	case "AWS::EC2::SecurityGroup":
		for _, direction := range []string{"SecurityGroupIngress", "SecurityGroupEgress"} {
			for _, rule := range list(inside[direction]) {
				add(NetworkRule, "Properties."+direction, rule)
			}
		}
	}
	for _, arn := range list(inside["ManagedPolicyArns"]) {
		add(ManagedPolicy, "Properties.ManagedPolicyArns", arn)
	}
	statements(inside, "Properties", func(path string, statement any) { add(Statement, path, statement) })
	return out
}

// list is a value that may be one entry instead of a list.
func list(value any) []any {
	switch v := value.(type) {
	case nil:
		return nil
	case []any:
		return v
	}
	return []any{value}
}

// statements calls found for each statement of each policy in a value,
// wherever it is: every service has properties of its own for policies, and
// all policies have statements.
func statements(value any, path string, found func(path string, statement any)) {
	switch v := value.(type) {
	case []any:
		for _, entry := range v {
			statements(entry, path, found)
		}
	case map[string]any:
		for key, entry := range v {
			if key != "Statement" || !isPolicy(entry) {
				statements(entry, path+"."+key, found)
				continue
			}
			for _, statement := range list(entry) {
				found(path, statement)
			}
		}
	}
}

// isPolicy reports whether the value of a key Statement is that of a policy,
// and not, say, that of a rule of a web ACL.
func isPolicy(value any) bool {
	entries := list(value)
	return len(entries) > 0 && !slices.ContainsFunc(entries, func(entry any) bool {
		object, ok := entry.(map[string]any)
		if !ok {
			return true
		}
		_, effect := object["Effect"]
		_, chosen := function(object)
		return !effect && !chosen
	})
}

// canonical writes a statement or rule in one way: one action is a list of
// one, the order of actions and resources and the Sid are of no matter.
func canonical(value any) any {
	object, ok := value.(map[string]any)
	if !ok {
		return value
	}
	if _, ok := object["Effect"]; !ok {
		return value
	}
	out := make(map[string]any, len(object))
	for key, entry := range object {
		switch key {
		case "Sid":
		case "Action", "NotAction", "Resource", "NotResource":
			entries := slices.Clone(list(entry))
			slices.SortFunc(entries, func(a, b any) int { return cmp.Compare(encodeText(a), encodeText(b)) })
			out[key] = entries
		default:
			out[key] = entry
		}
	}
	return out
}

// secureProperties are properties that matter in whichever resource.
func secureProperties() []string {
	return []string{
		"PermissionsBoundary", "PublicAccessBlockConfiguration", "PubliclyAccessible", "AccessControl", "AuthType", "OwnershipControls",
	}
}

// secureType reports whether every property of a type matters.
func secureType(kind string) bool {
	return strings.HasPrefix(kind, "AWS::IAM::") || strings.HasPrefix(kind, "AWS::SSO::") || kind == "AWS::EC2::SecurityGroup"
}

// properties returns what matters in a leaf of a resource and is no grant. An
// entry that is there on one side only is looked into.
func properties(kind string, l leaf) []Security {
	if len(l.steps) < 2 {
		var out []Security
		for _, inner := range inside(l) {
			out = append(out, properties(kind, inner)...)
		}
		return out
	}
	if l.steps[0].key != "Properties" || isGrant(l) {
		return nil
	}
	matters := secureType(kind) && l.steps[1].key != "Tags" && l.steps[1].key != "Description" && l.steps[1].key != "GroupDescription" ||
		slices.ContainsFunc(l.steps, func(s step) bool { return slices.Contains(secureProperties(), s.key) })
	if !matters {
		return nil
	}
	d := l.detail()
	s := Security{Kind: Property, Action: Modify, Reach: Unknown, Path: d.Path, Old: d.Old, New: d.New}
	switch {
	case !l.hasOld:
		s.Action = Add
	case !l.hasNew:
		s.Action = Remove
	}
	return []Security{s}
}

// inside returns the entries of a leaf that is one object on one side.
func inside(l leaf) []leaf {
	value := l.new
	if !l.hasNew {
		value = l.old
	}
	object, ok := value.(map[string]any)
	if !ok || l.hasOld && l.hasNew {
		return nil
	}
	var out []leaf
	for key, entry := range object {
		if len(l.steps) == 0 && key != "Properties" {
			continue
		}
		inner := leaf{steps: append(slices.Clip(l.steps), step{key: key, isKey: true}), hasOld: l.hasOld, hasNew: l.hasNew}
		if l.hasOld {
			inner.old = entry
		} else {
			inner.new = entry
		}
		out = append(out, inner)
	}
	return out
}

// isGrant reports whether a leaf is, or is part of, what grants finds.
func isGrant(l leaf) bool {
	switch l.steps[1].key {
	case "ManagedPolicyArns", "SecurityGroupIngress", "SecurityGroupEgress":
		return true
	}
	if slices.ContainsFunc(l.steps, func(s step) bool { return s.key == "Statement" }) {
		return true
	}
	found := false
	for _, value := range []any{l.old, l.new} {
		statements(value, "", func(string, any) { found = true })
	}
	return found
}
