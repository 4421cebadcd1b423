package record

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/store"
)

// meddler does something, once, between reading and writing.
type meddler struct {
	*store.Dir

	before func()
}

func (m *meddler) Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error) {
	if meddle := m.before; meddle != nil {
		m.before = nil
		meddle()
	}
	return m.Dir.Put(ctx, key, body, opts)
}

// A stage that is slow must not open what its own try has closed meanwhile.
func TestReopen_UndoesNothingWrittenMeanwhile(t *testing.T) {
	t.Parallel()
	const first, second = "2026-11-24T06:00:00Z", "2026-11-24T07:00:00Z"
	dir := store.NewDir(t.TempDir())
	others := New(dir)
	at := time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)
	require.NoError(t, others.Begin(t.Context(), Run{WorkflowID: "u1", TriggeredAt: at}))
	require.NoError(t, others.PutStage(t.Context(), "u1", Stage{Stage: "build", Epoch: first, StartedAt: at, Status: Failed}))
	_, _, err := others.Finish(t.Context(), Run{WorkflowID: "u1"}, Failed, at.Add(time.Minute))
	require.NoError(t, err)

	slow := New(&meddler{Dir: dir, before: func() {
		require.NoError(t, others.Reopen(t.Context(), "u1", second, at.Add(time.Hour)))
		require.NoError(t, others.PutStage(t.Context(), "u1", Stage{Stage: "build", Epoch: second, StartedAt: at, Status: Succeeded}))
		_, _, err := others.Finish(t.Context(), Run{WorkflowID: "u1"}, Succeeded, at.Add(2*time.Hour))
		require.NoError(t, err)
	}})
	require.NoError(t, slow.Reopen(t.Context(), "u1", second, at.Add(time.Hour)))
	run, err := others.Run(t.Context(), "u1")
	require.NoError(t, err)
	require.Equal(t, Succeeded, run.Status)
	require.Equal(t, at.Add(2*time.Hour), *run.CompletedAt)

	require.ErrorIs(t, others.Reopen(t.Context(), "none", second, at), store.ErrNotFound)
}
