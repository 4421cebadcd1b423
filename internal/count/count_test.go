package count_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/count"
)

func TestOf(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0 test commands", 1: "1 test command", 2: "2 test commands"} {
		require.Equal(t, want, count.Of(n, "test command"))
	}
}
