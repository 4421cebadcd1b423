package main

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

func TestStageRecorder(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	records := record.New(bucket)
	s := stageRecorder{records}
	at := time.Date(2026, 11, 24, 8, 0, 0, 0, time.FixedZone("", 2*60*60))
	request := func(stage, environment string) task.Request {
		return task.Request{
			Run:   task.Run{Namespace: "team", Name: "shop-1", UID: "uid-1", Epoch: "e1"},
			Stage: stage, Environment: environment, Pipeline: "shop", Commit: "abc", Branch: "main", RepoURL: "https://x/y.git", Attempt: 2,
		}
	}

	require.NoError(t, s.StageStarted(t.Context(), request(task.StageValidate, ""), at))
	run, err := records.Run(t.Context(), "uid-1")
	require.NoError(t, err)
	require.Equal(t, record.Running, run.Status)
	require.Equal(t, at.UTC(), run.TriggeredAt)
	require.Equal(t, []string{"shop-1", "team", "shop", "abc", "main", "https://x/y.git"},
		[]string{run.WorkflowName, run.Namespace, run.Pipeline, run.CommitSHA, run.Branch, run.RepoURL})
	require.NoError(t, s.StageEnded(t.Context(), request(task.StageValidate, ""), at, at.Add(time.Second), "Succeeded", "fine", "", "s3://shop/validate.log"))

	deploy := request(task.StageDeployEnv, "dev")
	require.NoError(t, s.StageStarted(t.Context(), deploy, at.Add(time.Minute)))
	// The events that the record names are those of this environment.
	require.NoError(t, records.PutEvents(t.Context(), record.Events{WorkflowID: "uid-1", Environment: "dev", Stack: "api"}))
	require.NoError(t, records.PutEvents(t.Context(), record.Events{WorkflowID: "uid-1", Environment: "dev-2", Stack: "api"}))
	_, err = bucket.Put(t.Context(), "runs/uid-1/events/dev/api/other.json", strings.NewReader("{}"), store.PutOptions{})
	require.NoError(t, err)
	require.NoError(t, s.StageEnded(t.Context(), deploy, at.Add(time.Minute), at.Add(2*time.Minute), "Failed", "it broke", "StackFailed", "s3://shop/deploy.log"))

	// What the test reports say comes from the result that the stage stored.
	tests := request(task.StageTest, "dev")
	require.NoError(t, s.StageStarted(t.Context(), tests, at.Add(2*time.Minute)))
	const result = `{"attempt": 2, "epoch": "e1", "status": "failed", "tests": {"total": 2, "passed": 1, "failed": 1, "skipped": 0, "failed_tests": [{"name": "t1"}]}}`
	_, err = bucket.Put(t.Context(), record.TestKey("uid-1", "dev"), strings.NewReader(result), store.PutOptions{})
	require.NoError(t, err)
	require.NoError(t, s.StageEnded(t.Context(), tests, at.Add(2*time.Minute), at.Add(3*time.Minute), "Failed", "1 failed", "TestsFailed", ""))

	// The stage that closes the record is not in it, or it would be running
	// for ever.
	finish := request(task.StageFinish, "")
	require.NoError(t, s.StageStarted(t.Context(), finish, at.Add(3*time.Minute)))
	closed, _, err := records.Finish(t.Context(), run, record.Failed, at.Add(3*time.Minute))
	require.NoError(t, err)
	require.NoError(t, s.StageEnded(t.Context(), finish, at.Add(3*time.Minute), at.Add(4*time.Minute), "Succeeded", "closed", "", ""))
	objects, err := bucket.List(t.Context(), record.StagePrefix("uid-1"))
	require.NoError(t, err)
	require.Len(t, objects, 3)

	require.Equal(t, []record.Stage{
		{
			StageName: "validate", Stage: "validate", Attempt: 2, Epoch: "e1", Status: record.Succeeded, Message: "fine", LogURL: "s3://shop/validate.log",
			StartedAt: at.UTC(), CompletedAt: new(at.UTC().Add(time.Second)),
		},
		{
			StageName: "deploy-env-dev", Stage: "deploy-env", Environment: "dev", Attempt: 2, Epoch: "e1", Status: record.Failed,
			LogURL: "s3://shop/deploy.log", EventURLs: []string{bucket.URL("runs/uid-1/events/dev/api.json")},
			Reason: "StackFailed", ErrorMessage: new("it broke"), StartedAt: at.UTC().Add(time.Minute), CompletedAt: new(at.UTC().Add(2 * time.Minute)),
		},
		{
			StageName: "test-dev", Stage: "test", Environment: "dev", Attempt: 2, Epoch: "e1", Status: record.Failed,
			Reason: "TestsFailed", ErrorMessage: new("1 failed"), StartedAt: at.UTC().Add(2 * time.Minute), CompletedAt: new(at.UTC().Add(3 * time.Minute)),
			Tests: &record.Tests{Total: 2, Passed: 1, Failed: 1, FailedTests: []record.FailedTest{{Name: "t1"}}},
		},
	}, closed.Stages)
}

// Epochs as the plugin knows them: when the controller started the try.
const firstTry, secondTry = "2026-11-24T06:00:00Z", "2026-11-24T07:00:00Z"

