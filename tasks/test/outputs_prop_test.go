package test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Every output of every stack is a variable that a shell can name, and has the
// value of one of the outputs with that name.
//
// Feature: aphex-pipeline, Property 24: Stage output propagation
func TestOutputVariables_EveryOutputHasOne(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(rapid.StringMatching(`[A-Za-z][A-Za-z0-9-]{0,12}`), rapid.SampledFrom([]string{"a-b", "a_b", "A-B", "ü", "x y", "007"}))
		outputs := rapid.MapOfN(name, rapid.MapOfN(name, rapid.String(), 0, 4), 0, 4).Draw(t, "outputs")
		vars, named := outputVariables(outputs), map[string]bool{}
		for stack, keys := range outputs {
			for key := range keys {
				named[variableName(stack, key)] = true
			}
		}
		require.Len(t, vars, len(named))
		for variable, value := range vars {
			require.Regexp(t, `^APHEX_OUTPUT_[A-Z0-9_]+$`, variable)
			require.True(t, named[variable])
			found := false
			for stack, keys := range outputs {
				for key, is := range keys {
					found = found || variableName(stack, key) == variable && is == value
				}
			}
			require.True(t, found, "%s has a value that no output has", variable)
		}
		require.Equal(t, vars, outputVariables(outputs), "every try sees the same")
	})
}
