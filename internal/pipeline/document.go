package pipeline

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of a document. They are far above what a person writes and far below
// what would hurt.
const (
	maxBytes = 256 << 10
	maxDepth = 32
	maxNodes = 20_000 // after aliases are followed
	maxShown = 80     // characters of an offending value in a message
)

// document is a configuration on its way from text to Config: its values as
// JSON knows them, and where each of them stands.
type document struct {
	file     string
	text     string
	findings []Finding
	secrets  secretSet
	// values and keys are the nodes by place; a key is absent for list items
	// and the document itself.
	values, keys map[string]*yaml.Node
	nodes        int
	tooLarge     bool
	// hidden are places whose value must not be shown at all.
	hidden map[string]bool
	// flagged are places that already have a finding about their value.
	flagged map[string]bool
	// manySecrets is set when the search for secrets was given up.
	manySecrets bool
	// spans are where the values stand.
	spans   []span
	allowed []AllowedSecret
}

// place is where a value stands: keys and indexes from the root.
type place []string

// id makes a place a map key. Keys of a YAML document cannot hold U+0000
// unescaped, and one that does only shares its position with another.
func (p place) id() string { return strings.Join(p, "\x00") }

// last is the key or index that leads here, or "" at the root.
func (p place) last() string {
	if len(p) == 0 {
		return ""
	}
	return p[len(p)-1]
}

func (p place) child(token string) place {
	return append(slices.Clip(p), token)
}

// path renders a place for people: environments[0].stacks[1].name.
func (d *document) path(p place) string {
	var out strings.Builder
	for i, token := range p {
		node := d.values[p[:i].id()]
		switch {
		case node != nil && node.Kind == yaml.SequenceNode:
			out.WriteString("[" + token + "]")
		case isPlainKey(token):
			if i > 0 {
				out.WriteByte('.')
			}
			out.WriteString(token)
		default:
			out.WriteString("[" + d.show(token) + "]")
		}
	}
	const looksSecret = 16 // shorter ones are told by their key, and are no keys
	return d.secrets.maskFrom(out.String(), looksSecret)
}

func isPlainKey(key string) bool {
	if key == "" {
		return false
	}
	for _, r := range key {
		if r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return false
		}
	}
	return len(key) <= maxShown
}

// add records a finding about the value at p.
func (d *document) add(p place, format string, args ...any) {
	d.flagged[p.id()] = true
	d.addNode(d.values[p.id()], p, format, args...)
}

// addKey records a finding about the key at p.
func (d *document) addKey(p place, format string, args ...any) {
	d.flagged[p.id()] = true
	node := d.keys[p.id()]
	if node == nil {
		node = d.values[p.id()]
	}
	d.addNode(node, p, format, args...)
}

func (d *document) addNode(node *yaml.Node, p place, format string, args ...any) {
	line, column := 1, 1
	if node != nil && node.Line > 0 {
		line, column = node.Line, node.Column
	}
	d.addAt(line, column, d.path(p), fmt.Sprintf(format, args...))
}

func (d *document) addAt(line, column int, path, message string) {
	d.findings = append(d.findings, Finding{
		File: d.file, Line: line, Column: column, Path: path, Message: d.secrets.mask(message),
	})
}

// show quotes a value for a message: on one line, bounded, secrets hidden.
func (d *document) show(text string) string {
	text = d.secrets.mask(text)
	if runes := []rune(text); len(runes) > maxShown {
		text = string(runes[:maxShown]) + "…"
	}
	return strconv.Quote(text)
}

// showAt quotes the scalar at p as it was written.
func (d *document) showAt(p place) string {
	node := d.values[p.id()]
	switch {
	case d.hidden[p.id()]:
		return "the value"
	case node == nil:
		return "it"
	}
	return d.show(node.Value)
}

// convert turns a node into the JSON value it stands for and remembers where
// everything is. What JSON cannot express becomes a finding and nil.
func (d *document) convert(node *yaml.Node, p place) any {
	if d.nodes++; d.nodes > maxNodes || len(p) > maxDepth {
		if !d.tooLarge {
			d.tooLarge = true
			d.addNode(node, p, "the document is nested too deeply or too large once its aliases are followed; allowed are %d levels and %d values", maxDepth, maxNodes)
		}
		return nil
	}
	d.values[p.id()] = node
	switch node.Kind {
	case yaml.AliasNode:
		// An alias inside its own anchor ends at maxDepth.
		return d.convert(node.Alias, p)
	case yaml.MappingNode:
		return d.convertMapping(node, p)
	case yaml.SequenceNode:
		if tag := node.ShortTag(); tag != "!!seq" {
			d.add(p, "the tag %s is not supported; write a plain list", d.show(tag))
			return nil
		}
		items := make([]any, 0, len(node.Content))
		for i, item := range node.Content {
			items = append(items, d.convert(item, p.child(strconv.Itoa(i))))
		}
		return items
	default:
		return d.convertScalar(node, p)
	}
}

func (d *document) convertMapping(node *yaml.Node, p place) any {
	if tag := node.ShortTag(); tag != "!!map" {
		d.add(p, "the tag %s is not supported; write a plain mapping", d.show(tag))
		return nil
	}
	object := make(map[string]any, len(node.Content)/2)
	first := make(map[string]*yaml.Node, len(node.Content)/2)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		switch {
		case key.ShortTag() == "!!merge":
			d.addNode(node.Content[i], p, "merge keys (<<) are not supported; write the keys out, or use an alias for the whole value")
			continue
		case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
			d.addNode(node.Content[i], p, "the key %s is not text; write it in quotes", d.show(key.Value))
			continue
		}
		at := p.child(key.Value)
		if earlier, found := first[key.Value]; found {
			d.addNode(node.Content[i], at, "the key stands twice; it was first given in line %d; keep one of them", earlier.Line)
			continue
		}
		first[key.Value] = key
		d.keys[at.id()] = node.Content[i]
		object[key.Value] = d.convert(value, at)
	}
	return object
}

func (d *document) convertScalar(node *yaml.Node, p place) any {
	switch node.ShortTag() {
	case "!!str", "!!timestamp": // JSON has no dates: the text counts
		return node.Value
	case "!!null":
		return nil
	case "!!bool", "!!int", "!!float":
		var value any
		if err := node.Decode(&value); err != nil {
			d.add(p, "%s cannot be read as what its tag says; remove the tag", d.show(node.Value))
			return nil
		}
		if number, ok := value.(float64); ok && (math.IsInf(number, 0) || math.IsNaN(number)) {
			d.add(p, "%s is not a number that JSON knows; write a finite number, or text in quotes", d.show(node.Value))
			return nil
		}
		return value
	default:
		d.add(p, "the tag %s is not supported; write plain text, a number, true or false", d.show(node.Tag))
		return nil
	}
}
