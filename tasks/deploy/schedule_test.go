package deploy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// graphs are stacks that depend on some of those before them.
func graphs(t *rapid.T) []*assembly.Stack {
	stacks := make([]*assembly.Stack, rapid.IntRange(1, 12).Draw(t, "stacks"))
	for i := range stacks {
		stacks[i] = &assembly.Stack{Name: fmt.Sprintf("s%d", i)}
		for j := range i {
			if rapid.IntRange(0, 3).Draw(t, "edge") == 0 {
				stacks[i].Dependencies = append(stacks[i].Dependencies, stacks[j])
			}
		}
	}
	return stacks
}

// Whatever depends on whatever, and whatever fails in whichever order: never
// more than allowed at a time, nothing before what it depends on, nothing that
// depends on a failure, and all the rest.
//
// Feature: aphex-pipeline, Property 9: Stack deployment ordering
func TestSchedule_AnyGraph(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		stacks, limit := graphs(t), rapid.IntRange(1, 5).Draw(t, "limit")
		bad := rapid.SliceOfN(rapid.IntRange(0, 9), len(stacks), len(stacks)).Draw(t, "bad")
		plan := newSchedule(stacks, limit)
		var under, begun []int
		for {
			for i, ok := plan.next(); ok; i, ok = plan.next() {
				require.NotContains(t, begun, i)
				for _, dependency := range stacks[i].Dependencies {
					require.Equal(t, succeeded, plan.state[slices.Index(stacks, dependency)])
				}
				plan.state[i] = running
				under, begun = append(under, i), append(begun, i)
			}
			require.LessOrEqual(t, len(under), limit)
			if len(under) == 0 {
				break
			}
			at := rapid.IntRange(0, len(under)-1).Draw(t, "ends")
			i := under[at]
			under = slices.Delete(under, at, at+1)
			plan.state[i] = succeeded
			if bad[i] == 0 {
				plan.state[i] = failed
			}
		}
		if limit == 1 {
			last := slices.IndexFunc(bad, func(b int) bool { return b == 0 }) + 1
			if last == 0 {
				last = len(stacks)
			}
			require.Len(t, begun, last, "nothing begins after a failure")
			require.True(t, slices.IsSorted(begun), "in configured order")
			return
		}
		for i, stack := range stacks {
			blocked := slices.ContainsFunc(stack.Dependencies, func(d *assembly.Stack) bool { return plan.state[slices.Index(stacks, d)] != succeeded })
			require.Equal(t, blocked, plan.state[i] == waiting, "%s", stack.Name)
		}
	})
}

// A stack's failure is told with all others, and with what was not deployed
// because of it; a run that was cancelled between two stacks is no success.
func TestVerdict(t *testing.T) {
	t.Parallel()
	d := &deployment{env: task.Env{Logger: slog.New(slog.DiscardHandler)}, target: pipeline.Environment{Name: "dev", Concurrency: 4}}
	stacks := []*assembly.Stack{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d"}}
	plan := newSchedule(stacks, 4)
	plan.state = []progress{failed, succeeded, failed, waiting}
	cancelled := fault.Newf(fault.Cancelled, fault.Cancellation, "deploy stack a", "", "stopped")
	broken := fault.Newf(fault.User, fault.StackFailed, "deploy stack c", "Mend it", "no such bucket")

	err := d.verdict(t.Context(), plan, []error{cancelled, nil, broken, nil})
	require.Equal(t, fault.StackFailed, fault.From(err).Reason, "not that of the one that was merely cancelled")
	require.EqualError(t, err, "deploy dev: 2 findings: (1) deploy stack a: stopped [Cancelled]; (2) deploy stack c: no such bucket. Mend it [StackFailed]; not deployed: d")

	plan.state[0], plan.state[3] = succeeded, succeeded
	require.Same(t, broken, d.verdict(t.Context(), plan, []error{nil, nil, broken, nil}), "a single failure is told as it is")

	plan.state = []progress{succeeded, succeeded, waiting, waiting}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fault.Newf(fault.User, fault.StageTimeout, "deploy dev", "", "time is used up"))
	require.Equal(t, fault.StageTimeout, fault.From(d.verdict(ctx, plan, make([]error, 4))).Reason)

	plan.state = []progress{succeeded, succeeded, succeeded, succeeded}
	require.NoError(t, d.verdict(ctx, plan, make([]error, 4)))

	err = d.guarded(func() error { panic("boom") })
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.Internal})
	require.ErrorContains(t, err, "panic: boom")
	require.ErrorIs(t, d.guarded(func() error { return errors.ErrUnsupported }), errors.ErrUnsupported)
}
