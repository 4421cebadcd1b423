package commands

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

const (
	// tailLines and tailLimit bound what a fault quotes of a command's output:
	// a node message has room for 1 KiB in all.
	tailLines = 6
	tailLimit = 600
	// titleLimit bounds a command in headings and messages.
	titleLimit = 120
)

// executor is the part of worker.Client that is needed.
type executor interface {
	Exec(ctx context.Context, cmd worker.Command, output io.Writer) (worker.Exit, error)
}

// List is commands to run in their order.
type List struct {
	// Commands are shell text as the user wrote it, each a Script.
	Commands []string
	// Dir is where the first one starts, relative to the worker's root.
	Dir string
	// Env is added to the worker's default environment.
	Env map[string]string
	// Timeout is for all commands together; zero is no limit.
	Timeout time.Duration
	// TimeoutLabel names the setting Timeout comes from ("build.timeout").
	TimeoutLabel string
	// Grace is the time between SIGTERM and SIGKILL; zero is the default.
	Grace time.Duration
	// MaxOutput is how many bytes of each command's output are passed on;
	// zero is no limit.
	MaxOutput int64
}

// Result is one command that was started.
type Result struct {
	// Command is its text.
	Command string
	// Exit is how it ended, without the environment.
	Exit worker.Exit
	// Err is why it did not end by itself; nil otherwise.
	Err error
}

// Run runs the commands of list in order until one fails. The results are those
// of the commands that were started, also beside an error.
//
// Errors: CommandFailed (class User) for a command whose exit code is not 0;
// StageTimeout when list.Timeout is used up; what worker.Client.Exec returns.
// They name the command.
func Run(ctx context.Context, exec executor, list List, output io.Writer) ([]Result, error) {
	if list.Timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, list.Timeout, worker.Timeout(list.Timeout, list.TimeoutLabel))
		defer stop()
	}
	cmd := worker.Command{Dir: list.Dir, Env: list.Env, Grace: list.Grace, MaxOutput: list.MaxOutput}
	log := &sections{w: output}
	results := make([]Result, 0, len(list.Commands))
	for i, text := range list.Commands {
		if err := log.printf("==> [%d/%d] %s", i+1, len(list.Commands), title(text)); err != nil {
			return results, err
		}
		cmd.Script = text
		started := time.Now()
		exit, err := exec.Exec(ctx, cmd, log)
		next := exit.Env
		exit.Env = nil
		if exit.Duration == 0 {
			exit.Duration = time.Since(started)
		}
		results = append(results, Result{Command: text, Exit: exit, Err: err})
		err = errors.Join(conclude(i, len(list.Commands), text, exit, err), log.outcome(exit, err))
		if err != nil {
			return results, err
		}
		cmd.Dir, cmd.Env, cmd.ExactEnv = exit.Dir, next, true
	}
	return results, nil
}

// conclude turns a command's end into the list's error.
func conclude(i, n int, text string, exit worker.Exit, err error) error {
	op := fmt.Sprintf("run command %d of %d (%s)", i+1, n, title(text))
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if exit.Code == 0 {
		return nil
	}
	return &fault.Fault{
		Class: fault.User, Reason: fault.CommandFailed, Op: op, Remedy: remedy(exit),
		Err: fmt.Errorf("%s%s", status(exit), quote(exit.Tail)),
	}
}

// status says how a command ended, in words.
func status(exit worker.Exit) string {
	if exit.Signal != "" {
		return "ended by " + exit.Signal
	}
	return fmt.Sprintf("exit code %d", exit.Code)
}

// remedy advises where the code says something by convention.
func remedy(exit worker.Exit) string {
	switch exit.Code {
	case 126:
		return "Make the program executable (git update-index --chmod=+x)"
	case 127:
		return "Use a worker image that has the program (worker.image), or install it in an earlier command"
	case 137:
		return "See whether the worker ran out of memory (worker.resources), or who sent SIGKILL"
	}
	return "See the log of the stage"
}

// quote returns the last lines of the output as part of a message.
func quote(tail []byte) string {
	tail = bytes.TrimSpace(tail)
	if len(tail) == 0 {
		return ""
	}
	lines := bytes.Split(tail, []byte("\n"))
	lines = lines[max(0, len(lines)-tailLines):]
	text := string(bytes.Join(lines, []byte("\n")))
	if len(text) > tailLimit {
		// Whole lines only: a secret that is cut is no longer known as one.
		_, whole, ok := strings.Cut(text[len(text)-tailLimit:], "\n")
		if !ok {
			return "; its last line is too long to be shown here"
		}
		text = "…\n" + whole
	}
	return "; last lines:\n" + text
}

// title is the first line of a command, shortened.
func title(text string) string {
	first, rest, _ := strings.Cut(strings.TrimSpace(text), "\n")
	cut := strings.TrimSpace(rest) != ""
	if len(first) > titleLimit {
		first, cut = strings.ToValidUTF8(first[:titleLimit], ""), true
	}
	if cut {
		first += " …"
	}
	return first
}

// sections writes headings that start on a line of their own.
type sections struct {
	w    io.Writer
	open bool // the last byte was no newline
}

// Write passes output on.
func (s *sections) Write(p []byte) (int, error) {
	if len(p) > 0 {
		s.open = p[len(p)-1] != '\n'
	}
	return s.w.Write(p)
}

func (s *sections) printf(format string, args ...any) error {
	line := fmt.Sprintf(format, args...) + "\n"
	if s.open {
		line = "\n" + line
	}
	s.open = false
	_, err := io.WriteString(s.w, line)
	return err
}

// outcome writes how a command ended.
func (s *sections) outcome(exit worker.Exit, err error) error {
	took := exit.Duration.Round(10 * time.Millisecond)
	how := "done"
	switch {
	case err != nil:
		how = err.Error()
	case exit.Code != 0:
		how = status(exit)
	}
	if exit.Warning != "" {
		if err := s.printf("<== warning: %s", exit.Warning); err != nil {
			return err
		}
	}
	return s.printf("<== %s after %s", how, took)
}
