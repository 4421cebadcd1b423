package synth

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func drawObject(depth int) *rapid.Generator[object] {
	values := []*rapid.Generator[any]{rapid.Just[any](nil), rapid.Just[any](true), rapid.Map(rapid.IntRange(0, 3), func(i int) any { return json.Number(strconv.Itoa(i)) })}
	if depth > 0 {
		values = append(values, rapid.Map(drawObject(depth-1), func(o object) any { return o }))
	}
	return rapid.Custom(func(t *rapid.T) object {
		o := object{values: map[string]any{}}
		for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "<&>"}), 0, 4, rapid.ID).Draw(t, "keys") {
			o.set(key, rapid.OneOf(values...).Draw(t, key))
		}
		return o
	})
}

// The last layer wins, what only one layer has stays, a key is where the first
// layer puts it, merging is associative, and no layer is changed.
func TestMergeObjects(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		layers := []object{drawObject(2).Draw(t, "a"), drawObject(2).Draw(t, "b"), drawObject(2).Draw(t, "c")}
		before, err := encode(layers)
		require.NoError(t, err)
		merged := mergeObjects(layers...)
		require.Equal(t, merged, mergeObjects(mergeObjects(layers[0], layers[1]), layers[2]))
		for key, value := range layers[2].values {
			if _, isObject := value.(object); !isObject {
				require.Equal(t, value, merged.values[key])
			}
		}
		var order []string
		for _, layer := range layers {
			for _, key := range layer.keys {
				if !slices.Contains(order, key) {
					order = append(order, key)
				}
			}
		}
		require.Equal(t, order, merged.keys)
		after, err := encode(layers)
		require.NoError(t, err)
		require.Equal(t, string(before), string(after))
	})
}

// What is written is read again as it was, in its order.
func TestObject_RoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := drawObject(3).Draw(t, "object")
		data, err := encode(o)
		require.NoError(t, err)
		again, err := decodeObject(data)
		require.NoError(t, err)
		require.Equal(t, o, again)
	})
}

// The order is that of the command line: JavaScript's deep merge.
func TestMergeObjects_KeepsTheOrderOfTheCLI(t *testing.T) {
	t.Parallel()
	read := func(text string) object {
		o, err := decodeObject([]byte(text))
		require.NoError(t, err)
		return o
	}
	for _, c := range []struct{ layers, want string }{
		{`{"z": 1, "a": 2}`, `{"z":1,"a":2}`},
		{`{"z": {"y": 1, "b": 2}} {"m": 0, "z": {"a": 3, "y": 4}}`, `{"z":{"y":4,"b":2,"a":3},"m":0}`},
		{`{"z": 1, "k": 1} {"z": {"y": 1, "b": 2}}`, `{"z":{"y":1,"b":2},"k":1}`},
		{`{"z": {"y": 1}, "k": 1} {"z": [{"y": 2, "b": 1}]}`, `{"z":[{"y":2,"b":1}],"k":1}`},
		{`{"z": 1, "a": 1, "z": 12345678901234567890}`, `{"z":12345678901234567890,"a":1}`},
		{`{"a": {"constructor": 1, "b": 1}, "__proto__": {"x": 1}, "prototype": 1} {"a": {"c": "<&>"}}`, `{"a":{"b":1,"c":"<&>"}}`},
		{`{"z": {"y": 1}} {"z": {}}`, `{"z":{"y":1}}`},
	} {
		decoder := json.NewDecoder(strings.NewReader(c.layers))
		var layers []object
		for decoder.More() {
			var layer json.RawMessage
			require.NoError(t, decoder.Decode(&layer))
			layers = append(layers, read(string(layer)))
		}
		merged, err := encode(mergeObjects(layers...))
		require.NoError(t, err)
		require.Equal(t, c.want, string(merged))
	}
	fromConfiguration, err := encode(sorted(map[string]any{"z": map[string]any{"y": 1, "b": []any{map[string]any{"d": 1.5, "c": nil}}}, "a": true}))
	require.NoError(t, err)
	require.Equal(t, `{"a":true,"z":{"b":[{"c":null,"d":1.5}],"y":1}}`, string(fromConfiguration))
}

// Nothing of the context is lost or doubled, its order stays, and the
// variable's part fits.
func TestSplitContext(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		context := object{values: map[string]any{}}
		for key, size := range rapid.MapOfN(rapid.StringMatching(`[a-z]{1,8}`), rapid.IntRange(0, 40_000), 0, 12).Draw(t, "sizes") {
			context.set(key, strings.Repeat("é", size/2))
		}
		small, overflow, err := splitContext(context)
		require.NoError(t, err)
		require.LessOrEqual(t, len(small), maxContextBytes)
		together, err := decodeObject(small)
		require.NoError(t, err)
		if overflow != nil {
			rest, err := decodeObject(overflow)
			require.NoError(t, err)
			require.NotEmpty(t, rest.keys)
			for _, key := range rest.keys {
				require.False(t, together.has(key), key)
				together.set(key, rest.values[key])
			}
		}
		require.Equal(t, context, together)
	})
}
