package worker

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

const (
	// cancelPause is the time between two tries to cancel a command.
	cancelPause = 100 * time.Millisecond
	// confirmLimit is how long beyond the grace the worker may take to confirm
	// that a cancelled command and all of its descendants are gone. The worker
	// itself needs up to 8 s (settle, sweep, drain).
	confirmLimit = 20 * time.Second
)

// Exec runs a command in the worker and returns when it and everything it
// started are gone. Output gets standard output and error, merged in order,
// as they come; nil discards them.
//
// Ending ctx ends the command: SIGTERM to its group, Command.Grace, SIGKILL.
// Exec still waits for the worker's confirmation, so that no descendant lives
// when it returns (unless the worker itself does not answer any more).
//
// An Exit.Code other than 0 is not an error. Errors beyond those of every
// method: ToolMissing (bash or Argv[0]), DirectoryMissing, StageTimeout (also
// when Command.Timeout is used up), and an error of output. Exit is filled as
// far as it is known also beside an error.
func (c *Client) Exec(ctx context.Context, cmd Command, output io.Writer) (Exit, error) {
	if cmd.Timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, cmd.Timeout, Timeout(cmd.Timeout, cmd.TimeoutLabel))
		defer stop()
	}
	if output == nil {
		output = io.Discard
	}
	e := &execution{client: c, cmd: cmd, id: rand.Text(), op: "run " + name(cmd), sink: sink{w: output, limit: cmd.MaxOutput}}
	if ctx.Err() != nil {
		return Exit{}, cancelled(ctx, e.op)
	}
	return e.run(ctx)
}

// Timeout returns the cause of a context that ends after limit: a StageTimeout
// fault that names the setting ("timeout 30m (build.timeout)").
func Timeout(limit time.Duration, label string) error {
	f := &fault.Fault{Class: fault.Cancelled, Reason: fault.StageTimeout, Err: fmt.Errorf("timeout %s", short(limit))}
	if label != "" {
		f.Err = fmt.Errorf("timeout %s (%s)", short(limit), label)
		f.Remedy = "Raise " + label + " in the configuration, or see in the log what takes so long"
	}
	return f
}

// short formats a duration without zero units: 30m rather than 30m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// name is the command's in messages: no arguments, which may hold secrets.
func name(cmd Command) string {
	if len(cmd.Argv) > 0 {
		return path.Base(cmd.Argv[0])
	}
	return "script"
}

// execution is one call of Exec.
type execution struct {
	client *Client
	cmd    Command
	id     string
	op     string
	sink   sink
}

