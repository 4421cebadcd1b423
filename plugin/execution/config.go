package execution

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/stagelog"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// Defaults of Config.
const (
	// DefaultLongPoll stays well below the 30 s after which the agent gives a
	// call up and makes it again.
	DefaultLongPoll = 20 * time.Second
	// MaxLongPoll leaves the reply time to travel.
	MaxLongPoll = 25 * time.Second
	// DefaultFirstPoll is long enough for stages that have nothing to do, and
	// short enough that a stage is soon seen to be running.
	DefaultFirstPoll = 3 * time.Second
	// DefaultRequeue is the gap between two polls.
	DefaultRequeue = time.Second
	// DefaultReportEvery keeps Running reports rare: each one makes the
	// controller write the Workflow.
	DefaultReportEvery = 30 * time.Second
	// DefaultGrace is what a cancelled stage has to come to an end.
	DefaultGrace = 45 * time.Second
	// DefaultStageLimit is above the longest timeout that a configuration may
	// set, which is 24 h: it only ends stages whose own limit does not work.
	DefaultStageLimit = 25 * time.Hour
	// DefaultAskEvery is how often it is looked whether a running stage is
	// still wanted. Requests to stop are noticed at once; this is for what Argo
	// tells nobody.
	DefaultAskEvery = 30 * time.Second
)

// RunState is what an engine asks about a run.
type RunState struct {
	// Epoch identifies the try, as in task.Run; empty if the run has not
	// started yet.
	Epoch string
	// Shutdown is "Stop" or "Terminate" once somebody asked for it.
	Shutdown string
	// Finished says that the run has come to its end, or is gone.
	Finished bool
}

// ErrNoAccess is the answer of Runs that may not look at Workflows.
var ErrNoAccess = errors.New("workflows cannot be read")

// Runs tells about the runs themselves.
type Runs interface {
	// State returns the present state. An error that is ErrNoAccess is lasting.
	State(ctx context.Context, run task.Run) (RunState, error)
	// Watch calls fn with every new state until ctx ends or the run is gone.
	Watch(ctx context.Context, run task.Run, fn func(RunState)) error
	// Wanted reports whether the run still waits for the node of that name: it
	// does not if the node has come to an end without us, or is gone.
	Wanted(ctx context.Context, run task.Run, node string) (bool, error)
}

// Logs is where the logs of stages are put.
type Logs = stagelog.Store

// Recorder is told when a stage starts and how it ended. Its errors are
// logged, nothing more. Both methods may be called again for the same stage
// after a restart, with the same times of start.
type Recorder interface {
	StageStarted(ctx context.Context, req task.Request, at time.Time) error
	// StageEnded is called before the final reply. phase is Succeeded, Failed
	// or Error; reason is a fault.Reason or empty, logURL where the complete
	// log is, or empty.
	StageEnded(ctx context.Context, req task.Request, startedAt, endedAt time.Time, phase, message, reason, logURL string) error
}

// Nudger makes the controller look at a node's result. It is called when a
// final reply is given and may take its time; ctx ends with the engine.
type Nudger interface {
	Nudge(ctx context.Context, run task.Run, node string)
}

// Keeper keeps the run's task set true to what was answered. Both methods may
// take their time; ctx ends with the engine.
type Keeper interface {
	// Answered is called whenever a final reply that the journal holds is given
	// for the node.
	Answered(ctx context.Context, run task.Run, node string, final []byte)
	// Tidy is called when the run is met and when it has ended, with the names
	// that the nodes of its executions may have.
	Tidy(ctx context.Context, run task.Run, nodes []string)
}

// Config is what an Engine is made of. Fields without a remark are required.
type Config struct {
	Registry task.Registry
	Journal  journal.Journal
	// LogDir is where the stages' logs are kept until they are uploaded. It
	// must exist.
	LogDir string

	// PodUID identifies this pod in the journal. Optional outside a cluster.
	PodUID string
	// Runs may be nil; see the package's documentation for what is lost.
	Runs Runs
	// Logs may be nil: logs are then not kept, and log-url is empty.
	Logs Logs
	// LogEvery is how often new lines go there. Default: stagelog.DefaultEvery.
	LogEvery time.Duration
	// MainLogs adds the log to the reply as the artifact "main-logs". The
	// bucket must be readable for Argo's server.
	MainLogs bool
	// Recorder, Nudger and Keeper may be nil.
	Recorder Recorder
	Nudger   Nudger
	Keeper   Keeper
	// Stdout receives the stages' logs, each line prefixed by its stage.
	// Default: discarded.
	Stdout io.Writer
	// Redactor hides secrets in messages, outputs and logs. Default: it knows
	// none.
	Redactor *redact.Redactor
	// Logger is for the operator. Default: discarded.
	Logger *slog.Logger

	// FirstPoll, LongPoll, Requeue, ReportEvery, Grace and AskEvery default to
	// the constants of the same name. LongPoll is at most MaxLongPoll.
	FirstPoll, LongPoll, Requeue, ReportEvery, Grace, AskEvery time.Duration
	// StageLimit ends any stage; nothing in Argo ends one that has been
	// reported as running. Stages have limits of their own, well below it.
	// Default: DefaultStageLimit.
	StageLimit time.Duration
	// StayPending leaves out Running reports, so that Argo's own timeouts stay
	// in force; the node then looks pending while it runs.
	StayPending bool
}

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Registry == nil:
		return c, errors.New("execution: no stages are registered")
	case c.Journal == nil:
		return c, errors.New("execution: a journal is needed")
	case c.LogDir == "":
		return c, errors.New("execution: a directory for logs is needed")
	}
	if c.Stdout == nil {
		c.Stdout = io.Discard
	}
	if c.Redactor == nil {
		c.Redactor = redact.New()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&c.FirstPoll, DefaultFirstPoll},
		{&c.LongPoll, DefaultLongPoll},
		{&c.Requeue, DefaultRequeue},
		{&c.ReportEvery, DefaultReportEvery},
		{&c.Grace, DefaultGrace},
		{&c.StageLimit, DefaultStageLimit},
		{&c.AskEvery, DefaultAskEvery},
	} {
		if *d.value <= 0 {
			*d.value = d.fallback
		}
	}
	c.LongPoll = min(c.LongPoll, MaxLongPoll)
	c.FirstPoll = min(c.FirstPoll, c.LongPoll)
	return c, nil
}
