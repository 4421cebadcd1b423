package parity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/aphex-pipeline/aphex/e2e/aws"
)

// commandLine deploys with the real CDK command line.
type commandLine struct {
	dir      string // of the checkout
	program  string
	emulator *aws.Emulator
	kept     *assemblies
}

const (
	account = aws.AccountTarget
	region  = "eu-west-1"
	// cliGrace is how long the command line has to end.
	cliGrace = 5 * time.Second
)

func (c *commandLine) name() string { return "cdk" }

// synth returns the assembly of a variant, made by `cdk synth`.
func (c *commandLine) synth(ctx context.Context, app string, variant Variant) (string, error) {
	return c.kept.get(app, variant, func(dir string) error {
		source := filepath.Join(c.dir, appsDir, app)
		if err := os.WriteFile(filepath.Join(source, "variant"), []byte(variant), 0o600); err != nil {
			return err
		}
		return c.run(ctx, source, c.emulator.DirectEndpoint(), "synth", "--quiet", "--output", dir, "**")
	})
}

// deploy deploys a variant; calls go through endpoint.
func (c *commandLine) deploy(ctx context.Context, app string, variant Variant, endpoint string) error {
	settings, err := appSettings(app)
	if err != nil {
		return err
	}
	dir, err := c.synth(ctx, app, variant)
	if err != nil {
		return err
	}
	args := append([]string{"deploy", "**", "--app", dir, "--require-approval", "never", "--progress", "events"}, settings.Arguments...)
	return c.run(ctx, filepath.Join(c.dir, appsDir, app), endpoint, args...)
}

func (c *commandLine) run(ctx context.Context, dir, endpoint string, args ...string) error {
	cmd := exec.CommandContext(ctx, c.program, append([]string{"--no-notices", "--no-color"}, args...)...)
	// Templates are read from the emulator itself: its URL is the same in
	// every deployment.
	cmd.Env = append(c.emulator.Environment(endpoint, account, region), "AWS_ENDPOINT_URL_S3_FOR_CLOUDFORMATION="+c.emulator.DirectEndpoint(),
		// The lint of the library takes most of a synth and changes nothing.
		"CDK_VALIDATION=false")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = cliGrace
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		return &refusedError{fmt.Sprintf("cdk %s: %v\n%s", args[0], err, out.String())}
	}
	return err
}

// refusedError is a deployment that ended badly by itself.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }
