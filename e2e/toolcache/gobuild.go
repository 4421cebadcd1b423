package toolcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// stopGrace is how long the go command has to end its compilers after an
// interrupt.
const stopGrace = 10 * time.Second

// Toolchain is a string that names the Go toolchain and the platform it
// builds for, to be used as an input of a recipe.
func Toolchain(ctx context.Context, moduleDir string) (string, error) {
	var out bytes.Buffer
	if err := runGo(ctx, moduleDir, &out, "env", "GOVERSION", "GOOS", "GOARCH", "GOAMD64"); err != nil {
		return "", err
	}
	return strings.Join(strings.Fields(out.String()), " "), nil
}

// buildFlags are the flags of every build: no machine paths, no symbol
// tables. vars are values for package variables, "path.name=value".
func buildFlags(vars ...string) []string {
	ld := []string{"-s", "-w"}
	for _, v := range vars {
		ld = append(ld, "-X", v)
	}
	return []string{"-trimpath", "-ldflags", strings.Join(ld, " ")}
}

// goBuild builds packages of the module in dir. With several packages out
// must be a directory.
func goBuild(ctx context.Context, dir, out string, log io.Writer, flags, packages []string) error {
	args := append([]string{"build", "-o", out}, flags...)
	return runGo(ctx, dir, log, append(args, packages...)...)
}

// runGo runs the go command in dir without cgo, workspaces or flags of the
// user's environment, and stops it with everything it started when ctx ends.
func runGo(ctx context.Context, dir string, stdout io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = stopGrace
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = stdout, &stderr
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: install Go and put it on PATH", err)
	}
	return fmt.Errorf("go %s in %s: %w\n%s", args[0], filepath.Base(dir), err, lastLines(stderr.String(), 20))
}

// lastLines returns at most the last n lines of text.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
