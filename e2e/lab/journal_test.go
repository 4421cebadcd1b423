package lab_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/lab"
)

func TestQuantile_IsOneOfTheValues(t *testing.T) {
	t.Parallel()
	values := []time.Duration{5, 1, 4, 2, 3}
	require.Equal(t, time.Duration(3), lab.Quantile(values, 0.5))
	require.Equal(t, time.Duration(5), lab.Quantile(values, 0.95))
	require.Equal(t, time.Duration(1), lab.Quantile(values, 0))
	require.Equal(t, time.Duration(5), lab.Quantile(values, 1))
	require.Equal(t, time.Duration(2), lab.Quantile([]time.Duration{1, 2, 3, 4}, 0.5))
	require.Zero(t, lab.Quantile(nil, 0.5))
	require.Equal(t, []time.Duration{5, 1, 4, 2, 3}, values, "the values stay as they are")
}
