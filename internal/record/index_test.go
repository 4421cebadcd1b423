package record

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/store"
)

func TestRuns_TheLatestFirst(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	r := New(bucket)
	begin := time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)
	for i := range 12 { // u11 is the latest; names do not sort like times
		require.NoError(t, r.Begin(t.Context(), Run{WorkflowID: fmt.Sprintf("u%d", i), TriggeredAt: begin.Add(time.Duration(i) * time.Minute)}))
	}
	require.NoError(t, r.PutStage(t.Context(), "u11", Stage{StageName: "build", Stage: "build", Status: Running}))
	_, _, err := r.Finish(t.Context(), Run{WorkflowID: "u10"}, Succeeded, begin.Add(time.Hour))
	require.NoError(t, err)
	// A retry keeps its place.
	require.NoError(t, r.Begin(t.Context(), Run{WorkflowID: "u9", TriggeredAt: begin.Add(time.Hour)}))
	// A run whose record is gone is passed over.
	_, err = bucket.Put(t.Context(), indexKey(Run{WorkflowID: "lost", TriggeredAt: begin.Add(2 * time.Hour)}), strings.NewReader(""), store.PutOptions{})
	require.NoError(t, err)

	runs, err := r.Runs(t.Context(), 4)
	require.NoError(t, err)
	var ids []string
	for _, run := range runs {
		ids = append(ids, run.WorkflowID)
	}
	require.Equal(t, []string{"u11", "u10", "u9"}, ids)
	require.Len(t, runs[0].Stages, 1, "stages of a run under way are those so far")
	require.Equal(t, Succeeded, runs[1].Status)

	all, err := r.Runs(t.Context(), 100)
	require.NoError(t, err)
	require.Len(t, all, 12)
	_, err = r.Show(t.Context(), "none")
	require.ErrorIs(t, err, store.ErrNotFound)
}

func TestEvents_ByStackAndEnvironment(t *testing.T) {
	t.Parallel()
	r := New(store.NewDir(t.TempDir()))
	for _, environment := range []string{"dev", "prod"} {
		for _, stack := range []string{"api", "shop-api"} {
			require.NoError(t, r.PutEvents(t.Context(), Events{WorkflowID: "u1", Environment: environment, Stack: stack, Events: []Event{{Status: "CREATE_COMPLETE"}}}))
		}
	}
	found, err := r.Events(t.Context(), "u1", "api")
	require.NoError(t, err)
	require.Len(t, found, 2, "the stack of that name in each environment, not one that ends like it")
	require.Equal(t, "dev", found[0].Environment)
	require.Equal(t, "CREATE_COMPLETE", found[0].Events[0].Status)
	found, err = r.Events(t.Context(), "u1", "")
	require.NoError(t, err)
	require.Len(t, found, 4)
	found, err = r.Events(t.Context(), "u2", "api")
	require.NoError(t, err)
	require.Empty(t, found)
}

func TestEvents_AsManyAsAreKeptAreReadBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := New(store.NewDir(dir))
	e := Events{WorkflowID: "u1", Environment: "dev", Stack: "api", Events: make([]Event, 4000)}
	for i := range e.Events {
		e.Events[i] = Event{Status: "CREATE_FAILED", LogicalID: strings.Repeat("L", 255), Path: strings.Repeat("p", 500), Reason: strings.Repeat("r", 1024)}
	}
	require.NoError(t, r.PutEvents(t.Context(), e))
	found, err := r.Events(t.Context(), "u1", "api")
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.True(t, slices.Equal(e.Events, found[0].Events), "all of them as they were")

	key := EventsKey("u1", "dev", "api")
	_, err = store.NewDir(dir).Put(t.Context(), key, strings.NewReader(`"`+strings.Repeat("x", maxRecordBytes)+`"`), store.PutOptions{})
	require.NoError(t, err)
	_, err = r.Events(t.Context(), "u1", "api")
	require.ErrorContains(t, err, "read "+key+": it is larger than the 16 MiB")
}

func TestShow_SaysWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	for text, want := range map[string]string{`{"status":7}`: "status", "": "unexpected end", strings.Repeat(" ", maxRecordBytes+1): "larger than the 16 MiB"} {
		_, err := bucket.Put(t.Context(), RunKey("u1"), strings.NewReader(text), store.PutOptions{})
		require.NoError(t, err)
		_, err = New(bucket).Show(t.Context(), "u1")
		require.ErrorIs(t, err, &fault.Fault{Reason: fault.StoreFailed})
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "runs/u1/run.json")
	}
}
