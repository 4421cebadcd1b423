package cfn

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// template is a parsed template.
type template struct {
	document  map[string]any
	canonical []byte
	resources int
	declared  map[string]declaration
}

// declaration is a parameter as the template declares it.
type declaration struct {
	Type        string `json:"Type"`
	Description string `json:"Description"`
	Default     any    `json:"Default"`
}

// skipMark in a parameter's description says that its value has no effect on
// resources. The CDK puts it on its BootstrapVersion parameter.
const skipMark = "[cdk:skip]"

func parseTemplate(data []byte) (template, error) {
	document, err := parseDocument(data)
	if err != nil {
		return template{}, fmt.Errorf("parse the template: %w", err)
	}
	canonical, err := json.Marshal(document)
	if err != nil {
		return template{}, fmt.Errorf("parse the template: %w", err)
	}
	var parts struct {
		Resources  map[string]json.RawMessage `json:"Resources"`
		Parameters map[string]declaration     `json:"Parameters"`
	}
	if err := json.Unmarshal(canonical, &parts); err != nil {
		return template{}, fmt.Errorf("parse the template: %w", err)
	}
	return template{document: document, canonical: canonical, resources: len(parts.Resources), declared: parts.Parameters}, nil
}

// parseDocument reads a template as JSON or, for stacks made by other tools,
// as YAML without short tags.
func parseDocument(data []byte) (map[string]any, error) {
	var document map[string]any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	err := decoder.Decode(&document)
	if err == nil {
		return document, nil
	}
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return nil, err
	}
	if err := yaml.Unmarshal(data, &document); err != nil {
		return nil, err
	}
	plain, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	document = nil
	decoder = json.NewDecoder(bytes.NewReader(plain))
	decoder.UseNumber()
	return document, decoder.Decode(&document)
}

// similarity is how two templates compare.
type similarity int

const (
	different similarity = iota
	// mangled templates are equal as far as can be told: the live one has "?"
	// where ours has characters beyond ASCII, which GetTemplate does not
	// return.
	mangled
	equal
)

// compare holds ours against the live template; the order of keys is of no
// matter.
func (t template) compare(live []byte) similarity {
	document, err := parseDocument(live)
	if err != nil {
		return different
	}
	if reflect.DeepEqual(t.document, document) {
		return equal
	}
	if like(t.document, document) {
		return mangled
	}
	return different
}

// like reports whether live could be ours after GetTemplate lost all
// characters beyond ASCII.
func like(ours, live any) bool {
	switch want := ours.(type) {
	case map[string]any:
		have, ok := live.(map[string]any)
		if !ok || len(have) != len(want) {
			return false
		}
		for key, value := range want {
			other, ok := have[key]
			if !ok {
				other, ok = lostKey(have, key)
			}
			if !ok || !like(value, other) {
				return false
			}
		}
		return true
	case []any:
		have, ok := live.([]any)
		if !ok || len(have) != len(want) {
			return false
		}
		for i := range want {
			if !like(want[i], have[i]) {
				return false
			}
		}
		return true
	case string:
		have, ok := live.(string)
		return ok && likeText(want, have)
	default:
		return reflect.DeepEqual(ours, live)
	}
}

func lostKey(object map[string]any, key string) (any, bool) {
	for other, value := range object {
		if likeText(key, other) {
			return value, true
		}
	}
	return nil, false
}

// likeText compares one text; a character beyond ASCII may have become one
// "?", or one for each of its bytes.
func likeText(ours, live string) bool {
	for ours != "" {
		r, size := utf8.DecodeRuneInString(ours)
		if r < utf8.RuneSelf {
			if live == "" || live[0] != ours[0] {
				return false
			}
			ours, live = ours[1:], live[1:]
			continue
		}
		if strings.HasPrefix(live, ours[:size]) {
			ours, live = ours[size:], live[size:]
			continue
		}
		return likeLost(ours[size:], live, size)
	}
	return live == ""
}

// likeLost continues likeText after a lost character of size bytes.
func likeLost(rest, live string, size int) bool {
	for n := 1; n <= size && n <= len(live) && live[n-1] == '?'; n++ {
		if likeText(rest, live[n:]) {
			return true
		}
	}
	return false
}
