package finish_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/testkit/effects"
	"github.com/aphex-pipeline/aphex/tasks/finish"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

func request(status string) task.Request {
	return task.Request{
		Run:   task.Run{Namespace: "team", Name: "shop-1", UID: "uid-1", Epoch: "2026-11-24T06:00:00Z"},
		Stage: task.StageFinish, Pipeline: "shop", Commit: "0123456789012345678901234567890123456789", Branch: "main",
		RepoURL: "https://git.example.com/shop.git", WorkflowStatus: status,
	}
}

func run(ctx context.Context, t *testing.T, bucket *store.Dir, status string, out io.Writer) (result task.Result, logged string) {
	t.Helper()
	var log bytes.Buffer
	result, err := finish.New(finish.Config{Records: record.New(bucket)}).Run(ctx, request(status), task.Env{
		Output: out, Logger: slog.New(slog.NewTextHandler(&log, nil)), Progress: func(string) {},
	})
	require.NoError(t, err, "this stage never fails a run")
	require.NotEmpty(t, result.Message)
	require.Contains(t, result.Outputs, task.OutputRecord)
	return result, log.String()
}

// quiet is what a stage is given that nobody listens to.
func quiet(out io.Writer, journal *effects.Memory) task.Env {
	return task.Env{Output: out, Logger: slog.New(slog.DiscardHandler), Progress: func(string) {}, Effects: journal}
}

// begin records a run with two stages, the second of which failed.
func begin(t *testing.T, bucket *store.Dir) time.Time {
	t.Helper()
	records, at := record.New(bucket), time.Now().UTC().Add(-90*time.Second)
	require.NoError(t, records.Begin(t.Context(), record.Run{WorkflowID: "uid-1", TriggeredAt: at}))
	require.NoError(t, records.PutStage(t.Context(), "uid-1", record.Stage{
		StageName: "build", Stage: "build", StartedAt: at, CompletedAt: new(at.Add(12500 * time.Millisecond)), Status: record.Succeeded,
	}))
	require.NoError(t, records.PutStage(t.Context(), "uid-1", record.Stage{
		StageName: "deploy-env-dev", Stage: "deploy-env", Environment: "dev", StartedAt: at.Add(time.Minute), Status: record.Failed, Reason: "StackFailed",
	}))
	return at
}

// Feature: aphex-pipeline, Property 16: Workflow metadata recording
func TestRun_ClosesTheRecord(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]record.Status{"Succeeded": record.Succeeded, "Failed": record.Failed, "Error": record.Failed, "": record.Failed} {
		t.Run("status "+status, func(t *testing.T) {
			t.Parallel()
			bucket := store.NewDir(t.TempDir())
			at := begin(t, bucket)
			var out bytes.Buffer
			got, _ := run(t.Context(), t, bucket, status, &out)
			require.Equal(t, bucket.URL("runs/uid-1/run.json"), got.Outputs[task.OutputRecord])
			require.Regexp(t, `^run `+string(want)+` in 1m3\ds, 2 stages recorded$`, got.Message)
			require.Regexp(t, `(?m)^build +succeeded +12\.5 s$`, out.String())
			require.Regexp(t, `(?m)^deploy-env-dev +failed +StackFailed$`, out.String())

			body, _, err := bucket.Get(t.Context(), "runs/uid-1/run.json")
			require.NoError(t, err)
			var closed record.Run
			require.NoError(t, json.NewDecoder(body).Decode(&closed))
			require.NoError(t, body.Close())
			require.Equal(t, want, closed.Status)
			require.Equal(t, at, closed.TriggeredAt)
			require.WithinRange(t, *closed.CompletedAt, at, time.Now())
			require.Len(t, closed.Stages, 2)
			require.Equal(t, "StackFailed", closed.Reason)
			require.Equal(t, []string{"shop-1", "team", "shop", request("").Commit, "main", "https://git.example.com/shop.git"},
				[]string{closed.WorkflowName, closed.Namespace, closed.Pipeline, closed.CommitSHA, closed.Branch, closed.RepoURL})
		})
	}
}

func TestRun_AgainClosesItTheSame(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	begin(t, bucket)
	first, _ := run(t.Context(), t, bucket, "Failed", io.Discard)
	again, _ := run(t.Context(), t, bucket, "Failed", io.Discard)
	require.Equal(t, first.Outputs, again.Outputs)
	closed, err := record.New(bucket).Run(t.Context(), "uid-1")
	require.NoError(t, err)
	require.Len(t, closed.Stages, 2)
	require.Equal(t, record.Failed, closed.Status)
}

func TestRun_WithoutAnyRecord(t *testing.T) {
	t.Parallel()
	got, _ := run(t.Context(), t, store.NewDir(t.TempDir()), "Error", io.Discard)
	require.Equal(t, "run failed in 0s, 0 stages recorded", got.Message)
}

// broken is a bucket in a folder that cannot be one.
func broken(t *testing.T) *store.Dir {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	return store.NewDir(filepath.Join(file, "bucket"))
}

