package finish

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// recorder is what the stage needs of internal/record.
type recorder interface {
	Finish(ctx context.Context, run record.Run, status record.Status, at time.Time) (record.Run, string, error)
	Put(ctx context.Context, run record.Run) error
}

// announcer is what the stage needs of internal/notify.
type announcer interface {
	Announce(ctx context.Context, channels []pipeline.Notification, e notify.Event, skip func(n int) bool, sent func(n int)) []record.Notification
}

// Figures sends figures of a run that has ended to where they are watched.
type Figures func(ctx context.Context, run record.Run) error

// Stage is the finish stage.
type Stage struct {
	records recorder
	figures Figures
	news    announcer
	now     func() time.Time
}

// New returns the finish stage writing to records. figures and news may be nil.
func New(records recorder, figures Figures, news announcer) *Stage {
	return &Stage{records: records, figures: figures, news: news, now: time.Now}
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
	message := fmt.Sprintf("run %s in %s, %d stages recorded", run.Status, run.CompletedAt.Sub(run.TriggeredAt).Round(time.Second), len(run.Stages))
	if told := s.announce(ctx, &req, env, run, url); told != "" {
		message += "; " + told
	}
	return task.Result{Message: message, Outputs: map[string]string{task.OutputRecord: url}}, nil
}

// announce tells the channels of the end, adds to the record what came of it,
// and says the same in a few words, which are empty without a channel.
func (s *Stage) announce(ctx context.Context, req *task.Request, env task.Env, run record.Run, url string) string {
	plan, err := notify.Decode(req.Notifications)
	if err != nil {
		env.Logger.ErrorContext(ctx, "nobody was told", "err", err)
		return err.Error()
	}
	if s.news == nil || len(plan.Channels) == 0 {
		return ""
	}
	effect := func(n int) string { return fmt.Sprintf("notified-%d", n) }
	results := s.news.Announce(ctx, plan.Channels, notify.NewEvent(run, req.Run.Epoch, plan.ArgoURL, url), func(n int) bool {
		_, told, err := env.Effects.Get(ctx, effect(n))
		return told && err == nil
	}, func(n int) {
		// Without the entry the channel may hear of it again, with the same key.
		if err := env.Effects.Put(ctx, effect(n), []byte(`true`)); err != nil {
			env.Logger.WarnContext(ctx, "notification not journalled", "err", err)
		}
	})
	if len(results) == 0 {
		return ""
	}
	var failures []string
	for _, r := range results {
		line := r.Type + " " + r.Target + ": " + string(r.Status)
		if r.Status == record.NotificationFailed {
			line += ": " + r.Error
			failures = append(failures, r.Type+" "+r.Target+": "+r.Error)
		}
		_, _ = fmt.Fprintf(env.Output, "notification %s\n", line) // the log is beside the point
	}
	run.Notifications = results
	if err := s.records.Put(ctx, run); err != nil {
		env.Logger.WarnContext(ctx, "notifications not recorded", "err", err)
	}
	if len(failures) > 0 {
		return fmt.Sprintf("%d of %d channels were not told: %s", len(failures), len(results), strings.Join(failures, "; "))
	}
	return fmt.Sprintf("%d channels told", len(results))
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
