package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/aphex-pipeline/aphex/e2e/toolcache"
)

const (
	// dockerAnswer is how long a Docker engine may take to say that it is
	// there.
	dockerAnswer = 10 * time.Second
	// stopGrace is how long a stopped build has to clean up.
	stopGrace = 10 * time.Second
)

// findEngine chooses Docker where its engine answers, else buildah, which it
// installs if it may.
func findEngine(ctx context.Context, log io.Writer) (engine, error) {
	if docker, err := exec.LookPath("docker"); err == nil {
		asking, cancel := context.WithTimeout(ctx, dockerAnswer)
		defer cancel()
		if exec.CommandContext(asking, docker, "version", "--format", "{{.Server.Version}}").Run() == nil {
			return dockerEngine{docker}, nil
		}
	}
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return nil, errors.New("build container images: no Docker engine answers, and buildah needs root on Linux; start Docker or run this as root on Debian")
	}
	if err := ensurePackages(ctx, log, "buildah", "debootstrap"); err != nil {
		return nil, err
	}
	return buildahEngine{}, nil
}

// ensurePackages installs Debian packages whose program of the same name is
// missing.
func ensurePackages(ctx context.Context, log io.Writer, packages ...string) error {
	var missing []string
	for _, p := range packages {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	install := append([]string{"install", "--yes", "--no-install-recommends"}, missing...)
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("build container images: %s not found; install them, or Docker", strings.Join(missing, " and "))
	}
	_, _ = fmt.Fprintf(log, "installing %s\n", strings.Join(missing, ", "))
	for _, args := range [][]string{{"update"}, install} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if err := runCommand(cmd, log); err != nil {
			return fmt.Errorf("build container images: %s not found: %w; run apt-get install %s", strings.Join(missing, " and "), err, strings.Join(missing, " "))
		}
	}
	return nil
}

// secrets are the build secrets of a machine: its certificates and the
// configuration of its package clients, as far as there are any.
func secrets() []string {
	candidates := map[string][]string{
		"ca":      {os.Getenv("NODE_EXTRA_CA_CERTS"), os.Getenv("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt"},
		"npmrc":   {os.Getenv("NPM_CONFIG_USERCONFIG"), inHome(".npmrc")},
		"pipconf": {os.Getenv("PIP_CONFIG_FILE"), inHome(".config/pip/pip.conf"), "/etc/pip.conf"},
	}
	var flags []string
	for _, id := range []string{"ca", "npmrc", "pipconf"} {
		for _, path := range candidates[id] {
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				flags = append(flags, "--secret", "id="+id+",src="+path)
				break
			}
		}
	}
	return flags
}

func inHome(name string) string {
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, name)
}

// dockerEngine builds with a Docker engine, which pulls the base image.
type dockerEngine struct{ docker string }

func (dockerEngine) name() string { return "docker" }

func (dockerEngine) base() *toolcache.Recipe { return nil }

func (e dockerEngine) build(ctx context.Context, d dockerfile, _, out string, log io.Writer) error {
	args := append([]string{"build", "--file", d.path, "--tag", d.tag}, secrets()...)
	if d.target != "" {
		args = append(args, "--target", d.target)
	}
	cmd := exec.CommandContext(ctx, e.docker, append(args, d.context)...)
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=1")
	if err := runCommand(cmd, log); err != nil {
		return err
	}
	return runCommand(exec.CommandContext(ctx, e.docker, "save", "--output", out, d.tag), log)
}

// runCommand runs cmd with its output going to log, and stops it with
// everything it started when its context ends.
func runCommand(cmd *exec.Cmd, log io.Writer) error {
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = log, &stderr
	if log != nil {
		cmd.Stderr = io.MultiWriter(log, &stderr)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // nothing it started outlives it
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, end(stderr.String()))
	}
	return nil
}

// end is the end of a program's messages.
func end(s string) string {
	const most = 2000
	s = strings.TrimSpace(s)
	return s[max(0, len(s)-most):]
}