func TestRun_BrokenBucketIsAMessage(t *testing.T) {
	t.Parallel()
	damaged := store.NewDir(t.TempDir())
	_, err := damaged.Put(t.Context(), record.RunKey("uid-1"), bytes.NewReader([]byte("{")), store.PutOptions{})
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		bucket *store.Dir
		reason string
	}{"no folder": {broken(t), "[StoreFailed]"}, "a record that is no JSON": {damaged, "[StoreFailed]"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, logged := run(t.Context(), t, tt.bucket, "Succeeded", io.Discard)
			require.Contains(t, got.Message, "the run's record could not be closed: ")
			require.Contains(t, got.Message, tt.reason)
			require.Equal(t, map[string]string{task.OutputRecord: ""}, got.Outputs)
			require.Contains(t, logged, "run record not closed")
		})
	}
}

// full is a log that takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestRun_LogThatCannotBeWrittenFailsNothing(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	begin(t, bucket)
	got, logged := run(t.Context(), t, bucket, "Succeeded", full{})
	require.Contains(t, got.Message, "run succeeded in ")
	require.NotEmpty(t, got.Outputs[task.OutputRecord])
	require.Contains(t, logged, "no space left on device")
}

func TestRun_SendsFiguresOfTheClosedRecord(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	begin(t, bucket)
	var sent record.Run
	var out bytes.Buffer
	stage := finish.New(finish.Config{Records: record.New(bucket), Figures: func(_ context.Context, run record.Run, _ time.Time) error {
		sent = run
		return errors.New("nobody listens")
	}})
	got, err := stage.Run(t.Context(), request("Failed"), quiet(&out, &effects.Memory{}))
	require.NoError(t, err)
	require.Regexp(t, `^run failed in`, got.Message)
	require.Equal(t, record.Failed, sent.Status)
	require.NotNil(t, sent.CompletedAt)
	require.Len(t, sent.Stages, 2)
	require.Contains(t, out.String(), "warning: nobody listens")
	closed, err := record.New(bucket).Run(t.Context(), "uid-1")
	require.NoError(t, err)
	require.Equal(t, &record.Metrics{Error: "nobody listens [Internal]"}, closed.Metrics)
}

// town hears news, except the channels that are away.
type town struct {
	away   map[int]bool
	heard  []int
	events []notify.Event
}

func (w *town) Announce(_ context.Context, channels []pipeline.Notification, e notify.Event, skip func(int) bool, sent func(int)) []record.Notification {
	w.events = append(w.events, e)
	var results []record.Notification
	for n, c := range channels {
		r := record.Notification{Type: c.Type, Target: c.Target, Status: record.NotificationSent}
		switch {
		case skip(n):
		case w.away[n]:
			r.Status, r.Error = record.NotificationFailed, "nobody there"
		default:
			w.heard = append(w.heard, n)
			sent(n)
		}
		results = append(results, r)
	}
	return results
}

func TestRun_AnnouncesTheEndOnceAndRecordsIt(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	begin(t, bucket)
	req := request("Failed")
	req.Notifications = notify.Plan{ArgoURL: "https://argo.example.com", Channels: []pipeline.Notification{
		{Type: pipeline.NotifySlack, Target: "ssm:/slack"}, {Type: pipeline.NotifySNS, Target: "arn:aws:sns:eu-west-1:111111111111:shop"},
	}}.Encode()
	news, journal := &town{away: map[int]bool{1: true}}, &effects.Memory{}
	finished := func() (string, string, record.Run) {
		var out bytes.Buffer
		result, err := finish.New(finish.Config{Records: record.New(bucket), News: news}).Run(t.Context(), req, quiet(&out, journal))
		require.NoError(t, err)
		closed, err := record.New(bucket).Run(t.Context(), "uid-1")
		require.NoError(t, err)
		return result.Message, out.String(), closed
	}
	message, log, closed := finished()
	require.Contains(t, message, "; 1 of 2 channels not told: sns arn:aws:sns:eu-west-1:111111111111:shop: nobody there")
	require.Contains(t, log, "notification slack ssm:/slack: sent\n")
	require.Equal(t, []record.NotificationStatus{record.NotificationSent, record.NotificationFailed}, []record.NotificationStatus{closed.Notifications[0].Status, closed.Notifications[1].Status})
	require.Equal(t, "https://argo.example.com/workflows/team/shop-1", news.events[0].RunURL)
	require.Equal(t, "deploy-env-dev", news.events[0].Failed.Stage)

	// The process died before it could answer, and the other channel is back.
	news.away = nil
	message, _, closed = finished()
	require.Contains(t, message, "; 2 channels told")
	require.Equal(t, []int{0, 1}, news.heard, "each heard of it once")
	require.Equal(t, record.NotificationSent, closed.Notifications[1].Status)
	require.Equal(t, news.events[0].Key, news.events[1].Key)
}

func TestRun_TellsOfChannelsItCannotRead(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	begin(t, bucket)
	req := request("Succeeded")
	req.Notifications = "[]"
	result, err := finish.New(finish.Config{Records: record.New(bucket), News: &town{}}).Run(t.Context(), req, quiet(io.Discard, &effects.Memory{}))
	require.NoError(t, err)
	require.Contains(t, result.Message, "read the notification channels of the step")
}
