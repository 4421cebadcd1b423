package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// TailBytes is how much of the last output Exit.Tail keeps. 64 KiB holds
	// the stack trace of any common tool and costs little per process.
	TailBytes = 64 << 10
	// DefaultGrace is the time between SIGTERM and SIGKILL where
	// Command.Grace is zero: what `docker stop` gives, so programs are built
	// for it.
	DefaultGrace = 10 * time.Second

	// linger is how long descendants may hold the output after the process
	// itself ended well. Filters such as `exec > >(tee log)` need
	// milliseconds; a server started in the background would take for ever.
	linger = 2 * time.Second
	// drain is how long the output of processes outside the group is still
	// read once the group is dead.
	drain = time.Second
	// pipeMax is the kernel's upper limit for what a pipe holds.
	pipeMax = 1 << 20
	// busyTries bounds the retries of ETXTBSY: a file written a moment ago is
	// busy while another child, forked meanwhile, still holds it.
	busyTries = 6
)

// Command is a process to run. Path and Name are required.
type Command struct {
	// Name stands for the command in messages; no arguments.
	Name string
	// Path is the program's file, absolute or relative to Dir. It is not
	// looked up in PATH.
	Path string
	// Args are the arguments without the program's own name.
	Args []string
	// Dir is the working directory; it must exist. Empty is our own.
	Dir string
	// Env is the whole environment, as KEY=value. Nil is an empty one: the
	// caller's is never inherited.
	Env []string
	// Stdin is read by the child; nil is an empty input.
	Stdin *os.File
	// Hurry, if set, ends the grace when it is closed.
	Hurry <-chan struct{}
	// Output receives standard output and error, merged in their order. A
	// blocking Write blocks the child; a failing one ends the command. It is
	// never written to after Wait returned. Nil discards.
	Output io.Writer
	// Stdout, if set, receives standard output apart; Output and Tail then
	// have standard error only. It must be safe to use beside Output.
	Stdout io.Writer
	// Grace is the time between SIGTERM and SIGKILL; zero is DefaultGrace.
	Grace time.Duration
	// Sweep, if set, is called once, after the group was killed and while the
	// process id is still taken, to end descendants that left the group. It
	// returns a warning, or "".
	Sweep func() string
}

// Process is a running command. Wait must be called.
type Process struct {
	cmd     Command
	child   *exec.Cmd
	pid     int
	started time.Time
	ctx     func() error // the cause, once the context ended
	done    <-chan struct{}
	exited  chan struct{}
	tail    ring
	pipes   []*pipe
	failed  chan error
}

// pipe is one output of the child.
type pipe struct {
	read *os.File
	done chan struct{}
	held bool
}

// Run starts cmd and waits for it.
//
// Errors: *ExitError if the process ended by itself with a code other than 0,
// and whatever Start and Wait return. Exit is set whenever the process ran.
func Run(ctx context.Context, cmd Command) (Exit, error) {
	p, err := Start(ctx, cmd)
	if err != nil {
		return Exit{}, err
	}
	return p.Wait()
}

// Start starts cmd. When ctx ends, the process's group gets SIGTERM and, after
// the grace, SIGKILL.
//
// Errors: ErrDir, fs.ErrNotExist or fs.ErrPermission for the program, the
// cause of ctx if it has ended.
func Start(ctx context.Context, cmd Command) (*Process, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Name, err)
	}
	if cmd.Dir != "" {
		if info, err := os.Stat(cmd.Dir); err != nil || !info.IsDir() {
			return nil, fmt.Errorf("start %s in %s: %w", cmd.Name, cmd.Dir, ErrDir)
		}
	}
	if cmd.Grace <= 0 {
		cmd.Grace = DefaultGrace
	}
	p := &Process{
		cmd:    cmd,
		ctx:    func() error { return context.Cause(ctx) },
		done:   ctx.Done(),
		exited: make(chan struct{}),
		tail:   ring{limit: TailBytes},
		failed: make(chan error, 2),
	}
	if err := p.start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Name, err)
	}
	return p, nil
}

// PID returns the process id, which is also that of the group and session.
func (p *Process) PID() int { return p.pid }

// start connects the outputs and forks.
func (p *Process) start() error {
	var ends []*os.File // the child's
	defer func() {
		for _, f := range ends {
			_ = f.Close()
		}
	}()
	var writers []io.Writer
	open := func(w io.Writer) (*os.File, error) {
		r, wr, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		ends = append(ends, wr)
		p.pipes = append(p.pipes, &pipe{read: r, done: make(chan struct{})})
		writers = append(writers, w)
		return wr, nil
	}
	stderr, err := open(tee(&p.tail, p.cmd.Output))
	stdout := stderr
	if err == nil && p.cmd.Stdout != nil {
		stdout, err = open(p.cmd.Stdout)
	}
	if err == nil {
		err = p.fork(stdout, stderr)
	}
	if err != nil {
		for _, q := range p.pipes {
			_ = q.read.Close()
		}
		return err
	}
	for i, q := range p.pipes {
		go p.copy(q, writers[i])
	}
	return nil
}

// fork starts the child, again if its file is still busy.
func (p *Process) fork(stdout, stderr *os.File) error {
	delay := 5 * time.Millisecond
	for try := 1; ; try++ {
		// The context is ours to watch: exec.CommandContext would signal the
		// leader alone and know nothing of the group.
		child := &exec.Cmd{
			Path: p.cmd.Path, Args: append([]string{p.cmd.Path}, p.cmd.Args...),
			Dir: p.cmd.Dir, Env: p.cmd.Env, Stdout: stdout, Stderr: stderr,
			SysProcAttr: &syscall.SysProcAttr{Setsid: true},
		}
		if child.Env == nil {
			child.Env = []string{}
		}
		if p.cmd.Stdin != nil {
			child.Stdin = p.cmd.Stdin
		}
		err := child.Start()
		if err == nil {
			p.child, p.pid, p.started = child, child.Process.Pid, time.Now()
			return nil
		}
		if !errors.Is(err, syscall.ETXTBSY) || try == busyTries {
			return err
		}
		select {
		case <-p.done:
			return p.ctx()
		case <-time.After(delay):
		}
		delay *= 2
	}
}