// ofTry is a stage of a try.
func ofTry(epoch, stage, environment string) task.Request {
	return task.Request{
		Run:   task.Run{Namespace: "team", Name: "shop-1", UID: "uid-1", Epoch: epoch},
		Stage: stage, Environment: environment, Pipeline: "shop", Commit: "abc", Attempt: 1,
	}
}

// failedRun records a run whose deployment failed, closed.
func failedRun(t *testing.T, records *record.Recorder, epoch string) stageRecorder {
	t.Helper()
	s := stageRecorder{records}
	began := time.Date(2026, 11, 24, 6, 0, 1, 0, time.UTC)
	require.NoError(t, s.StageStarted(t.Context(), ofTry(epoch, task.StageValidate, ""), began))
	require.NoError(t, s.StageEnded(t.Context(), ofTry(epoch, task.StageValidate, ""), began, began.Add(time.Second), "Succeeded", "fine", "", ""))
	deploy := ofTry(epoch, task.StageDeployEnv, "dev")
	require.NoError(t, s.StageStarted(t.Context(), deploy, began.Add(time.Minute)))
	require.NoError(t, s.StageEnded(t.Context(), deploy, began.Add(time.Minute), began.Add(2*time.Minute), "Failed", "it broke", "StackFailed", ""))
	require.NoError(t, s.StageStarted(t.Context(), ofTry(epoch, task.StageFinish, ""), began.Add(2*time.Minute)))
	closed, _, err := records.Finish(t.Context(), record.Run{WorkflowID: "uid-1", WorkflowName: "shop-1", Pipeline: "shop"}, record.Failed, began.Add(2*time.Minute))
	require.NoError(t, err)
	closed.Notifications = []record.Notification{{Type: "slack", Status: record.NotificationSent}}
	require.NoError(t, records.Put(t.Context(), closed))
	return s
}

// TestStageRecorder_ARetryIsUnderWay: it does not validate again.
func TestStageRecorder_ARetryIsUnderWay(t *testing.T) {
	t.Parallel()
	retried := time.Date(2026, 11, 24, 7, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		first, second string
		at            time.Time
	}{
		"a later try":                          {firstTry, secondTry, retried},
		"a later try, its pod's clock is slow": {firstTry, secondTry, retried.Add(-2 * time.Hour)},
		"Workflows cannot be read":             {"none", "none", retried},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			records := record.New(store.NewDir(t.TempDir()))
			s := failedRun(t, records, tt.first)
			require.NoError(t, s.StageStarted(t.Context(), ofTry(tt.second, task.StageDeployEnv, "dev"), tt.at))
			run, err := records.Show(t.Context(), "uid-1")
			require.NoError(t, err)
			require.Equal(t, record.Running, run.Status)
			require.Nil(t, run.CompletedAt)
			require.Empty(t, run.Reason)
			require.Empty(t, run.Notifications, "nobody has been told of this try's end")
			require.Equal(t, "2026-11-24T06:00:01Z", run.TriggeredAt.Format(time.RFC3339))
			statuses := map[string]record.Status{}
			for _, stage := range run.Stages {
				statuses[stage.StageName] = stage.Status
			}
			require.Equal(t, map[string]record.Status{"validate": record.Succeeded, "deploy-env-dev": record.Running}, statuses)
		})
	}
}

// TestStageRecorder_WhatIsResumedLateReopensNothing: the stage belongs to the
// try that the record was closed in, or to one before.
func TestStageRecorder_WhatIsResumedLateReopensNothing(t *testing.T) {
	t.Parallel()
	late := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		closed string
		req    task.Request
		at     time.Time
	}{
		"of the same try":          {firstTry, ofTry(firstTry, task.StageDeployEnv, "dev"), late.Add(-3 * time.Hour)},
		"begun after the end":      {firstTry, ofTry(firstTry, task.StageTest, "dev"), late},
		"the first stage":          {firstTry, ofTry(firstTry, task.StageValidate, ""), late},
		"of an earlier try":        {secondTry, ofTry(firstTry, task.StageDeployEnv, "dev"), late},
		"Workflows cannot be read": {"none", ofTry("none", task.StageDeployEnv, "dev"), late.Add(-3 * time.Hour)},
		"finish":                   {firstTry, ofTry(secondTry, task.StageFinish, ""), late},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			records := record.New(store.NewDir(t.TempDir()))
			s := failedRun(t, records, tt.closed)
			before, err := records.Run(t.Context(), "uid-1")
			require.NoError(t, err)
			require.NoError(t, s.StageStarted(t.Context(), tt.req, tt.at))
			after, err := records.Run(t.Context(), "uid-1")
			require.NoError(t, err)
			require.Equal(t, before, after)
		})
	}
}

// TestStageRecorder_ManyStagesOfARetryBeginAtOnce, in pods of their own.
func TestStageRecorder_ManyStagesOfARetryBeginAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	failedRun(t, record.New(store.NewDir(dir)), firstTry)
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		wg.Go(func() {
			s := stageRecorder{record.New(store.NewDir(dir))}
			errs[i] = s.StageStarted(t.Context(), ofTry(secondTry, task.StageDeployEnv, "env-"+strconv.Itoa(i)), time.Now())
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	run, err := record.New(store.NewDir(dir)).Show(t.Context(), "uid-1")
	require.NoError(t, err)
	require.Equal(t, record.Running, run.Status)
	require.Len(t, run.Stages, 2+len(errs))
}
