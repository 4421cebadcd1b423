package aws

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// stopGrace is how long a server has to end after SIGTERM before it is killed.
// Both wait for connections that clients keep open; nothing is lost by not
// waiting with them.
const stopGrace = 500 * time.Millisecond

// process is a server started by this package. It ends with the test that
// started it, even if that is killed.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error // of Wait; read after done is closed
}

// startProcess starts argv in its own process group with output to the file
// log. env is the whole environment.
func startProcess(name, log string, env, argv []string) (*process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", name, err)
	}
	defer func() { _ = file.Close() }()
	// The context of the start must not end the server, hence Background: its
	// life is ended by stop.
	cmd := exec.CommandContext(context.Background(), argv[0], argv[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	p := &process{name: name, cmd: cmd, log: log, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// Linux sends the parent-death signal when the thread that started the
		// child ends, so that thread is kept until the child is gone.
		runtime.LockOSThread()
		defer close(p.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// exited says whether the server has ended by itself.
func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop ends the server and everything in its process group, and waits.
func (p *process) stop() error {
	if p.exited() {
		return fmt.Errorf("%s had ended before it was stopped (%s), see %s", p.name, p.cmd.ProcessState, p.log)
	}
	// The child is not yet waited for, so its id cannot belong to another
	// process.
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-time.After(stopGrace):
	}
	err := p.signal(syscall.SIGKILL)
	<-p.done
	return err
}

func (p *process) signal(sig syscall.Signal) error {
	if err := syscall.Kill(-p.cmd.Process.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %s to %s: %w", sig, p.name, err)
	}
	return nil
}
