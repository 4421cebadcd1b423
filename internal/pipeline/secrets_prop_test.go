package pipeline

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Wherever a secret of a known format or under a telling name stands, it is
// found, and no message shows it.
//
// Feature: aphex-pipeline, Property 15: Credential absence in configuration
func TestLoad_InjectedSecretIsFoundAndNotShown(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.TrimSpace(fmt.Sprintf(host, "comment", "npm ci", "text", "key")), "\n")
	rapid.Check(t, func(t *rapid.T) {
		samples := secretSamples(rapid.Uint64().Draw(t, "seed"))
		// These two are told by chance alone: TestIsRandom says how often.
		delete(samples, "base64 of 32")
		delete(samples, "base36 of 50")
		samples["aws secret"] = "AWS_SECRET_ACCESS_KEY=" + samples["aws secret"]
		name := rapid.SampledFrom(slices.Sorted(maps.Keys(samples))).Draw(t, "format")
		sample := samples[name]
		hidden := secretPart(name, sample)
		if name == "aws secret" {
			hidden = strings.TrimPrefix(sample, "AWS_SECRET_ACCESS_KEY=")
		}
		if name == "bearer" && rapid.Bool().Draw(t, "case") {
			sample = strings.ToLower(sample[:15]) + sample[15:]
		}
		around := rapid.SampledFrom([]string{"%s", "echo %s", "x=1 %s; y", "(%s)", "<%s>", "a, %s, b", "„%s“"}).Draw(t, "around")
		if strings.Contains(name, "aws s") || name == "flag" { // need a delimiter that their format knows
			around = rapid.SampledFrom([]string{"%s", "echo %s", "a, %s ,b"}).Draw(t, "around it")
		}
		text := fmt.Sprintf(around, sample)
		form := rapid.SampledFrom([]string{"# %s", "x-a: '%s'", "x-a: [\"%s\"]", "x-a: |\n  %s", "x-a: >\n  some\n  %s\n  text", "'%s': 1", "zzz: '%s'", "tools: ['%s']", "%s"}).Draw(t, "form")
		at := rapid.SampledFrom([]int{0, 1, 2, 7}).Draw(t, "line")
		document := strings.Join(slices.Insert(slices.Clone(lines), at, fmt.Sprintf(form, text)), "\n")
		_, err := Load("c", []byte(document))
		invalid, ok := errors.AsType[*InvalidError](err)
		require.True(t, ok, "nothing found in:\n%s", document)
		require.True(t, slices.ContainsFunc(invalid.Findings, func(f Finding) bool {
			return strings.Contains(f.Message, "must not hold secrets")
		}), "%v in:\n%s", invalid.Findings, document)
		require.NotContains(t, err.Error(), hidden)
	})
}
