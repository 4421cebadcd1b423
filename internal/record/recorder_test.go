package record

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/store"
)

func TestRecorder_FromTriggerToFinish(t *testing.T) {
	t.Parallel()
	r := New(store.NewDir(t.TempDir()))
	at := time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)
	run := Run{WorkflowID: "u1", WorkflowName: "shop-1", Pipeline: "shop", CommitSHA: "c1", TriggeredAt: at}
	require.NoError(t, r.Begin(t.Context(), run))
	open, err := r.Run(t.Context(), "u1")
	require.NoError(t, err)
	require.Equal(t, Running, open.Status)
	require.Nil(t, open.CompletedAt)

	message := "resource Fn was rejected"
	require.NoError(t, r.PutStage(t.Context(), "u1", Stage{StageName: "deploy-env-dev", Stage: "deploy-env", Environment: "dev", StartedAt: at.Add(2 * time.Minute), Status: Failed, Reason: "StackFailed", ErrorMessage: &message}))
	require.NoError(t, r.PutStage(t.Context(), "u1", Stage{StageName: "build", Stage: "build", StartedAt: at.Add(time.Minute), Status: Succeeded}))
	require.NoError(t, r.PutStage(t.Context(), "u1", Stage{StageName: "deploy-pipeline", Stage: "deploy-pipeline", StartedAt: at.Add(90 * time.Second), Status: Failed, Reason: "KubernetesRejected"}))

	closed, url, err := r.Finish(t.Context(), run, Failed, at.Add(5*time.Minute))
	require.NoError(t, err)
	require.Contains(t, url, "runs/u1/run.json")
	read, err := r.Run(t.Context(), "u1")
	require.NoError(t, err)
	require.Equal(t, closed, read)
	require.Equal(t, Failed, read.Status)
	require.Equal(t, "StackFailed", read.Reason, "the stage that stopped the run, not the one it went on after")
	require.Equal(t, at, read.TriggeredAt)
	require.Equal(t, at.Add(5*time.Minute), *read.CompletedAt)
	names := []string{}
	for _, s := range read.Stages {
		names = append(names, s.StageName)
	}
	require.Equal(t, []string{"build", "deploy-pipeline", "deploy-env-dev"}, names)

	require.NoError(t, r.Begin(t.Context(), Run{WorkflowID: "u1", TriggeredAt: at.Add(time.Hour)}), "a retry opens it again")
	again, err := r.Run(t.Context(), "u1")
	require.NoError(t, err)
	require.Equal(t, at, again.TriggeredAt)
	require.Nil(t, again.CompletedAt)
}

func TestRecorder_FinishWithoutAnyStage(t *testing.T) {
	t.Parallel()
	r := New(store.NewDir(t.TempDir()))
	at := time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)
	run, _, err := r.Finish(t.Context(), Run{WorkflowID: "u2"}, Failed, at)
	require.NoError(t, err)
	require.Equal(t, at, run.TriggeredAt)
	require.Empty(t, run.Stages)
	_, err = r.Run(t.Context(), "u3")
	require.ErrorIs(t, err, store.ErrNotFound)
}
