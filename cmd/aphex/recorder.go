package main

import (
	"context"
	"errors"
	"time"

	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/plugin/execution"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// stageRecorder writes what the plugin reports of stages into the records.
type stageRecorder struct{ records *record.Recorder }

var _ execution.Recorder = stageRecorder{}

// StageStarted records a stage as running. The first stage of a run opens the
// run's own record.
func (s stageRecorder) StageStarted(ctx context.Context, req task.Request, at time.Time) error {
	if req.Stage == task.StageValidate {
		err := s.records.Begin(ctx, record.Run{
			WorkflowID: req.Run.UID, WorkflowName: req.Run.Name, Namespace: req.Run.Namespace, Pipeline: req.Pipeline,
			CommitSHA: req.Commit, Branch: req.Branch, RepoURL: req.RepoURL, Predecessor: req.Predecessor, TriggeredAt: at.UTC(),
		})
		if err != nil {
			return err
		}
	}
	if !recorded(req.Stage) {
		return nil
	}
	return s.records.PutStage(ctx, req.Run.UID, stageRecord(req, at, record.Running))
}

// StageEnded records how a stage ended.
func (s stageRecorder) StageEnded(ctx context.Context, req task.Request, startedAt, endedAt time.Time, phase, message, reason string) error {
	if !recorded(req.Stage) {
		return nil
	}
	status := record.Failed
	if phase == "Succeeded" {
		status = record.Succeeded
	}
	stage := stageRecord(req, startedAt, status)
	stage.CompletedAt, stage.Reason = new(endedAt.UTC()), reason
	if status == record.Succeeded {
		stage.Message = message
	} else {
		stage.ErrorMessage = &message
	}
	var unread error
	if req.Stage == task.StageTest {
		stage, unread = s.records.WithTests(ctx, req.Run.UID, stage)
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