// run does the request. The request's own context outlives ctx, so that the
// end of a cancelled command is still heard.
func (e *execution) run(ctx context.Context) (Exit, error) {
	reqCtx, hangUp := context.WithCancelCause(context.WithoutCancel(ctx))
	defer hangUp(nil)
	req, err := post(reqCtx, pathExec, execRequest{
		ID: e.id, Script: pathBytes(e.cmd.Script), Argv: toPaths(e.cmd.Argv), Dir: pathBytes(e.cmd.Dir),
		Env: toBytes(e.cmd.Env), Exact: e.cmd.ExactEnv, Grace: e.cmd.Grace,
	})
	if err != nil {
		return Exit{}, err
	}
	watchCtx, endWatch := context.WithCancel(reqCtx)
	watched := make(chan struct{})
	local := make(chan error, 1) // why we cancel ourselves
	go func() {
		defer close(watched)
		e.watch(ctx, watchCtx, local, hangUp)
	}()
	defer func() { endWatch(); <-watched }()

	// The worker answers at once, with a heartbeat.
	silence := time.AfterFunc(e.client.connect+e.client.silence, func() { hangUp(errSilent) })
	defer silence.Stop()
	resp, err := e.client.do(ctx, req, e.op)
	if err != nil {
		return Exit{}, e.ended(ctx, reqCtx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	message, err := e.stream(resp, silence, local)
	exit := Exit{Tail: e.sink.tail.bytes()}
	if err != nil {
		return exit, e.ended(ctx, reqCtx, err)
	}
	exit.Code, exit.Signal, exit.Duration = message.Code, message.Signal, message.Duration
	exit.Dir, exit.Env, exit.Warning = string(message.Dir), toStrings(message.Env), e.sink.warning(message.Warning)
	switch {
	case e.sink.err != nil:
		return exit, fmt.Errorf("%s: pass on its output: %w", e.op, e.sink.err)
	case exit.Code == 0:
		return exit, nil
	case ctx.Err() != nil:
		return exit, cancelled(ctx, e.op)
	case message.Error != nil:
		return exit, fmt.Errorf("%s: %w", e.op, message.Error.fault())
	}
	return exit, nil
}

// ended explains an exec request that failed.
func (e *execution) ended(ctx, reqCtx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return cancelled(ctx, e.op)
	case reqCtx.Err() != nil:
		return cancelled(reqCtx, e.op)
	}
	if _, ok := errors.AsType[*fault.Fault](err); ok {
		return err
	}
	return e.client.lost(reqCtx, e.op, err)
}

// watch cancels the command in the worker when ctx ends or local says so, and
// hangs up if that is not confirmed in time. It returns when done ends.
func (e *execution) watch(ctx, done context.Context, local <-chan error, hangUp context.CancelCauseFunc) {
	select {
	case <-done.Done():
		return
	case <-local: //nolint:errcheck // says that it went wrong; what did is told by who sent it
	case <-ctx.Done():
	}
	grace := e.cmd.Grace
	if grace <= 0 {
		grace = DefaultGrace
	}
	limit := time.NewTimer(grace + confirmLimit)
	defer limit.Stop()
	for e.cancel(done) != nil {
		select {
		case <-done.Done():
			return
		case <-limit.C:
			hangUp(errSilent)
			return
		case <-time.After(cancelPause):
		}
	}
	select {
	case <-done.Done():
	case <-limit.C:
		hangUp(errSilent)
	}
}

// cancel asks the worker to end the command. It fails while the worker does
// not know it yet.
func (e *execution) cancel(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	req, err := post(ctx, pathCancel, cancelRequest{ID: e.id})
	if err != nil {
		return err
	}
	resp, err := e.client.web.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return refusal(resp)
}

// stream reads frames until the exit.
func (e *execution) stream(resp *http.Response, silence *time.Timer, local chan<- error) (*exitMessage, error) {
	var buf []byte
	for {
		silence.Reset(e.client.silence)
		kind, payload, err := readFrame(resp.Body, buf)
		if err != nil {
			return nil, err
		}
		silence.Stop()
		buf = payload
		switch kind {
		case frameOutput:
			if e.sink.write(payload) && e.sink.err != nil {
				local <- e.sink.err
			}
		case frameExit:
			var m exitMessage
			if err := json.Unmarshal(payload, &m); err != nil {
				return nil, fmt.Errorf("understand how it ended: %w", err)
			}
			return &m, nil
		}
	}
}

// sink passes output on, within the limit, and keeps the tail.
type sink struct {
	w       io.Writer
	limit   int64
	passed  int64
	dropped int64
	tail    tailBuffer
	err     error
}

// write reports whether this was the first time that w failed.
func (s *sink) write(p []byte) bool {
	s.tail.add(p)
	if s.err != nil {
		return false
	}
	if s.limit > 0 && s.passed+int64(len(p)) > s.limit {
		keep := s.limit - s.passed
		s.dropped += int64(len(p)) - keep
		p = p[:keep]
	}
	if len(p) == 0 {
		return false
	}
	s.passed += int64(len(p))
	_, s.err = s.w.Write(p)
	return s.err != nil
}

// warning adds what was dropped to the worker's own.
func (s *sink) warning(remote string) string {
	const limit = 4 << 10
	remote = remote[:min(len(remote), limit)]
	if s.dropped == 0 {
		return remote
	}
	text := fmt.Sprintf("%d bytes of output beyond the limit of %d were dropped", s.dropped, s.limit)
	if remote != "" {
		text += "; " + remote
	}
	return text
}

// tailBuffer keeps the last TailBytes, a little more while it grows.
type tailBuffer struct{ buf []byte }

func (t *tailBuffer) add(p []byte) {
	if len(t.buf)+len(p) > 4*TailBytes {
		t.buf = append(t.buf[:0], t.buf[max(0, len(t.buf)-TailBytes):]...)
	}
	t.buf = append(t.buf, p[max(0, len(p)-TailBytes):]...)
}

func (t *tailBuffer) bytes() []byte {
	if len(t.buf) == 0 {
		return nil
	}
	return append([]byte(nil), t.buf[max(0, len(t.buf)-TailBytes):]...)
}
