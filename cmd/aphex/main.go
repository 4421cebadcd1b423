// Command aphex is the executor plugin, the worker and the command line of the
// aphex deployment pipeline, in one static binary.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/version"
)

// Exit codes, as listed in `aphex --help`.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	// exitDifferences is what diff --exit-code found. It is not 1 as diff's
	// own, which is a failure here.
	exitDifferences = 3
	exitTransient   = 75
)

const longHelp = `aphex carries a commit through AWS accounts: an Argo Workflows executor plugin
and its tools.

Exit codes: 0 done · 1 failed · 2 bad usage or configuration · 3 differences that
diff --exit-code found · 75 a failure that is expected to pass (try again).`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the default action is back: a second one kills.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// usageError marks an error as the caller's, for exit code 2.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// exitError ends the program with a code of its own; err has been phrased for
// people.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if invalid, ok := errors.AsType[*pipeline.InvalidError](err); ok {
		if renderErr := invalid.Render(stderr); renderErr != nil {
			return exitFailed
		}
		return exitUsage
	}
	if usage, ok := errors.AsType[usageError](err); ok {
		_, _ = fmt.Fprintf(stderr, "error  %s\nfix    see `aphex --help`\n", usage)
		return exitUsage
	}
	if errors.Is(err, errDifferences) {
		return exitDifferences
	}
	if exit, ok := errors.AsType[exitError](err); ok {
		_, _ = fmt.Fprintf(stderr, "error  %s\n", exit)
		return exit.code
	}
	f := fault.From(err)
	_, _ = fmt.Fprintf(stderr, "error  %s   [%s]\n", err, f.Reason)
	if f.Remedy != "" {
		_, _ = fmt.Fprintf(stderr, "fix    %s\n", f.Remedy)
	}
	if f.Class == fault.Transient {
		return exitTransient
	}
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use: "aphex", Short: "Carry a commit through AWS accounts", Long: longHelp,
		SilenceUsage: true, SilenceErrors: true, Version: version.Get().Version,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newVersion(), newValidate(), newGenerate(), newWorker(), newInstall(), newPlugin(), newTask(), newLogs(), newRuns(), newRun(), newEvents(), newArtifacts(), newDiff(), newReconcile())
	return root
}

// exactArgs is cobra.ExactArgs with exit code 2.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("expected %s, got %d arguments", what, len(args))}
		}
		return nil
	}
}

// atMostArgs is cobra.MaximumNArgs with exit code 2.
func atMostArgs(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > n {
			return usageError{fmt.Errorf("expected %s, got %d arguments", what, len(args))}
		}
		return nil
	}
}
