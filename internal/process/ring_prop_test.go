package process

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The ring holds exactly the last bytes, however they were cut into writes.
func TestRing_KeepsTheTail(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := ring{limit: rapid.IntRange(1, 40).Draw(t, "limit")}
		var all []byte
		for _, w := range rapid.SliceOf(rapid.SliceOfN(rapid.Byte(), 0, 60)).Draw(t, "writes") {
			n, err := r.Write(w)
			require.NoError(t, err)
			require.Equal(t, len(w), n)
			all = append(all, w...)
			want := all[max(0, len(all)-r.limit):]
			require.True(t, bytes.Equal(want, r.bytes()))
		}
	})
}
