package images

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// stopGrace is how long a stopped build has to clean up.
const stopGrace = 10 * time.Second

// runCommand runs cmd with its output going to log. It stops cmd with
// everything it started when its context ends, and when this process dies.
func runCommand(cmd *exec.Cmd, log io.Writer) error {
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = log, &stderr
	if log != nil {
		cmd.Stderr = io.MultiWriter(log, &stderr)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	// Linux counts the end of the thread that started the child as the
	// parent's death.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // nothing it started outlives it
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, end(stderr.String()))
	}
	return nil
}
