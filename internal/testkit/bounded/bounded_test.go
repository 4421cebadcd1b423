package bounded_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/testkit/bounded"
)

// recorder is a test that keeps what it is told.
type recorder struct {
	testing.TB

	cleanups []func()
	errors   []string
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

var sink []byte

func TestHere(t *testing.T) { //nolint:paralleltest // others would be counted too
	for size, failures := range map[int]int{1 << 20: 0, 200 << 20: 1} {
		r := &recorder{TB: t}
		bounded.Here(r)
		for range 6 {
			sink = make([]byte, size)
		}
		for _, cleanup := range r.cleanups {
			cleanup()
		}
		require.Len(t, r.errors, failures)
	}
}
