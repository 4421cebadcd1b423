package pipeline_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

func schemaRoot(t *testing.T) map[string]any {
	t.Helper()
	var root map[string]any
	require.NoError(t, json.Unmarshal(pipeline.Schema(), &root))
	return root
}

// visit calls f for every subschema, depth first.
func visit(t *testing.T, path string, node map[string]any, f func(path string, node map[string]any)) {
	t.Helper()
	f(path, node)
	for _, holder := range []string{"properties", "patternProperties"} {
		if children, ok := node[holder].(map[string]any); ok {
			for name, child := range children {
				visit(t, path+"."+name, child.(map[string]any), f)
			}
		}
	}
	for _, holder := range []string{"items", "additionalProperties"} {
		if child, ok := node[holder].(map[string]any); ok {
			visit(t, path+"[]", child, f)
		}
	}
}

func TestSchema_IsACopy(t *testing.T) {
	t.Parallel()
	pipeline.Schema()[0] = 'x'
	require.Equal(t, byte('{'), pipeline.Schema()[0])
	require.Equal(t, "http://json-schema.org/draft-07/schema#", schemaRoot(t)["$schema"])
}

// Editors show descriptions; unknown keys are errors everywhere except where
// keys are the user's own.
func TestSchema_IsClosedAndDescribed(t *testing.T) {
	t.Parallel()
	visit(t, "", schemaRoot(t), func(path string, node map[string]any) {
		if path == "" || path[len(path)-1] == ']' {
			return
		}
		if path != ".build.env.^[A-Za-z_][A-Za-z0-9_]*$" && path != ".build.secrets.^[A-Za-z_][A-Za-z0-9_]*$" {
			require.NotEmpty(t, node["description"], path)
		}
		if node["type"] == "object" && path != ".environments[].context" {
			require.Equal(t, false, node["additionalProperties"], path)
		}
	})
}

// Every keyword of the schema has a sentence of its own in findings, and every
// pattern says what fits.
func TestSchema_KeywordsHaveSentences(t *testing.T) {
	t.Parallel()
	known := []string{
		"$schema", "title", "description", "default", "examples", "patternErrorMessage", "type", "properties", "patternProperties",
		"additionalProperties", "required", "items", "enum", "pattern", "minItems", "maxItems", "uniqueItems", "minimum", "maximum", "maxLength",
	}
	visit(t, "", schemaRoot(t), func(path string, node map[string]any) {
		for keyword := range node {
			require.Contains(t, known, keyword, path)
		}
		if node["pattern"] != nil {
			require.NotEmpty(t, node["patternErrorMessage"], path)
		}
	})
}

// The founding contract: these keys are required, with this meaning.
func TestSchema_RequiredKeys(t *testing.T) {
	t.Parallel()
	got := map[string][]string{}
	visit(t, "", schemaRoot(t), func(path string, node map[string]any) {
		if list, ok := node["required"].([]any); ok {
			for _, key := range list {
				got[path] = append(got[path], fmt.Sprint(key))
			}
			slices.Sort(got[path])
		}
	})
	require.Equal(t, map[string][]string{
		"":                         {"build", "environments", "version"},
		".build":                   {"commands"},
		".environments[]":          {"account", "name", "region", "stacks"},
		".environments[].stacks[]": {"name", "path"},
		".cache[]":                 {"key", "paths"},
		".notifications[]":         {"target", "type"},
	}, got)
}
