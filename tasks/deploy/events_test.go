package deploy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/cfn"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// kept is what was kept.
type kept struct {
	events []record.Events
	err    error
}

func (k *kept) PutEvents(ctx context.Context, e record.Events) error {
	k.events = append(k.events, e)
	return errors.Join(ctx.Err(), k.err)
}

func TestStoreEvents(t *testing.T) {
	t.Parallel()
	k := &kept{}
	var out bytes.Buffer
	d := &deployment{
		stage: New(Config{Events: k, Redact: func(s string) string { return strings.ReplaceAll(s, "s3cret", "***") }}),
		req:   task.Request{Run: task.Run{UID: "u1", Epoch: "e1"}, Attempt: 2}, env: task.Env{Output: &out},
		target: pipeline.Environment{Name: "dev", Account: "111111111111", Region: "eu-west-1"},
	}
	said := newEvents()
	d.storeEvents(t.Context(), "as-wanted", said)
	require.Empty(t, k.events, "what an earlier attempt said is not overwritten by nothing")

	said.add(cfn.Event{Stack: "api", Status: "CREATE_FAILED", Reason: "value s3cret is no good"})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	d.storeEvents(cancelled, "api", said)
	require.Len(t, k.events, 1)
	require.Empty(t, out.String(), "a cancelled stage keeps them too")
	require.Equal(t, "value *** is no good", k.events[0].Events[0].Reason)
	require.Equal(t, []string{"u1", "dev", "api"}, []string{k.events[0].WorkflowID, k.events[0].Environment, k.events[0].Stack})

	require.Equal(t, []any{"e1", 2}, []any{k.events[0].Epoch, k.events[0].Attempt})
	require.False(t, k.events[0].Truncated)

	k.err = errors.New("no bucket")
	d.storeEvents(t.Context(), "api", said)
	require.Contains(t, out.String(), "the events of api could not be kept: no bucket")
}

// The beginning and the end are kept, which is where a failure is.
func TestStoreEvents_LeavesOutWhatIsBetween(t *testing.T) {
	t.Parallel()
	const room = firstEvents + lastEvents
	for _, n := range []int{1, firstEvents, room - 1, room, room + 1, room + lastEvents, room + lastEvents + 7} {
		k := &kept{}
		d := &deployment{stage: New(Config{Events: k}), env: task.Env{Output: io.Discard}}
		said := newEvents()
		var want []string
		for i := range n {
			id := strconv.Itoa(i)
			said.add(cfn.Event{LogicalID: id})
			if i < firstEvents || i >= n-lastEvents {
				want = append(want, id)
			}
		}
		d.storeEvents(t.Context(), "api", said)
		var ids []string
		for _, event := range k.events[0].Events {
			ids = append(ids, event.LogicalID)
		}
		require.Equal(t, want, ids, "%d", n)
		require.Equal(t, n-len(want), k.events[0].Omitted, "%d", n)
		require.Equal(t, n > room, k.events[0].Truncated, "%d", n)
		if n > room {
			require.Equal(t, strconv.Itoa(firstEvents-1), ids[k.events[0].OmittedAfter-1], "they are missing after this one")
		}
	}
}

func TestReport_IsMadeOnceAndFailsNothing(t *testing.T) {
	t.Parallel()
	var told [][]Deployment
	var out bytes.Buffer
	d := &deployment{env: task.Env{Output: &out}, stage: New(Config{Deployed: func(ctx context.Context, _ task.Request, stacks []Deployment) error {
		told = append(told, stacks)
		return errors.Join(ctx.Err(), errors.New("nobody listens"))
	}})}
	d.report(t.Context())
	require.Empty(t, told)
	d.ended = []Deployment{{Stack: "api", Succeeded: true}, {Stack: "web"}}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	d.report(cancelled)
	require.Equal(t, [][]Deployment{d.ended}, told)
	require.Contains(t, out.String(), "warning: nobody listens")
	require.NotContains(t, out.String(), "canceled")
}
