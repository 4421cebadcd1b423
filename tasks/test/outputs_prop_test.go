package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Every output of every stack has a variable that a shell can name, with its
// value, but for those that would have the same one: they have none, and all of
// them are named.
//
// Feature: aphex-pipeline, Property 24: Stage output propagation
func TestOutputVariables_EveryOutputHasOne(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(rapid.StringMatching(`[A-Za-z][A-Za-z0-9-]{0,12}`), rapid.SampledFrom([]string{"a-b", "a_b", "A-B", "ü", "x y", "007"}))
		value := rapid.String().Filter(func(s string) bool { return !strings.Contains(s, "\x00") })
		outputs := rapid.MapOfN(name, rapid.MapOfN(name, value, 0, 4), 0, 4).Draw(t, "outputs")
		vars, left := outputVariables(outputs)
		named := map[string]int{}
		for stack, keys := range outputs {
			for key := range keys {
				named[variableName(stack, key)]++
			}
		}
		alone := 0
		for stack, keys := range outputs {
			for key, want := range keys {
				variable := variableName(stack, key)
				require.Regexp(t, `^APHEX_OUTPUT_[A-Z0-9_]+$`, variable)
				got, ok := vars[variable]
				if named[variable] == 1 {
					alone++
					require.True(t, ok, variable)
					require.Equal(t, want, got)
					continue
				}
				require.False(t, ok, "%s is one of %d", variable, named[variable])
				require.Condition(t, func() bool {
					for _, text := range left {
						if strings.Contains(text, stack+"."+key) && strings.HasSuffix(text, ", "+variable) {
							return true
						}
					}
					return false
				}, "%s.%s in %q", stack, key, left)
			}
		}
		require.Len(t, vars, alone)
		require.Len(t, left, len(named)-alone)
		again, leftAgain := outputVariables(outputs)
		require.Equal(t, vars, again, "every try sees the same")
		require.Equal(t, left, leftAgain)
	})
}

func TestOutputVariables_WhatTheSystemTakesNoVariableForIsLeftOut(t *testing.T) {
	t.Parallel()
	vars, left := outputVariables(map[string]map[string]string{"shop": {"Huge": strings.Repeat("x", 128<<10), "Nul": "a\x00b", "Url": "https://shop"}})
	require.Equal(t, map[string]string{"APHEX_OUTPUT_SHOP_URL": "https://shop"}, vars)
	require.Equal(t, []string{"no variable for output shop.Huge: its value has 131072 bytes", "no variable for output shop.Nul: its value has a NUL byte"}, left)

	many := map[string]string{}
	for i := range 3000 {
		many[fmt.Sprintf("Output%04d", i)] = strings.Repeat("x", 1<<10)
	}
	vars, left = outputVariables(map[string]map[string]string{"shop": many})
	total := 0
	for name, value := range vars {
		total += len(name) + len(value) + 2
	}
	require.LessOrEqual(t, total, 1<<20)
	require.Greater(t, total, 1<<20-2<<10)
	require.Equal(t, []string{fmt.Sprintf("no variable for %d more outputs: all variables together have at most 1048576 bytes", 3000-len(vars))}, left)
}
