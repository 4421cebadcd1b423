package execution

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

const (
	// maxLine is the longest line that is kept whole.
	maxLine = 64 << 10
	// maxLog bounds the file of one stage's log, which lives on the node's
	// disk; what comes after is only on standard output.
	maxLog = 256 << 20
	// uploadTimeout bounds the upload of a log.
	uploadTimeout = 2 * time.Minute
)

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
// standard output, and to a file until it is uploaded. It is safe for
// concurrent use; a write never fails, since a full disk must not fail a
// stage, but the failure is remembered.
type stageLog struct {
	out    *lineWriter
	prefix string
	redact func(string) string

	mu      sync.Mutex
	file    *os.File // nil if it could not be opened
	err     error
	partial []byte
	size    int64
}

var _ io.Writer = (*stageLog)(nil)

// openLog opens the log of an execution. A resumed one continues its file if
// the pod is the same.
func (e *Engine) openLog(req *task.Request, key string, resumed bool) *stageLog {
	l := &stageLog{out: e.out, prefix: "[" + label(req) + "] ", redact: e.cfg.Redact}
	root, err := os.OpenRoot(e.cfg.LogDir)
	if err == nil {
		sum := sha256.Sum256([]byte(key))
		l.file, err = root.OpenFile(req.Stage+"-"+hex.EncodeToString(sum[:8])+".log", os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
		err = errors.Join(err, root.Close())
	}
	if err == nil {
		l.size, err = l.file.Seek(0, io.SeekEnd)
	}
	l.err = err
	if resumed {
		l.line([]byte("aphex: the plugin was restarted; the stage is resumed"))
	}
	return l
}

// Write takes p apart into lines; what follows the last line break waits for
// its end.
func (l *stageLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			break
		}
		l.line(bytes.TrimSuffix(append(l.partial, p[:i]...), []byte("\r")))
		l.partial, p = l.partial[:0], p[i+1:]
	}
	l.partial = append(l.partial, p...)
	for len(l.partial) >= maxLine {
		l.line(l.partial[:maxLine])
		l.partial = append([]byte(nil), l.partial[maxLine:]...)
	}
	return n, nil
}

func (l *stageLog) line(raw []byte) {
	text := []byte(l.redact(string(raw)))
	l.out.writeLine(l.prefix, text)
	if l.file == nil || l.err != nil {
		return
	}
	if l.size+int64(len(text)) > maxLog {
		text, l.err = []byte("aphex: the log is cut off here"), fmt.Errorf("log is longer than %d MiB", maxLog>>20)
	}
	n, err := l.file.Write(append(text, '\n'))
	l.size += int64(n)
	if err != nil {
		l.err = errors.Join(l.err, err)
	}
}

// finish writes what is left and returns the file, ready to be read.
func (l *stageLog) finish(last string) (*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.partial) > 0 {
		l.line(l.partial)
		l.partial = nil
	}
	l.line([]byte(last))
	file := l.file
	l.file = nil
	if file == nil {
		return nil, l.err
	}
	_, err := file.Seek(0, io.SeekStart)
	return file, errors.Join(l.err, err)
}

// discard closes the log of a stage that stopped without an outcome. The file
// stays for the process that resumes it.
func (l *stageLog) discard() {
	file, _ := l.finish("aphex: the plugin is being replaced; the stage will be resumed")
	if file != nil {
		_ = file.Close()
	}
}

// LogKey returns the object key of a stage's log.
func LogKey(req *task.Request) string {
	name := req.Stage
	if req.Environment != "" {
		name += "-" + req.Environment
	}
	return "runs/" + req.Run.UID + "/logs/" + name + ".log"
}

// uploadLog ends the log and uploads it. A failure is a warning, for the
// message: the stage's outcome is what it is.
func (e *Engine) uploadLog(ctx context.Context, req *task.Request, log *stageLog, o outcome) (url, warning string) {
	phase, _ := o.phase()
	file, err := log.finish(fmt.Sprintf("aphex: %s %s", label(req), phase))
	if file != nil {
		defer func() { _ = file.Close() }() // only read from now on
	}
	if e.cfg.Logs == nil {
		return "", ""
	}
	if file != nil {
		ctx, cancel := context.WithTimeout(ctx, uploadTimeout)
		defer cancel()
		object, putErr := e.cfg.Logs.Put(ctx, LogKey(req), file, store.PutOptions{ContentType: "text/plain; charset=utf-8"})
		url, err = object.URL, errors.Join(err, putErr)
	}
	if err != nil {
		e.cfg.Logger.WarnContext(ctx, "log is not complete", slog.String("err", e.cfg.Redact(err.Error())))
		return url, "the log could not be kept completely: " + err.Error()
	}
	return url, ""
}
