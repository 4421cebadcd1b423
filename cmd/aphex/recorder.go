package main

import (
	"context"
	"errors"
	"time"

	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/plugin/execution"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// stageRecorder writes what the plugin reports of stages into the records.
type stageRecorder struct{ records *record.Recorder }

var _ execution.Recorder = stageRecorder{}

// StageStarted records a stage as running. The first stage of a run opens the
// run's own record; the first of a retry, whichever that is, opens it again.
func (s stageRecorder) StageStarted(ctx context.Context, req task.Request, at time.Time) error {
	if !recorded(req.Stage) {
		return nil
	}
	return errors.Join(s.open(ctx, req, at), s.records.PutStage(ctx, req.Run.UID, stageRecord(req, at, record.Running)))
}

// open makes the run's record one that is under way. A run without one gets it
// from its first stage, or when it is closed.
func (s stageRecorder) open(ctx context.Context, req task.Request, at time.Time) error {
	err := s.records.Reopen(ctx, req.Run.UID, req.Run.Epoch, at)
	switch {
	case !errors.Is(err, store.ErrNotFound):
		return err
	case req.Stage != task.StageValidate:
		return nil
	}
	return s.records.Begin(ctx, record.Run{
		WorkflowID: req.Run.UID, WorkflowName: req.Run.Name, Namespace: req.Run.Namespace, Pipeline: req.Pipeline,
		CommitSHA: req.Commit, Branch: req.Branch, RepoURL: req.RepoURL, Predecessor: req.Predecessor, TriggeredAt: at.UTC(),
	})
}

// StageEnded records how a stage ended.
func (s stageRecorder) StageEnded(ctx context.Context, req task.Request, startedAt, endedAt time.Time, phase, message, reason, logURL string) error {
	if !recorded(req.Stage) {
		return nil
	}
	status := record.Failed
	if phase == "Succeeded" {
		status = record.Succeeded
	}
	stage := stageRecord(req, startedAt, status)
	stage.CompletedAt, stage.Reason, stage.LogURL = new(endedAt.UTC()), reason, logURL
	if status == record.Succeeded {
		stage.Message = message
	} else {
		stage.ErrorMessage = &message
	}
	var unread error
	switch req.Stage {
	case task.StageTest:
		stage, unread = s.records.WithTests(ctx, req.Run.UID, stage)
	case task.StageDeployEnv:
		stage, unread = s.records.WithEvents(ctx, req.Run.UID, stage)
	}
	return errors.Join(unread, s.records.PutStage(ctx, req.Run.UID, stage))
}

// recorded leaves out the stage that closes the record, which would otherwise
// stand in it as running for ever.
func recorded(stage string) bool { return stage != task.StageFinish }

func stageRecord(req task.Request, at time.Time, status record.Status) record.Stage {
	return record.Stage{
		StageName: record.StageName(req.Stage, req.Environment), Stage: req.Stage, Environment: req.Environment,
		Attempt: req.Attempt, Epoch: req.Run.Epoch, StartedAt: at.UTC(), Status: status,
	}
}
