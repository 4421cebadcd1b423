package jsonlimit_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/jsonlimit"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	require.NoError(t, jsonlimit.Check(nil, 0))
	require.NoError(t, jsonlimit.Check([]byte(`1`), 0))
	require.NoError(t, jsonlimit.Check([]byte(`{"a":[1,[2],{}],"b":{"c":[]}}`), 3))
	require.NoError(t, jsonlimit.Check([]byte(`{"[[[\"{{{":"[[[\\"}`), 1), "text nests nothing")
	require.NoError(t, jsonlimit.Check([]byte(`[],[],[]`), 1))
	require.EqualError(t, jsonlimit.Check([]byte(`{"a":[[1]]}`), 2), "it is nested more than 2 levels deep (at byte 6)")
	require.Error(t, jsonlimit.Check([]byte(strings.Repeat("[", 1_000_000)), 256), "unfinished JSON has a depth too")
}

// What is measured is what a decoder finds.
func TestCheck_AgreesWithDecoding(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		value := draw(t, rapid.IntRange(0, 6).Draw(t, "depth"))
		data, err := json.Marshal(value)
		require.NoError(t, err)
		depth := depthOf(value)
		require.NoError(t, jsonlimit.Check(data, depth))
		if depth > 0 {
			require.Error(t, jsonlimit.Check(data, depth-1))
		}
	})
}

func draw(t *rapid.T, depth int) any {
	if depth == 0 {
		return rapid.OneOf(rapid.Map(rapid.StringMatching(`["\\\[\]{}a]{0,6}`), func(s string) any { return s }), rapid.Just[any](nil)).Draw(t, "value")
	}
	n := rapid.IntRange(0, 2).Draw(t, "items")
	if rapid.Bool().Draw(t, "object") {
		object := map[string]any{}
		for range n {
			object[rapid.StringMatching(`["\\\[\]{}a]{0,6}`).Draw(t, "key")] = draw(t, depth-1)
		}
		return object
	}
	list := []any{}
	for range n {
		list = append(list, draw(t, depth-1))
	}
	return list
}

func depthOf(value any) int {
	deepest := 0
	switch v := value.(type) {
	case map[string]any:
		for _, item := range v {
			deepest = max(deepest, depthOf(item))
		}
	case []any:
		for _, item := range v {
			deepest = max(deepest, depthOf(item))
		}
	default:
		return 0
	}
	return deepest + 1
}
