package git

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each file of testdata/messages is what git writes in such a case; the part of
// its name before the first dot is what it means.
func TestKindOf_KnowsTheSamples(t *testing.T) {
	t.Parallel()
	names := map[string]kind{
		"needs": needsCredentials, "refused": refusedCredentials, "forbidden": forbidden, "notfound": notFound,
		"commit": unknownCommit, "unadvertised": unadvertised, "unreachable": unreachable, "stalled": stalled,
		"untrusted": untrusted, "hostkey": hostKey, "space": noSpace, "other": other,
	}
	files, err := filepath.Glob("testdata/messages/*.txt")
	require.NoError(t, err)
	seen := map[kind]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		name, _, _ := strings.Cut(filepath.Base(file), ".")
		want, known := names[name]
		require.True(t, known, file)
		require.Equal(t, want, kindOf(string(text)), file)
		summed := summary(string(text))
		require.NotEmpty(t, summed)
		require.NotContains(t, summed, "\n")
		seen[want] = true
	}
	require.Len(t, seen, len(names), "a sample for every kind")
}
