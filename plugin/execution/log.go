package execution

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/stagelog"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// uploadTimeout bounds the upload of a log.
const uploadTimeout = 2 * time.Minute

// lineWriter writes whole lines of several stages to one place.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lineWriter) writeLine(prefix string, line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := make([]byte, 0, len(prefix)+len(line)+1)
	text = append(append(append(text, prefix...), line...), '\n')
	_, _ = l.w.Write(text) // a closed standard output must not stop a stage
}

// stageLog is the user-visible log of one stage: live, line by line, to
// standard output and to the bucket. It is safe for concurrent use; a write
// never fails, since a full disk must not fail a stage.
type stageLog struct {
	stagelog.Lines
	out    *lineWriter
	prefix string
	kept   *stagelog.Log
	// in hides secrets, also those that are split over writes or lines.
	in *redact.Writer
}

// openLog opens the log of the start-th process that works on an execution.
func (e *Engine) openLog(ctx context.Context, req *task.Request, start int) *stageLog {
	l := &stageLog{
		out: e.out, prefix: "[" + label(req) + "] ",
		kept: stagelog.Open(ctx, stagelog.Config{
			Dir: e.cfg.LogDir, Store: e.cfg.Logs, Every: e.cfg.LogEvery, Logger: e.cfg.Logger,
		}, LogID(req), start),
	}
	l.Line = l.line
	l.in = redact.NewWriter(&l.Lines, e.cfg.Redactor)
	if start > 1 {
		l.line([]byte("aphex: the plugin was restarted; the stage is resumed"))
	}
	return l
}

// Write implements io.Writer.
func (l *stageLog) Write(p []byte) (int, error) { return l.in.Write(p) }

// outcome writes what a message may have no room for, whatever is added to it.
func (l *stageLog) outcome(o outcome) {
	text := ""
	switch {
	case o.err != nil:
		text = fault.Text(o.err)
	case len(o.result.Message) > maxMessage-messageTail-len(gapLogged):
		text = o.result.Message
	default:
		return
	}
	l.finish("")                                                          // so that it begins a line
	_, _ = fmt.Fprintln(l, "aphex: "+strings.ToValidUTF8(text, "\uFFFD")) // writing lines never fails
}

// finish writes what is left and a last line, unless that is empty.
func (l *stageLog) finish(last string) {
	_ = l.in.Flush() // writing lines never fails
	l.Flush(last)
}

func (l *stageLog) line(text []byte) {
	l.out.writeLine(l.prefix, text)
	l.kept.Append(text)
}

// discard closes the log of a stage that stopped without an outcome; the
// process that resumes it goes on.
func (l *stageLog) discard(ctx context.Context) {
	l.finish("aphex: the plugin is being replaced; the stage will be resumed")
	l.kept.Detach(ctx)
}

// LogID names the log of an execution.
func LogID(req *task.Request) stagelog.ID {
	return stagelog.ID{
		RunUID: req.Run.UID, Stage: req.Stage, Environment: req.Environment, Epoch: req.Run.Epoch, Attempt: req.Attempt,
	}
}

// uploadLog ends the log and uploads it. A failure is a warning, for the
// message: the stage's outcome is what it is.
func (e *Engine) uploadLog(ctx context.Context, req *task.Request, log *stageLog, o outcome) (url, warning string) {
	phase, _ := o.phase()
	log.outcome(o)
	log.finish(fmt.Sprintf("aphex: %s %s", label(req), phase))
	ctx, cancel := context.WithTimeout(ctx, uploadTimeout)
	defer cancel()
	object, err := log.kept.Finish(ctx)
	switch {
	case e.cfg.Logs == nil:
		return "", ""
	case err != nil:
		e.cfg.Logger.WarnContext(ctx, "log is not complete", slog.String("err", e.cfg.Redactor.String(err.Error())))
		return object.URL, "the log could not be kept completely: " + err.Error()
	}
	return object.URL, ""
}
