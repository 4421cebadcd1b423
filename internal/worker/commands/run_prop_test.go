package commands_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/worker/commands"
)

// Any list of commands runs in its order, each with its own text whatever it
// holds, and none after the first that fails.
//
// Feature: aphex-pipeline, Property 3: Build command execution
// Feature: aphex-pipeline, Property 12: Test command execution
func TestRun_AnyListInOrder(t *testing.T) {
	t.Parallel()
	client, dir := start(t)
	tried := 0
	rapid.Check(t, func(t *rapid.T) {
		tried++
		file := filepath.Join(dir, fmt.Sprintf("said-%d", tried))
		texts := rapid.SliceOfN(rapid.OneOf(
			rapid.StringMatching(`[ -~]{0,30}`),
			rapid.SampledFrom([]string{"", " ", "'", `"; exit 1; "`, "$(exit 3)", "a\nb", "%s", "-n", "\\", "é \U0001F680", strings.Repeat("x", 3000)}),
		), 1, 6).Draw(t, "texts")
		fails := rapid.IntRange(0, 2*len(texts)).Draw(t, "fails") // beyond the list: none
		list := make([]string, 0, len(texts))
		var want strings.Builder
		for n, text := range texts {
			command := fmt.Sprintf("printf '%%s\\0' '%s' >> %s", strings.ReplaceAll(text, "'", `'\''`), file)
			if n == fails {
				command += "; (exit 7)"
			}
			list = append(list, command)
			if n <= fails {
				want.WriteString(text + "\x00")
			}
		}
		var log bytes.Buffer
		results, err := commands.Run(t.Context(), client, commands.List{Commands: list}, &log)
		said, readErr := os.ReadFile(file)
		require.NoError(t, readErr)
		require.Equal(t, want.String(), string(said))
		if fails < len(texts) {
			require.ErrorContains(t, err, fmt.Sprintf("run command %d of %d", fails+1, len(texts)))
			require.Len(t, results, fails+1)
			return
		}
		require.NoError(t, err)
		require.Len(t, results, len(texts))
	})
}
