package process

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Exit is how a process ended.
type Exit struct {
	// Code is the exit code; 128 + signal number if a signal ended it.
	Code int
	// Signal is the signal's name ("SIGKILL"), empty if there was none.
	Signal string
	// Tail is the last output, at most TailBytes, not redacted.
	Tail []byte
	// Duration is the time from start to the last clean-up.
	Duration time.Duration
	// Warning is a sentence about something unusual in a process that ended
	// well, such as descendants it left running; empty otherwise.
	Warning string
}

// ExitError is a process that ended with a code other than 0. Its text names
// neither arguments nor output, since both may hold secrets.
type ExitError struct {
	// Name is Command.Name.
	Name string
	// Code, Signal and Tail are those of Exit.
	Code   int
	Signal string
	Tail   []byte
}

// Error says how the process ended: "npm: exit code 1", "npm: ended by SIGKILL".
func (e *ExitError) Error() string {
	if e.Signal != "" {
		return fmt.Sprintf("%s: ended by %s", e.Name, e.Signal)
	}
	return fmt.Sprintf("%s: exit code %d", e.Name, e.Code)
}

// ErrDir is a working directory that does not exist or is none.
var ErrDir = errors.New("no such working directory")

// code translates the kernel's status.
func (e *Exit) code(state *os.ProcessState) {
	e.Code = state.ExitCode()
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return
	}
	e.Code = 128 + int(status.Signal())
	if e.Signal = unix.SignalName(status.Signal()); e.Signal == "" {
		e.Signal = fmt.Sprintf("signal %d", int(status.Signal()))
	}
}