// copy moves one output to its writer until its end.
func (p *Process) copy(q *pipe, w io.Writer) {
	defer close(q.done)
	_, err := io.Copy(w, q.read)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		q.held, err = q.rest(w)
	}
	if err != nil {
		p.failed <- fmt.Errorf("pass on the output of %s: %w", p.cmd.Name, err)
	}
}

// rest passes on what still is in the pipe after the deadline of drain, since
// a slow writer may have used that up. It reports whether somebody has the
// other end open.
func (q *pipe) rest(w io.Writer) (held bool, err error) {
	if err := q.read.SetReadDeadline(time.Time{}); err != nil {
		return false, err
	}
	raw, err := q.read.SyscallConn()
	if err != nil {
		return false, err
	}
	buf := make([]byte, 64<<10)
	for range pipeMax / len(buf) {
		var n int
		var readErr error
		if err := raw.Read(func(fd uintptr) bool {
			for n, readErr = unix.Read(int(fd), buf); errors.Is(readErr, unix.EINTR); {
				n, readErr = unix.Read(int(fd), buf)
			}
			return true
		}); err != nil {
			return false, err
		}
		switch {
		case errors.Is(readErr, unix.EAGAIN):
			return true, nil
		case readErr != nil:
			return false, readErr
		case n == 0:
			return false, nil
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return false, err
		}
	}
	return true, nil
}

// Wait waits for the process, ends what is left of its group and returns how
// it ended. Call it once.
//
// Errors: *ExitError if it ended by itself with a code other than 0; the cause
// of the context if that ended first and the process did not end well
// nevertheless; an error of the Output writer. Exit is set in every case.
func (p *Process) Wait() (Exit, error) {
	go func() {
		awaitExit(p.pid)
		close(p.exited)
	}()
	writeErr := p.watch()
	held := !p.settle()
	p.kill(unix.SIGKILL)
	var warning string
	if p.cmd.Sweep != nil {
		warning = p.cmd.Sweep()
	}
	held = p.drain() || held
	waitErr := p.child.Wait()
	exit := Exit{Tail: p.tail.bytes(), Duration: time.Since(p.started)}
	if p.child.ProcessState == nil { // somebody else reaped it
		return exit, fmt.Errorf("wait for %s: %w", p.cmd.Name, waitErr)
	}
	exit.code(p.child.ProcessState)
	if held && warning == "" && p.ctx() == nil {
		warning = "processes it left running still held its output and were ended"
	}
	exit.Warning = warning
	select {
	case err := <-p.failed:
		writeErr = errors.Join(writeErr, err)
	default:
	}
	if writeErr != nil {
		return exit, writeErr
	}
	if exit.Code == 0 {
		return exit, nil
	}
	if cause := p.ctx(); cause != nil {
		return exit, fmt.Errorf("%s: %w", p.cmd.Name, cause)
	}
	if _, ok := errors.AsType[*exec.ExitError](waitErr); waitErr != nil && !ok {
		return exit, fmt.Errorf("wait for %s: %w", p.cmd.Name, waitErr)
	}
	return exit, &ExitError{Name: p.cmd.Name, Code: exit.Code, Signal: exit.Signal, Tail: exit.Tail}
}

// watch returns when the process has ended. It ends it when the context does,
// or when its output cannot be passed on.
func (p *Process) watch() error {
	var writeErr error
	select {
	case <-p.exited:
		return nil
	case writeErr = <-p.failed:
	case <-p.done:
	}
	p.kill(unix.SIGTERM)
	grace := time.NewTimer(p.cmd.Grace)
	defer grace.Stop()
	select {
	case <-p.exited:
		return writeErr
	case <-grace.C:
	case <-p.cmd.Hurry:
	}
	p.kill(unix.SIGKILL)
	<-p.exited
	return writeErr
}

// settle gives the rest of the group a moment to finish its output and reports
// whether it did.
func (p *Process) settle() bool {
	limit := time.NewTimer(min(linger, p.cmd.Grace))
	defer limit.Stop()
	for _, q := range p.pipes {
		select {
		case <-q.done:
		case <-limit.C:
			return false
		}
	}
	return true
}

// drain reads what is left of the outputs and reports whether somebody held
// one open.
func (p *Process) drain() bool {
	deadline := time.Now().Add(drain)
	var held bool
	for _, q := range p.pipes {
		_ = q.read.SetReadDeadline(deadline)
	}
	for _, q := range p.pipes {
		<-q.done
		held = held || q.held
		_ = q.read.Close()
	}
	return held
}

// kill signals the group. The leader is not reaped yet, so the id is its own.
func (p *Process) kill(sig syscall.Signal) { _ = unix.Kill(-p.pid, sig) }

// awaitExit blocks until the child has ended, without reaping it: as long as
// it is a zombie, neither its id nor its group's can be given to a stranger.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// tee writes to the ring and to w, whose errors count.
func tee(r *ring, w io.Writer) io.Writer {
	if w == nil {
		return r
	}
	return &teeWriter{ring: r, w: w}
}

type teeWriter struct {
	ring *ring
	w    io.Writer
}

// Write keeps p and passes it on.
func (t *teeWriter) Write(p []byte) (int, error) {
	_, _ = t.ring.Write(p)
	return t.w.Write(p)
}
