package main

import (
	"strings"
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
	require.NoError(t, s.StageEnded(t.Context(), request(task.StageValidate, ""), at, at.Add(time.Second), "Succeeded", "fine", ""))

	deploy := request(task.StageDeployEnv, "dev")
	require.NoError(t, s.StageStarted(t.Context(), deploy, at.Add(time.Minute)))
	require.NoError(t, s.StageEnded(t.Context(), deploy, at.Add(time.Minute), at.Add(2*time.Minute), "Failed", "it broke", "StackFailed"))

	// What the test reports say comes from the result that the stage stored.
	tests := request(task.StageTest, "dev")
	require.NoError(t, s.StageStarted(t.Context(), tests, at.Add(2*time.Minute)))
	const result = `{"attempt": 2, "epoch": "e1", "status": "failed", "tests": {"total": 2, "passed": 1, "failed": 1, "skipped": 0, "failed_tests": [{"name": "t1"}]}}`
	_, err = bucket.Put(t.Context(), record.TestKey("uid-1", "dev"), strings.NewReader(result), store.PutOptions{})
	require.NoError(t, err)
	require.NoError(t, s.StageEnded(t.Context(), tests, at.Add(2*time.Minute), at.Add(3*time.Minute), "Failed", "1 failed", "TestsFailed"))

	// The stage that closes the record is not in it, or it would be running
	// for ever.
	finish := request(task.StageFinish, "")
	require.NoError(t, s.StageStarted(t.Context(), finish, at.Add(3*time.Minute)))
	closed, _, err := records.Finish(t.Context(), run, record.Failed, at.Add(3*time.Minute))
	require.NoError(t, err)
	require.NoError(t, s.StageEnded(t.Context(), finish, at.Add(3*time.Minute), at.Add(4*time.Minute), "Succeeded", "closed", ""))
	objects, err := bucket.List(t.Context(), record.StagePrefix("uid-1"))
	require.NoError(t, err)
	require.Len(t, objects, 3)

	require.Equal(t, []record.Stage{
		{
			StageName: "validate", Stage: "validate", Attempt: 2, Epoch: "e1", Status: record.Succeeded, Message: "fine",
			StartedAt: at.UTC(), CompletedAt: new(at.UTC().Add(time.Second)),
		},
		{
			StageName: "deploy-env-dev", Stage: "deploy-env", Environment: "dev", Attempt: 2, Epoch: "e1", Status: record.Failed,
			Reason: "StackFailed", ErrorMessage: new("it broke"), StartedAt: at.UTC().Add(time.Minute), CompletedAt: new(at.UTC().Add(2 * time.Minute)),
		},
		{
			StageName: "test-dev", Stage: "test", Environment: "dev", Attempt: 2, Epoch: "e1", Status: record.Failed,
			Reason: "TestsFailed", ErrorMessage: new("1 failed"), StartedAt: at.UTC().Add(2 * time.Minute), CompletedAt: new(at.UTC().Add(3 * time.Minute)),
			Tests: &record.Tests{Total: 2, Passed: 1, Failed: 1, FailedTests: []record.FailedTest{{Name: "t1"}}},
		},
	}, closed.Stages)
}
