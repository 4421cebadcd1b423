package worker_test

import (
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/worker"
)

func TestExit_LastLines(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := worker.Exit{Tail: rapid.SliceOfN(rapid.Byte(), 0, 5000).Draw(t, "tail")}.LastLines()
		require.LessOrEqual(t, len(text), 1300)
		require.True(t, utf8.ValidString(text))
	})
	require.Equal(t, "it printed nothing", worker.Exit{Tail: []byte(" \n")}.LastLines())
	require.Equal(t, "its last output: 3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14", worker.Exit{Tail: []byte("1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n")}.LastLines())
}
