package solo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Process is a running execution.
type Process struct {
	cmd   *exec.Cmd
	spec  string
	log   *os.File
	ended chan struct{}
	err   error
}

// Start runs the program once more, as the execution of a Spec. The caller
// waits for it.
func Start(ctx context.Context, s Spec) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.Dir, 0o750); err != nil {
		return nil, err
	}
	data, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	p := &Process{spec: filepath.Join(s.Dir, "spec.json"), ended: make(chan struct{})}
	if err := errors.Join(os.WriteFile(p.spec, data, 0o600), remove(p.spec+".reply")); err != nil {
		return nil, err
	}
	if p.log, err = os.OpenFile(filepath.Join(s.Dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	p.cmd = exec.CommandContext(ctx, self, Word, p.spec)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.Dir, "TMPDIR=" + s.Dir}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, p.log.Close())
	}
	go func() {
		defer close(p.ended)
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

func remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Kill ends the process at once, as the kernel or a lost node would.
func (p *Process) Kill() error { return p.cmd.Process.Signal(syscall.SIGKILL) }

// Terminate asks the process to end, as Kubernetes does first.
func (p *Process) Terminate() error { return p.cmd.Process.Signal(syscall.SIGTERM) }

// Ended is closed once the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Wait returns the reply once the process has ended.
//
// Errors: how the process ended, if not well, with the end of its log.
func (p *Process) Wait() (Reply, error) {
	<-p.ended
	closed := p.log.Close()
	if p.err != nil {
		return Reply{}, fmt.Errorf("the deployment's process: %w; its log ends: %s", errors.Join(p.err, closed), p.tail())
	}
	data, err := os.ReadFile(p.spec + ".reply")
	if err != nil {
		return Reply{}, err
	}
	var r Reply
	return r, json.Unmarshal(data, &r)
}

// tail is the end of the log.
func (p *Process) tail() string {
	const most = 3000
	data, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-most):])
}
