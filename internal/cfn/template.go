package cfn

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/aphex-pipeline/aphex/internal/jsonlimit"
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
	trimmed := bytes.TrimSpace(data)
	if !bytes.HasPrefix(trimmed, []byte("{")) {
		var err error
		if trimmed, err = fromYAML(data); err != nil {
			return nil, err
		}
	}
	if err := jsonlimit.Check(trimmed, jsonlimit.Document); err != nil {
		return nil, err
	}
	var document map[string]any
	decoder := json.NewDecoder(bytes.NewReader(trimmed))
	decoder.UseNumber()
	if err := decoder.Decode(&document); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("something follows its end (at byte %d)", decoder.InputOffset())
	}
	return document, nil
}

// fromYAML turns a YAML document into JSON.
func fromYAML(data []byte) ([]byte, error) {
	var document map[string]any
	if err := yaml.Unmarshal(data, &document); err != nil {
		return nil, err
	}
	if document == nil {
		return nil, errors.New("it is empty")
	}
	return json.Marshal(document)
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
		return ok && likeObject(want, have)
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

// likeObject compares two objects. Each key of live stands for one of ours.
// Keys that lost characters may fit several of ours: what counts is that each
// finds one whose value fits as well.
func likeObject(ours, live map[string]any) bool {
	if len(live) != len(ours) {
		return false
	}
	lost := slices.DeleteFunc(slices.Sorted(maps.Keys(live)), func(key string) bool { _, kept := ours[key]; return kept })
	fits := make([][]int, 0, len(lost)) // for each changed key of ours, the keys it may have become
	for _, key := range slices.Sorted(maps.Keys(ours)) {
		if other, kept := live[key]; kept {
			if !like(ours[key], other) {
				return false
			}
			continue
		}
		var found []int
		for n, candidate := range lost {
			if likeText(key, candidate) && like(ours[key], live[candidate]) {
				found = append(found, n)
			}
		}
		fits = append(fits, found)
	}
	return assignable(fits)
}

// assignable reports whether each row can have one of the numbers it lists for
// itself alone, by augmenting paths.
func assignable(rows [][]int) bool {
	owner := map[int]int{}
	var place func(row int, tried map[int]bool) bool
	place = func(row int, tried map[int]bool) bool {
		for _, n := range rows[row] {
			if tried[n] {
				continue
			}
			tried[n] = true
			if other, taken := owner[n]; !taken || place(other, tried) {
				owner[n] = row
				return true
			}
		}
		return false
	}
	for row := range rows {
		if !place(row, map[int]bool{}) {
			return false
		}
	}
	return true
}

// likeText compares one text: it is the same, or every character beyond ASCII
// has become one "?", or one for each of its bytes, or any number in between.
// It takes one pass: low and high bound where in live the part of ours seen so
// far may end, and between the two there is nothing but "?".
func likeText(ours, live string) bool {
	if ours == live {
		return true
	}
	low, high := 0, 0
	for ours != "" {
		r, size := utf8.DecodeRuneInString(ours)
		ours = ours[size:]
		switch {
		case r >= utf8.RuneSelf:
			low++
			for n := 0; n < size && high < len(live) && live[high] == '?'; n++ {
				high++
			}
		case r == '?':
			low++
			if high < len(live) && live[high] == '?' {
				high++
			}
		case high < len(live) && live[high] == byte(r):
			high++
			low = high
		default:
			return false
		}
		if low > high {
			return false
		}
	}
	return high == len(live)
}
