package redact_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/redact"
)

func TestFinder_FindsHoweverItIsSplit(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.StringMatching(`[!-~]{16,40}`).Draw(t, "value")
		filler := rapid.StringMatching(`[a-c\n]{0,50}`)
		inside := rapid.SampledFrom([]string{value, base64.StdEncoding.EncodeToString([]byte("user:" + value))}).Draw(t, "form")
		text := filler.Draw(t, "before") + inside + filler.Draw(t, "behind")
		finder := redact.NewFinder("another-value-that-is-long", value)
		for len(text) > 0 {
			n := rapid.IntRange(1, len(text)).Draw(t, "n")
			_, err := finder.Write([]byte(text[:n]))
			require.NoError(t, err)
			text = text[n:]
		}
		require.True(t, finder.Found())
		require.False(t, finder.Found(), "each call begins anew")
		_, _ = finder.Write([]byte(value[:15]))
		require.False(t, finder.Found())
		_, _ = finder.Write([]byte(value[15:]))
		require.False(t, finder.Found(), "no value goes over two files")
	})
}

func TestFinder_LeavesShortValuesAlone(t *testing.T) {
	t.Parallel()
	finder := redact.NewFinder("deploy", strings.Repeat("x", redact.MinFound-1))
	_, err := finder.Write([]byte("deploy " + strings.Repeat("x", 100)))
	require.NoError(t, err)
	require.False(t, finder.Found())
}
