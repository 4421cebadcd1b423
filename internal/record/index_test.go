package record

import (
	"fmt"
	"os"
	"path/filepath"
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

	runs, unread, err := r.Runs(t.Context(), 4)
	require.NoError(t, err)
	var ids []string
	for _, run := range runs {
		ids = append(ids, run.WorkflowID)
	}
	require.Equal(t, []string{"u11", "u10", "u9"}, ids)
	require.Empty(t, unread)
	require.Len(t, runs[0].Stages, 1, "stages of a run under way are those so far")
	require.Equal(t, Succeeded, runs[1].Status)

	all, _, err := r.Runs(t.Context(), 100)
	require.NoError(t, err)
	require.Len(t, all, 12)
	_, err = r.Show(t.Context(), "none")
	require.ErrorIs(t, err, store.ErrNotFound)
}

func TestRuns_OneThatIsDamagedHidesNoOther(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bucket := store.NewDir(dir)
	r := New(bucket)
	begin := time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)
	for i := range 5 {
		require.NoError(t, r.Begin(t.Context(), Run{WorkflowID: fmt.Sprintf("u%d", i), WorkflowName: fmt.Sprintf("shop-%d", i), TriggeredAt: begin.Add(time.Duration(i) * time.Minute)}))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, RunKey("u1")), []byte("{}"), 0o600)) // behind the store's back
	_, err := bucket.Put(t.Context(), RunKey("u2"), strings.NewReader("{"), store.PutOptions{})
	require.NoError(t, err)
	_, err = bucket.Put(t.Context(), StageKey("u3", "build", ""), strings.NewReader("[]"), store.PutOptions{})
	require.NoError(t, err)

	runs, unread, err := r.Runs(t.Context(), 4)
	require.NoError(t, err)
	require.Len(t, runs, 1)
	require.Equal(t, "u4", runs[0].WorkflowID)
	require.Len(t, unread, 3)
	for n, want := range []string{"3", "2", "1"} {
		require.Equal(t, []string{"u" + want, "shop-" + want}, []string{unread[n].UID, unread[n].Name})
		require.ErrorIs(t, unread[n].Err, &fault.Fault{Reason: fault.StoreFailed})
	}
	require.Equal(t, begin.Add(time.Minute), unread[2].TriggeredAt)
}

func TestFind_ByNameAndUID(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	r := New(bucket)
	begin := time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)
	names := map[string]string{"u1": "shop", "u2": "shop-1", "u3": "shop", "a_b=c": "a_b=c"}
	for uid, name := range names {
		require.NoError(t, r.Begin(t.Context(), Run{WorkflowID: uid, WorkflowName: name, TriggeredAt: begin.Add(time.Duration(uid[1]) * time.Minute)}))
	}
	// Of a run whose name the index does not have, and of one that has it twice.
	for _, name := range []string{"old", "u2"} {
		_, err := bucket.Put(t.Context(), indexPrefix+indexName(begin.Add('2'*time.Minute), name), strings.NewReader(""), store.PutOptions{})
		require.NoError(t, err)
	}
	for name, want := range map[string][]string{
		"shop": {"u3", "u1"}, "shop-1": {"u2"}, "u1": {"u1"}, "old": {"old"}, "a_b=c": {"a_b=c"}, "sho": nil,
	} {
		found, err := r.Find(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, want, found, name)
	}
	runs, _, err := r.Runs(t.Context(), 10)
	require.NoError(t, err)
	require.Len(t, runs, len(names), "each once")
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

func TestEvents_OfEveryTry(t *testing.T) {
	t.Parallel()
	r := New(store.NewDir(t.TempDir()))
	put := func(epoch string, attempt int, stack, status string) {
		require.NoError(t, r.PutEvents(t.Context(), Events{
			WorkflowID: "u1", Environment: "dev", Stack: stack, Epoch: epoch, Attempt: attempt, Events: []Event{{Status: status}},
		}))
	}
	put("2026-11-24T06:00:00Z", 2, "api", "CREATE_FAILED")
	put("2026-11-24T06:00:00Z", 10, "api", "ROLLBACK_FAILED")
	put("2026-11-24T07:00:00Z", 1, "web", "CREATE_COMPLETE")
	put("2026-11-24T07:00:00Z", 1, "api", "UPDATE_COMPLETE")
	statuses := func(events []Events, err error) (found []string) {
		require.NoError(t, err)
		for _, e := range events {
			found = append(found, e.Events[0].Status)
		}
		return found
	}
	require.Equal(t, []string{"UPDATE_COMPLETE"}, statuses(r.Events(t.Context(), "u1", "api")))
	require.Equal(t, []string{"CREATE_FAILED", "ROLLBACK_FAILED", "UPDATE_COMPLETE"}, statuses(r.TriedEvents(t.Context(), "u1", "api")))
	require.Len(t, statuses(r.TriedEvents(t.Context(), "u1", "")), 4)
	require.Empty(t, statuses(r.TriedEvents(t.Context(), "u2", "")))
}

// Test results of each try are beside its events, and are none.
func TestEvents_OfEveryTryWithoutItsTests(t *testing.T) {
	t.Parallel()
	r := New(store.NewDir(t.TempDir()))
	const epoch = "2026-11-24T06:00:00Z"
	for _, environment := range []string{"dev", "api"} {
		for _, key := range (TestResult{WorkflowID: "u1", Environment: environment, Epoch: epoch}).Keys() {
			require.NoError(t, r.put(t.Context(), key, TestResult{}))
		}
	}
	require.NoError(t, r.PutEvents(t.Context(), Events{WorkflowID: "u1", Environment: "dev", Stack: "api", Epoch: epoch}))
	for _, stack := range []string{"", "api"} {
		found, err := r.TriedEvents(t.Context(), "u1", stack)
		require.NoError(t, err)
		require.Len(t, found, 1, "%+v", found)
		require.Equal(t, "api", found[0].Stack)
	}
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
	require.ErrorContains(t, err, "read "+key+": this is no record: it is larger than the 16 MiB")
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

// A record that could not be written at first, or that was deleted, is written
// anew with another time: the index then has the run twice.
func TestRuns_OneThatBeganTwiceIsListedOnce(t *testing.T) {
	t.Parallel()
	r := New(store.NewDir(t.TempDir()))
	begin := time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)
	require.NoError(t, r.putIndex(t.Context(), indexKey(Run{WorkflowID: "u1", WorkflowName: "shop-1", TriggeredAt: begin})))
	require.NoError(t, r.Begin(t.Context(), Run{WorkflowID: "u2", WorkflowName: "shop-2", TriggeredAt: begin.Add(time.Minute)}))
	_, _, err := r.Finish(t.Context(), Run{WorkflowID: "u1", WorkflowName: "shop-1"}, Failed, begin.Add(2*time.Minute))
	require.NoError(t, err)
	found, err := r.Find(t.Context(), "shop-1")
	require.NoError(t, err)
	require.Equal(t, []string{"u1"}, found)
	runs, _, err := r.Runs(t.Context(), 2)
	require.NoError(t, err)
	require.Len(t, runs, 2)
	require.Equal(t, "u1", runs[0].WorkflowID)
	require.Equal(t, "u2", runs[1].WorkflowID)
}
