package synth

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func drawObject(depth int) *rapid.Generator[object] {
	values := []*rapid.Generator[any]{rapid.Just[any](nil), rapid.Just[any](true), rapid.Map(rapid.IntRange(0, 3), func(i int) any { return float64(i) })}
	if depth > 0 {
		values = append(values, rapid.Map(drawObject(depth-1), func(o object) any { return o }))
	}
	return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c", "<&>"}), rapid.OneOf(values...), 0, 4)
}

// The last layer wins, what only one layer has stays, merging is associative,
// and no layer is changed.
func TestMergeObjects(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawObject(2).Draw(t, "a"), drawObject(2).Draw(t, "b"), drawObject(2).Draw(t, "c")
		before, err := json.Marshal([]object{a, b, c})
		require.NoError(t, err)
		merged := mergeObjects(a, b, c)
		require.Equal(t, merged, mergeObjects(mergeObjects(a, b), c))
		for key, value := range c {
			if _, isObject := value.(object); !isObject {
				require.Equal(t, value, merged[key])
			}
		}
		for _, layer := range []object{a, b, c} {
			for key := range layer {
				require.Contains(t, merged, key)
			}
		}
		after, err := json.Marshal([]object{a, b, c})
		require.NoError(t, err)
		require.JSONEq(t, string(before), string(after))
	})
}

// Nothing of the context is lost or doubled, and the variable's part fits.
func TestSplitContext(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		context := object{}
		for key, size := range rapid.MapOfN(rapid.StringMatching(`[a-z]{1,8}`), rapid.IntRange(0, 40_000), 0, 12).Draw(t, "sizes") {
			context[key] = strings.Repeat("é", size/2)
		}
		small, overflow, err := splitContext(context)
		require.NoError(t, err)
		require.LessOrEqual(t, len(small), maxContextBytes)
		together := object{}
		require.NoError(t, json.Unmarshal(small, &together))
		if overflow != nil {
			var rest object
			require.NoError(t, json.Unmarshal(overflow, &rest))
			require.NotEmpty(t, rest)
			for key, value := range rest {
				require.NotContains(t, together, key)
				together[key] = value
			}
		}
		require.Equal(t, context, together)
	})
}

func TestLastLines(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := lastLines(rapid.SliceOfN(rapid.Byte(), 0, 5000).Draw(t, "tail"))
		require.LessOrEqual(t, len(text), 1300)
		require.True(t, utf8.ValidString(text))
	})
	require.Equal(t, "it printed nothing", lastLines([]byte(" \n")))
	require.Equal(t, "its last output: 3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14", lastLines([]byte("1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n")))
}
