package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/e2e/toolcache"
)

// dockerAnswer is how long a Docker engine may take to say that it is there.
const dockerAnswer = 10 * time.Second

// findEngine chooses Docker where its engine answers, else buildah, which it
// installs if it may and which works in dir.
func findEngine(ctx context.Context, dir string, log io.Writer) (engine, error) {
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
	return buildahEngine{dir}, nil
}

// EnsureBuilder makes sure that images can be built here: by a Docker engine,
// else by buildah, which it installs if it may.
func EnsureBuilder(ctx context.Context, log io.Writer) error {
	_, err := findEngine(ctx, "", log)
	return err
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

func (e dockerEngine) build(ctx context.Context, d dockerfile, from base, out string, log io.Writer) error {
	args := append([]string{"build", "--file", d.path, "--tag", d.tag}, secrets()...)
	if d.target != "" {
		args = append(args, "--target", d.target)
	}
	if from.tar != "" {
		if err := runCommand(exec.CommandContext(ctx, e.docker, "load", "--quiet", "--input", from.tar), log); err != nil {
			return err
		}
		args = append(args, "--build-arg", "BASE="+from.tag)
	}
	cmd := exec.CommandContext(ctx, e.docker, append(args, d.context)...)
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=1")
	if err := runCommand(cmd, log); err != nil {
		return err
	}
	return runCommand(exec.CommandContext(ctx, e.docker, "save", "--output", out, d.tag), log)
}

// end is the end of a program's messages.
func end(s string) string {
	const most = 2000
	s = strings.TrimSpace(s)
	return s[max(0, len(s)-most):]
}
