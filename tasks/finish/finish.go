package finish

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// recorder is what the stage needs of internal/record.
type recorder interface {
	Finish(ctx context.Context, run record.Run, status record.Status, at time.Time) (record.Run, string, error)
}

// Figures sends figures of a run that has ended to where they are watched.
type Figures func(ctx context.Context, run record.Run) error

// Stage is the finish stage.
type Stage struct {
	records recorder
	figures Figures
	now     func() time.Time
}

// New returns the finish stage writing to records. figures may be nil.
func New(records recorder, figures Figures) *Stage {
	return &Stage{records: records, figures: figures, now: time.Now}
}

var _ task.Runner = (*Stage)(nil)

// Run closes the run's record with the status Argo gives the run. It returns
// no error: what went wrong stands in the message.
func (s *Stage) Run(ctx context.Context, req task.Request, env task.Env) (task.Result, error) {
	status := record.Failed
	if req.WorkflowStatus == "Succeeded" {
		status = record.Succeeded
	}
	run, url, err := s.records.Finish(ctx, record.Run{
		WorkflowID: req.Run.UID, WorkflowName: req.Run.Name, Namespace: req.Run.Namespace,
		Pipeline: req.Pipeline, CommitSHA: req.Commit, Branch: req.Branch, RepoURL: req.RepoURL, Predecessor: req.Predecessor,
	}, status, s.now().UTC())
	if err != nil {
		env.Logger.ErrorContext(ctx, "run record not closed", "err", err)
		return task.Result{
			Message: "the run's record could not be closed: " + fault.Message(err),
			Outputs: map[string]string{task.OutputRecord: ""},
		}, nil
	}
	if _, err := io.WriteString(env.Output, summary(run.Stages)); err != nil {
		env.Logger.ErrorContext(ctx, "summary not written to the log", "err", err)
	}
	if s.figures != nil {
		if err := s.figures(ctx, run); err != nil {
			env.Logger.WarnContext(ctx, "figures not sent", "err", err)
			_, _ = fmt.Fprintf(env.Output, "warning: %s\n", fault.Message(err)) // the log is beside the point as well
		}
	}
	return task.Result{
		Message: fmt.Sprintf("run %s in %s, %d stages recorded", run.Status, run.CompletedAt.Sub(run.TriggeredAt).Round(time.Second), len(run.Stages)),
		Outputs: map[string]string{task.OutputRecord: url},
	}, nil
}

// summary is a line per stage: name, status, seconds, reason.
func summary(stages []record.Stage) string {
	var text strings.Builder
	for _, stage := range stages {
		fmt.Fprintf(&text, "%-24s %-10s", stage.StageName, stage.Status)
		if stage.CompletedAt != nil {
			fmt.Fprintf(&text, " %6.1f s", stage.CompletedAt.Sub(stage.StartedAt).Seconds())
		}
		if stage.Reason != "" {
			text.WriteString("  " + stage.Reason)
		}
		text.WriteString("\n")
	}
	return text.String()
}
