package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/chaos"
)

// chaosLimit bounds the runs of the sample: seven, one after the other.
const chaosLimit = 40 * time.Minute

// TestChaos_Sample kills the plugin at six of the boundaries that `make chaos`
// goes through as a whole: the run ends as if nothing had happened, or one
// retry completes it, and everything was done once.
func TestChaos_Sample(t *testing.T) {
	l := needLab(t)
	ctx, cancel := context.WithTimeout(t.Context(), chaosLimit)
	defer cancel()
	h, err := chaos.New(ctx, l, "..", t.TempDir(), "sample", t.Output())
	require.NoError(t, err)
	seen, err := h.Record(ctx)
	require.NoError(t, err)
	cases, err := chaos.Sample(seen)
	require.NoError(t, err)
	require.Len(t, cases, 6)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			result, err := h.Run(ctx, c)
			require.NoError(t, err)
			require.Equal(t, chaos.OK, result.Verdict, "%s: %s", result.Workflow, result.Why)
			require.Len(t, result.Fired, 1)
			t.Logf("%.1f s, retried: %t %s", result.Seconds, result.Retried, result.First)
		})
	}
}
