package finish

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/count"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/reconcile"
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

// workflows is what the stage needs of internal/kube.
type workflows interface {
	Workflow(ctx context.Context, namespace, name string) (*kube.Workflow, error)
}

// Figures sends figures of a run that has ended to where they are watched, but
// for those of stages that had ended by since.
type Figures func(ctx context.Context, run record.Run, since time.Time) error

// Config is what the finish stage is made of. Records is required.
type Config struct {
	Records recorder
	// Figures and News are nil for nobody.
	Figures Figures
	News    announcer
	// Workflows says of a run whose records cannot be read how its stages ended;
	// nil for nobody.
	Workflows workflows
}

// recordLimit bounds closing the record, and adding to it what came of the
// announcements: a bucket may take a connection and never answer.
const recordLimit = 2 * time.Minute

// limited returns a context for that.
func limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, recordLimit, fault.Newf(fault.Transient, fault.AWSUnavailable, "write the run's record",
		"Check that the bucket can be reached from the cluster", "the bucket did not answer within %s", recordLimit))
}

// Stage is the finish stage.
type Stage struct {
	cfg Config
	now func() time.Time
}

// New returns the finish stage.
func New(cfg Config) *Stage { return &Stage{cfg: cfg, now: time.Now} }

var _ task.Runner = (*Stage)(nil)

// end is the end of a run, as this stage tells it.
type end struct {
	run record.Run
	// url is that of the record, empty if it could not be closed: failure says
	// why, and run is what is known without.
	url     string
	failure string
	// changed says that run has more than the record.
	changed bool
}

// Run closes the run's record with the status Argo gives the run, sends its
// figures and announces the end, whether or not the record can be written. What
// went wrong stands in the message and is no error.
//
// Error: the cause of ctx, if that ended before everybody was told. A success
// would say that nobody is left to tell.
func (s *Stage) Run(ctx context.Context, req task.Request, env task.Env) (task.Result, error) {
	e := s.close(ctx, &req, env)
	if _, err := io.WriteString(env.Output, summary(e.run.Stages)); err != nil {
		env.Logger.ErrorContext(ctx, "summary not written to the log", "err", err)
	}
	s.measure(ctx, env, e)
	message := fmt.Sprintf("run %s in %s, %d stages recorded", e.run.Status, e.run.CompletedAt.Sub(e.run.TriggeredAt).Round(time.Second), len(e.run.Stages))
	if e.failure != "" {
		message = "the run's record could not be closed: " + e.failure
	}
	if told := s.announce(ctx, &req, env, e); told != "" {
		message += "; " + told
	}
	if ctx.Err() != nil {
		return task.Result{}, context.Cause(ctx)
	}
	if e.changed && e.failure == "" {
		limit, cancel := limited(ctx)
		defer cancel()
		if err := s.cfg.Records.Put(limit, e.run); err != nil {
			env.Logger.WarnContext(ctx, "notifications and figures not recorded", "err", err)
		}
	}
	return task.Result{Message: message, Outputs: map[string]string{task.OutputRecord: e.url}}, nil
}

// close closes the record.
func (s *Stage) close(ctx context.Context, req *task.Request, env task.Env) *end {
	status, at := record.Failed, s.now().UTC()
	if req.WorkflowStatus == "Succeeded" {
		status = record.Succeeded
	}
	began, err := time.Parse(time.RFC3339, req.Run.Epoch) // when this try began, in case the record does not say
	if err != nil || began.After(at) {
		began = at
	}
	limit, cancel := limited(ctx)
	defer cancel()
	run, url, err := s.cfg.Records.Finish(limit, record.Run{
		WorkflowID: req.Run.UID, WorkflowName: req.Run.Name, Namespace: req.Run.Namespace, TriggeredAt: began,
		Pipeline: req.Pipeline, CommitSHA: req.Commit, Branch: req.Branch, RepoURL: req.RepoURL, Predecessor: req.Predecessor,
	}, status, at)
	if err != nil {
		env.Logger.ErrorContext(ctx, "run record not closed", "err", err)
		s.addNodes(ctx, req, env, &run)
		return &end{run: run, failure: fault.Message(err)}
	}
	return &end{run: run, url: url}
}

// addNodes adds to the stages of run those that its Workflow has.
func (s *Stage) addNodes(ctx context.Context, req *task.Request, env task.Env, run *record.Run) {
	if s.cfg.Workflows == nil {
		return
	}
	w, err := s.cfg.Workflows.Workflow(ctx, req.Run.Namespace, req.Run.Name)
	if err != nil || w.UID != req.Run.UID {
		env.Logger.WarnContext(ctx, "the run's stages are not known", "err", err)
		return
	}
	run.Stages = reconcile.WithNodes(w, run.Stages)
	if failed := record.FirstFailed(run.Stages); run.Reason == "" && failed != nil {
		run.Reason = failed.Reason
	}
}

// effectFigures is the effect that keeps up to when the figures were sent.
const effectFigures = "figures"

// measure sends the figures, once.
func (s *Stage) measure(ctx context.Context, env task.Env, e *end) {
	if s.cfg.Figures == nil {
		return
	}
	e.changed = true
	sent, done, err := env.Effects.Get(ctx, effectFigures)
	if until, bad := time.Parse(time.RFC3339Nano, string(sent)); done && err == nil && bad == nil {
		e.run.Metrics = &record.Metrics{Sent: true, Until: &until}
		return
	}
	if err := s.cfg.Figures(ctx, e.run, e.run.Measured()); err != nil {
		env.Logger.WarnContext(ctx, "figures not sent", "err", err)
		_, _ = fmt.Fprintf(env.Output, "warning: %s\n", fault.Message(err)) // the log is beside the point as well
		e.run.Measure(fault.Message(err))
		return
	}
	e.run.Measure("")
	// Without the entry they may be sent again.
	if err := env.Effects.Put(ctx, effectFigures, []byte(e.run.CompletedAt.Format(time.RFC3339Nano))); err != nil {
		env.Logger.WarnContext(ctx, "figures not journalled", "err", err)
	}
}

// announce tells the channels of the end, and says what came of it in a few
// words, which are empty without a channel.
func (s *Stage) announce(ctx context.Context, req *task.Request, env task.Env, e *end) string {
	plan, err := notify.Decode(req.Notifications)
	if err != nil {
		env.Logger.ErrorContext(ctx, "nobody was told", "err", err)
		return err.Error()
	}
	if s.cfg.News == nil || len(plan.Channels) == 0 {
		return ""
	}
	event := notify.NewEvent(e.run, req.Run.Epoch, plan.ArgoURL, e.url)
	event.RecordError = e.failure
	effect := func(n int) string { return fmt.Sprintf("notified-%d", n) }
	results := s.cfg.News.Announce(ctx, plan.Channels, event, func(n int) bool {
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
	e.run.Notifications, e.changed = results, true
	return told(env.Output, results)
}

// told writes what came of each announcement and returns the sum of it.
func told(out io.Writer, results []record.Notification) string {
	var failures []string
	for _, r := range results {
		line := r.Type + " " + r.Target + ": " + string(r.Status)
		if r.Status == record.NotificationFailed {
			line += ": " + r.Error
			failures = append(failures, r.Type+" "+r.Target+": "+r.Error)
		}
		_, _ = fmt.Fprintf(out, "notification %s\n", line) // the log is beside the point
	}
	if len(failures) > 0 {
		return fmt.Sprintf("%d of %s not told: %s", len(failures), count.Of(len(results), "channel"), strings.Join(failures, "; "))
	}
	return count.Of(len(results), "channel") + " told"
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
