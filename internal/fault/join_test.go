package fault_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

func TestJoin(t *testing.T) {
	t.Parallel()
	require.NoError(t, fault.Join("validate", "", nil, nil))
	plain := errors.New("odd")
	require.Same(t, plain, fault.Join("validate", "", nil, plain))
	stopped := fault.Newf(fault.Cancelled, fault.Cancellation, "", "", "stopped")
	broken := fault.Newf(fault.User, fault.StackFailed, "deploy a", "Mend a", "no")
	err := fault.Join("deploy dev", "Mend all", stopped, broken, plain)
	require.Equal(t, &fault.Fault{Class: fault.User, Reason: fault.StackFailed, Op: "deploy dev", Remedy: "Mend all", Err: fault.From(err).Err}, err)
	require.EqualError(t, err, "deploy dev: 3 findings: (1) stopped [Cancelled]; (2) deploy a: no. Mend a [StackFailed]; (3) odd [Internal]")
	require.Equal(t, fault.Cancellation, fault.From(fault.Join("", "", stopped, stopped)).Reason)
}

func TestText_OneFindingALine(t *testing.T) {
	t.Parallel()
	err := fault.Join("validate", "Mend all", fault.Newf(fault.User, fault.StackFailed, "deploy a", "Mend a", "no. Mend it"), errors.New("odd"))
	require.Equal(t, "validate: 2 findings:\n(1) deploy a: no. Mend it. Mend a [StackFailed]\n(2) odd [Internal]\nMend all [StackFailed]", fault.Text(err))
	require.Equal(t, "dev: validate: 2 findings:\n(1) deploy a: no. Mend it. Mend a [StackFailed]\n(2) odd [Internal]\nMend all [StackFailed]",
		fault.Text(fmt.Errorf("dev: %w", err)))
	require.Equal(t, "odd [Internal]", fault.Text(errors.New("odd")))
}
