package deploy

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

// Whatever apps the stacks of an environment are from, they are deployed one
// after the other as they are configured, and none is left out.
//
// Feature: aphex-pipeline, Property 9: Stack deployment ordering
func TestGroups_AnyOrderIsKept(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		stacks := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) pipeline.Stack {
			return pipeline.Stack{Name: rapid.StringMatching(`[A-Za-z][A-Za-z0-9-]{0,20}`).Draw(t, "name"), Path: rapid.SampledFrom([]string{"a", "a/lib", "b", "c/d/e"}).Draw(t, "path")}
		}), 1, 20, func(s pipeline.Stack) string { return s.Name }).Draw(t, "stacks")
		d := &deployment{stage: New(Config{Synth: apps{}}), target: pipeline.Environment{Stacks: stacks}}
		groups, err := d.groups(t.Context())
		require.NoError(t, err)
		var configured, deployed []string
		synthesized := map[string][]string{}
		for _, stack := range stacks {
			configured = append(configured, stack.Name)
		}
		for n, g := range groups {
			require.NotEmpty(t, g.stacks)
			require.False(t, n > 0 && groups[n-1].app == g.app, "one app after itself is one group")
			deployed = append(deployed, namesOf(g.stacks)...)
			synthesized[g.app] = append(synthesized[g.app], namesOf(g.stacks)...)
		}
		require.Equal(t, configured, deployed)
		for _, g := range groups {
			require.Equal(t, synthesized[g.app], namesOf(g.all), "an app is asked for its stacks of the environment, once and for all")
		}
	})
}

// Feature: aphex-pipeline, Property 11: Stack output capture
func TestOutputsDocument_LosesNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"<a>&b", "\u2028", `"`, "007", "\\u0041", "\x7f"}))
		outputs := rapid.MapOf(text, rapid.MapOf(text, text)).Draw(t, "outputs")
		document, err := outputsDocument(outputs)
		require.NoError(t, err)
		var read map[string]map[string]string
		require.NoError(t, json.Unmarshal(document, &read))
		require.Equal(t, outputs, read)
		again, err := outputsDocument(outputs)
		require.NoError(t, err)
		require.True(t, slices.Equal(document, again))
	})
}
