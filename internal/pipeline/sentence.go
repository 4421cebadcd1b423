package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"go.yaml.in/yaml/v3"
)

// checkSchema validates value and turns what the validator says into findings.
func (d *document) checkSchema(known *schema, value any) error {
	err := known.compiled.Validate(value)
	if err == nil {
		return nil
	}
	violation, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return fmt.Errorf("validate %s against the schema: %w", d.file, err)
	}
	d.explain(known, violation)
	return nil
}

// explain adds a finding for every leaf of the validator's error tree.
func (d *document) explain(known *schema, violation *jsonschema.ValidationError) {
	if len(violation.Causes) > 0 {
		for _, cause := range violation.Causes {
			d.explain(known, cause)
		}
		return
	}
	at := place(slices.Clone(violation.InstanceLocation))
	if d.flagged[at.id()] {
		return // already known to be unusable, and why
	}
	switch what := violation.ErrorKind.(type) {
	case *kind.AdditionalProperties:
		slices.Sort(what.Properties)
		for _, key := range what.Properties {
			d.explainKey(known.at(violation.SchemaURL), at.child(key), key)
		}
	case *kind.Required:
		for _, key := range what.Missing {
			d.addMissing(known, violation.SchemaURL, at, key)
		}
	case *kind.Type:
		d.explainType(at, what)
	default:
		d.explainValue(known.at(violation.SchemaURL), at, violation.ErrorKind)
	}
}

// explainValue says what is wrong with a value of the right type.
func (d *document) explainValue(part map[string]any, at place, violated jsonschema.ErrorKind) {
	switch what := violated.(type) {
	case *kind.Enum:
		choices := make([]string, len(what.Want))
		for i, choice := range what.Want {
			choices[i] = fmt.Sprintf("%q", choice)
		}
		d.add(at, "%s is not known here; allowed: %s", d.showAt(at), strings.Join(choices, ", "))
	case *kind.Pattern:
		if strings.TrimSpace(what.Got) == "" {
			d.add(at, "the value is blank; allowed: %s", allowed(part))
			return
		}
		offer := ""
		if at.last() == "region" {
			offer = offerRegion(what.Got)
		}
		d.add(at, "%s does not fit%s; allowed: %s", d.showAt(at), offer, allowed(part))
	case *kind.MinItems:
		d.add(at, "the list is empty; at least %d entry is required", what.Want)
	case *kind.MaxItems:
		d.add(at, "the list has %d entries; allowed are at most %d", what.Got, what.Want)
	case *kind.MaxLength:
		d.add(at, "the value has %d characters; allowed are at most %d", what.Got, what.Want)
	case *kind.UniqueItems:
		d.add(at.child(strconv.Itoa(what.Duplicates[1])), "the entry stands twice; it is the same as entry %d; keep one of them", what.Duplicates[0]+1)
	case *kind.Minimum:
		d.add(at, "%s is too small; allowed: %s or more", d.showAt(at), what.Want.RatString())
	case *kind.Maximum:
		d.add(at, "%s is too large; allowed: %s or less", d.showAt(at), what.Want.RatString())
	default:
		// The schema uses no other keywords: TestSchema_KeywordsHaveSentences.
		d.add(at, "%s does not fit the schema", d.showAt(at))
	}
}

func (d *document) explainKey(part map[string]any, at place, key string) {
	known := knownKeys(part)
	if len(known) == 0 { // free keys of a certain form
		d.addKey(at, "the key %s does not fit; allowed: %s", d.show(key), allowed(part))
		return
	}
	offer := ""
	if near := nearest(key, known); near != "" {
		offer = fmt.Sprintf("; did you mean %q?", near)
	}
	d.addKey(at, "unknown key%s; allowed here: %s, and keys that begin with x-", offer, strings.Join(known, ", "))
}

// addMissing reports a missing key where its mapping is introduced.
func (d *document) addMissing(known *schema, location string, at place, key string) {
	hint := ""
	if property := known.at(location + "/properties/" + key); property != nil {
		if text, ok := property["description"].(string); ok {
			hint = ": " + strings.TrimSuffix(strings.ReplaceAll(text, "\n", " "), ".")
		}
	}
	node := d.keys[at.id()]
	if node == nil {
		node = d.values[at.id()]
	}
	d.addNode(node, at, "the required key %q is missing%s", key, hint)
}

// explainType says what stands where something else belongs. at has a node.
func (d *document) explainType(at place, what *kind.Type) {
	scalar, raw := false, ""
	if node := d.values[at.id()]; node != nil {
		scalar, raw = node.Kind == yaml.ScalarNode, node.Value
	}
	unquoted := slices.Contains(what.Want, "string") && slices.Contains([]string{"number", "boolean", "null"}, what.Got)
	switch {
	case what.Got == "null" && raw == "":
		d.add(at, "the key has no value; allowed is %s; leave the key out if it is not needed", kinds(what.Want))
	case unquoted && what.Got == "number" && slices.Equal(at, place{"version"}):
		d.add(at, "%s without quotes is a number and would be read as 1; write version: \"1.0\"", raw)
	case unquoted && what.Got == "number" && at.last() == "account":
		d.explainAccount(at, raw)
	case unquoted && scalar:
		d.add(at, "%s without quotes is a %s, and text is expected; put it in quotes", d.showAt(at), what.Got)
	case slices.Contains(what.Want, "boolean") && isOldBoolean(raw):
		d.add(at, "%s is text in YAML 1.2, not a boolean; allowed: true, false", d.showAt(at))
	default:
		d.add(at, "this is %s; allowed is %s", kinds([]string{what.Got}), kinds(what.Want))
	}
}

// explainAccount says why an account id must be quoted: as a number it loses
// its leading zeros.
func (d *document) explainAccount(at place, raw string) {
	const digits = 12
	number := strings.Trim(raw, "0123456789") == ""
	switch {
	case number && len(raw) == digits && raw[0] == '0':
		d.add(at, "the account id %s without quotes is a number and loses its leading zero; write account: %q", raw, raw)
	case number && len(raw) == digits:
		d.add(at, "the account id %s without quotes is a number; write account: %q", raw, raw)
	case number && len(raw) < digits:
		d.add(at, "the account id %s is a number of %d digits, so leading zeros may be lost; write all %d digits in quotes, such as \"%0*s\"", raw, len(raw), digits, digits, raw)
	default:
		d.add(at, "the account id %s is a number; write exactly %d digits in quotes, such as \"123456789012\"", d.showAt(at), digits)
	}
}

// kinds names JSON types for people.
func kinds(types []string) string {
	names := map[string]string{
		"string": "text", "number": "a number", "integer": "a whole number", "boolean": "true or false",
		"array": "a list (each entry after \"- \")", "object": "a mapping (key: value)", "null": "nothing",
	}
	out := make([]string, len(types))
	for i, name := range types {
		out[i] = names[name]
	}
	return strings.Join(out, " or ")
}

// isOldBoolean reports whether YAML 1.1 read text as a boolean and 1.2 does
// not.
func isOldBoolean(text string) bool {
	switch strings.ToLower(text) {
	case "yes", "no", "on", "off", "y", "n":
		return true
	}
	return false
}
