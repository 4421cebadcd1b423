package pipeline

import (
	"bytes"
	_ "embed" // the schema
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

//go:embed aphex-config.schema.json
var schemaText []byte

const schemaURL = "https://aphex.dev/aphex-config.schema.json"

// Schema returns the JSON schema (draft-07) of the configuration, as
// published. The caller owns the slice.
func Schema() []byte { return bytes.Clone(schemaText) }

// schema is the compiled schema together with its text, from which the
// sentences of findings are made.
type schema struct {
	compiled *jsonschema.Schema
	root     map[string]any
}

// loadSchema compiles the embedded schema once.
//
//nolint:gochecknoglobals // a constant that has to be computed
var loadSchema = sync.OnceValues(func() (*schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schemaText))
	if err != nil {
		return nil, fmt.Errorf("read the configuration schema: %w", err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource(schemaURL, doc); err != nil {
		return nil, fmt.Errorf("read the configuration schema: %w", err)
	}
	compiled, err := compiler.Compile(schemaURL)
	if err != nil {
		return nil, fmt.Errorf("compile the configuration schema: %w", err)
	}
	var root map[string]any
	if err := json.Unmarshal(schemaText, &root); err != nil {
		return nil, fmt.Errorf("read the configuration schema: %w", err)
	}
	return &schema{compiled: compiled, root: root}, nil
})

// at returns the part of the schema that a validation error points to, or nil.
func (s *schema) at(location string) map[string]any {
	_, fragment, found := strings.Cut(location, "#")
	if !found {
		return nil
	}
	unescape := strings.NewReplacer("~1", "/", "~0", "~")
	var part any = s.root
	for token := range strings.SplitSeq(strings.Trim(fragment, "/"), "/") {
		if token == "" {
			continue
		}
		object, ok := part.(map[string]any)
		if !ok {
			return nil
		}
		key, err := url.PathUnescape(token)
		if err != nil {
			return nil
		}
		part = object[unescape.Replace(key)]
	}
	object, ok := part.(map[string]any)
	if !ok {
		return nil
	}
	return object
}

// knownKeys returns the keys an object of the schema may have, sorted.
func knownKeys(part map[string]any) []string {
	properties, ok := part["properties"].(map[string]any)
	if !ok {
		return nil
	}
	keys := make([]string, 0, len(properties))
	for key := range properties {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// allowed returns the sentence part that says which values fit.
func allowed(part map[string]any) string {
	text, _ := part["patternErrorMessage"].(string) // absent is empty
	return text
}
