package stagelog_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/stagelog"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/testkit/bounded"
)

// memory is a bucket whose objects are whatever they are said to be.
type memory map[string]string

func (m memory) Put(_ context.Context, key string, body io.Reader, _ store.PutOptions) (store.Object, error) {
	text, err := io.ReadAll(body)
	m[key] = string(text)
	return store.Object{Key: key}, err
}

func (m memory) Get(_ context.Context, key string) (io.ReadCloser, store.Object, error) {
	text, ok := m[key]
	if !ok {
		return nil, store.Object{}, fault.Newf(fault.System, fault.StoreFailed, "read "+key, "", "%w", store.ErrNotFound)
	}
	return io.NopCloser(strings.NewReader(text)), store.Object{Key: key}, nil
}

func (m memory) List(_ context.Context, prefix string) ([]store.Object, error) {
	var found []store.Object
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if strings.HasPrefix(key, prefix) {
			found = append(found, store.Object{Key: key, Size: int64(len(m[key])), Modified: time.Unix(int64(len(key)), 0)})
		}
	}
	return found, nil
}

func (m memory) URL(key string) string { return "memory:" + key }

// FuzzBucket: whatever is in the bucket of a pipeline, the records and logs of
// a run are what they promise to be, or there is a reason.
func FuzzBucket(f *testing.F) {
	run := `{"schema_version":"1.0","workflow_id":"u","triggered_at":"2026-11-24T06:00:00Z","completed_at":null,"status":"running","stages":[]}`
	stage := `{"stage_name":"build","stage":"build","started_at":"2026-11-24T06:00:01Z","status":"running","error_message":null}`
	events := `{"schema_version":"1.0","stack":"shop","events":[{"time":"2026-11-24T06:00:01Z","status":"CREATE_COMPLETE"}]}`
	f.Add("build/20261124T060000Z-0/0001-000000000000.log\nbuild/20261124T060000Z-0/0001-000000000003.log\nbuild/20261124T060000Z-0/0002-000000000000.log", "one", "", run, stage, events)
	f.Add("deploy-env-dev/x/0001-9223372036854775807.log\ndeploy-env-dev/x/-1--9223372036854775808.log\n/\n//", "abc", "build/20261124T060000Z-0", run, `{"started_at":"x"}`, "{")
	f.Add("a/b/0001-000000000002.log\na/b/0001-000000000000.log\na/b/0001-1.log", "abc", "a/b", "null", "null", "[]")
	f.Add("", "", "", run, `{"status":"failed","tests":{"total":30,"failed":30,"failed_tests":[`+strings.Repeat(`{"name":"t"},`, 29)+`{"name":"t"}]}}`, events)
	f.Add("a/b/99999999999999999999-1.log", "", "", `{"status":7}`, "", strings.Repeat("[", 20_000))
	f.Fuzz(func(t *testing.T, parts, content, complete, run, stage, events string) {
		bounded.Here(t)
		const most = 4096
		if len(parts) > most || len(content) > most {
			return
		}
		bucket := memory{
			record.RunKey("u"): run, record.StageKey("u", "build", ""): stage, record.EventsKey("u", "dev", "shop"): events,
			record.TestKey("u", "dev"):          stage,
			"index/runs/20261124T060000.000Z_u": "", "index/runs/" + complete: "",
		}
		for n, name := range strings.Split(parts, "\n") {
			bucket["live/u/"+name] = strconv.Itoa(n) + content
		}
		if complete != "" {
			bucket["runs/u/logs/"+complete+".log"] = content
		}
		checkLogs(t, bucket)
		checkRecords(t, record.New(bucket))
	})
}

func checkLogs(t *testing.T, bucket memory) {
	t.Helper()
	total := 0
	for _, text := range bucket {
		total += len(text)
	}
	entries, err := stagelog.List(t.Context(), bucket, "u")
	require.NoError(t, err)
	require.LessOrEqual(t, len(entries), len(bucket))
	for _, e := range entries {
		cursor := stagelog.NewCursor(bucket, "u", e)
		var got bytes.Buffer
		require.NoError(t, cursor.Copy(t.Context(), &got))
		require.LessOrEqual(t, got.Len(), total, "nothing is copied twice")
		require.Equal(t, e.Complete, cursor.Complete())
		var more bytes.Buffer
		require.NoError(t, cursor.Copy(t.Context(), &more))
		require.Empty(t, more.String(), "nothing was added")
	}
}

func checkRecords(t *testing.T, r *record.Recorder) {
	t.Helper()
	known := func(err error) bool { return errors.Is(err, &fault.Fault{Reason: fault.StoreFailed}) }
	shown, err := r.Show(t.Context(), "u")
	require.True(t, err == nil || known(err), "%v", err)
	all, _, listErr := r.Runs(t.Context(), 10)
	require.True(t, listErr == nil || known(listErr), "%v", listErr)
	if err == nil && listErr == nil {
		require.NotEmpty(t, all)
	}
	tested, testsErr := r.WithTests(t.Context(), "u", record.Stage{Stage: "test", Environment: "dev"})
	require.True(t, testsErr == nil || known(testsErr), "%v", testsErr)
	require.True(t, tested.Tests == nil || len(tested.Tests.FailedTests) <= record.MaxFailedTests)
	stages, stagesErr := r.Stages(t.Context(), "u")
	require.True(t, stagesErr == nil && len(stages) == 1 || known(stagesErr), "%v", stagesErr)
	found, eventsErr := r.Events(t.Context(), "u", "shop")
	require.True(t, eventsErr == nil && len(found) == 1 || known(eventsErr), "%v", eventsErr)
	if err != nil {
		return
	}
	shown.WorkflowID, shown.SchemaVersion = "again", record.SchemaVersion
	require.NoError(t, r.Put(t.Context(), shown))
	again, err := r.Run(t.Context(), "again")
	require.NoError(t, err)
	require.Equal(t, shown, again, "a record is written as it was read")
}
