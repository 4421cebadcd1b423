package bytesize_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/bytesize"
)

func TestFormat(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 4404019: "4.2 MiB", 5 << 40: "5.0 TiB", 5 << 50: "5120.0 TiB"} {
		require.Equal(t, want, bytesize.Format(n))
	}
}
