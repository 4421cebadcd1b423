package aws

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/aphex-pipeline/aphex/e2e/toolcache"
)

// installGrace is how long an installer has to clean up after a SIGTERM.
const installGrace = 5 * time.Second

//go:embed emulator/requirements.txt cdk/package.json cdk/package-lock.json
var pinned embed.FS

// installVenv returns a virtual environment with the pinned emulator.
func installVenv(ctx context.Context, cacheDir string, log io.Writer) (string, error) {
	python, err := exec.LookPath("python3")
	if err != nil {
		return "", fmt.Errorf("find Python for the AWS emulator: %w; install python3 (3.10 or later) with its venv module", err)
	}
	version, err := run(ctx, "", nil, python, "-c",
		`import sys, sysconfig; print(sys.version.replace("\n", " "), sysconfig.get_platform(), sys.base_prefix)`)
	if err != nil {
		return "", err
	}
	module, err := fs.Sub(pinned, "emulator")
	if err != nil {
		return "", err
	}
	dir, err := toolcache.New(filepath.Join(cacheDir, "emulator"), log).Get(ctx, toolcache.Recipe{
		Name:   "AWS emulator",
		Module: module,
		Inputs: []string{version, fmt.Sprintf("%q", gapEdits()), fmt.Sprintf("%q", gapAdditions())},
		Build: func(ctx context.Context, module, out string, log io.Writer) error {
			return buildVenv(ctx, python, filepath.Join(module, "requirements.txt"), out, log)
		},
	})
	if err != nil {
		return "", fmt.Errorf("install the AWS emulator: %w", err)
	}
	return dir, nil
}

func buildVenv(ctx context.Context, python, requirements, out string, log io.Writer) error {
	if err := runTo(ctx, log, "", nil, python, "-m", "venv", out); err != nil {
		return fmt.Errorf("%w; on Debian install python3-venv", err)
	}
	venvPython := filepath.Join(out, "bin", "python")
	if err := runTo(ctx, log, "", nil, venvPython, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
		"--only-binary=:all:", "--no-deps", "--require-hashes", "-r", requirements); err != nil {
		return err
	}
	site, err := run(ctx, "", nil, venvPython, "-c", `import sysconfig; print(sysconfig.get_path("purelib"))`)
	if err != nil {
		return err
	}
	changed, err := fillGaps(site)
	if err != nil {
		return err
	}
	return runTo(ctx, log, "", nil, venvPython, append([]string{"-m", "compileall", "-q", "-f"}, changed...)...)
}

// installCDK returns a directory with the pinned CDK command line,
// node_modules/.bin/cdk.
func installCDK(ctx context.Context, cacheDir string, log io.Writer) (string, error) {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("find %s for the CDK command line: %w; install Node.js 20 or later with npm", tool, err)
		}
	}
	module, err := fs.Sub(pinned, "cdk")
	if err != nil {
		return "", err
	}
	dir, err := toolcache.New(filepath.Join(cacheDir, "cdk"), log).Get(ctx, toolcache.Recipe{
		Name:   "CDK command line",
		Module: module,
		Build: func(ctx context.Context, module, out string, log io.Writer) error {
			if err := os.CopyFS(out, os.DirFS(module)); err != nil {
				return err
			}
			if err := runTo(ctx, log, out, nil, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"); err != nil {
				return err
			}
			return saveTemplate(ctx, out)
		},
	})
	if err != nil {
		return "", fmt.Errorf("install the CDK command line: %w", err)
	}
	return dir, nil
}

// run runs a program to its end and returns what it printed. Nil env means the
// caller's environment.
func run(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	var stdout bytes.Buffer
	err := runTo(ctx, &stdout, dir, env, name, args...)
	return strings.TrimSpace(stdout.String()), err
}

// runTo runs a program to its end with its output going to out. The error
// holds what it said on stderr.
func runTo(ctx context.Context, out io.Writer, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = installGrace
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = errors.Join(err, context.Cause(ctx))
		}
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// Fingerprint is a digest of the emulator's version, of the edits made to it
// and of the pinned CDK command line: of what decides how a deployment ends.
func Fingerprint() string {
	sum := sha256.New()
	for _, name := range []string{"emulator/requirements.txt", "cdk/package-lock.json"} {
		data, err := pinned.ReadFile(name)
		if err != nil { // it is embedded
			panic(err)
		}
		if name == "emulator/requirements.txt" {
			data = pin(data, "ministack")
		}
		_, _ = fmt.Fprintf(sum, "%s %d\n%s", name, len(data), data)
	}
	_, _ = fmt.Fprintf(sum, "%q %q", gapEdits(), gapAdditions())
	return hex.EncodeToString(sum.Sum(nil))
}

// pin returns the lines of a requirements file that pin one package, with its
// hashes.
func pin(requirements []byte, name string) []byte {
	from := bytes.Index(requirements, []byte("\n"+name+"=="))
	if from < 0 {
		panic("requirements.txt does not pin " + name)
	}
	entry := requirements[from+1:]
	for end := 0; ; end++ {
		line := bytes.IndexByte(entry[end:], '\n')
		if line < 0 {
			return entry
		}
		end += line
		if !bytes.HasSuffix(entry[:end], []byte("\\")) {
			return entry[:end]
		}
	}
}
