// Command deploychaos kills deployments of three stacks with SIGKILL while
// they make, execute and watch change sets, runs each execution again and looks
// whether all is as if nothing had happened. It exits with 1 if not.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/solo"
)

func main() {
	if code, served := solo.Served(os.Args); served { // a process to be killed
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "deploychaos failed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("deploychaos", flag.ContinueOnError)
	count := flags.Int("n", 10, "kills in each phase")
	seed := flags.Uint64("seed", uint64(time.Now().UnixNano()), "of the choice of stack, call and moment")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "aphex-deploychaos-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	emulator, err := aws.Start(ctx, aws.Config{Log: os.Stderr})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, emulator.Stop()) }()
	for account, trusted := range map[string][]string{aws.AccountTools: nil, aws.AccountTarget: {aws.AccountTools}} {
		if err := emulator.QuickBootstrap(ctx, account, solo.Region, trusted); err != nil {
			return err
		}
	}
	_, _ = fmt.Fprintf(out, "seed %d\n", *seed)
	random := rand.New(rand.NewPCG(*seed, 0))
	var errs []error
	for _, phase := range solo.Phases() {
		failed := 0
		for i := range *count {
			name := fmt.Sprintf("%s-%d", phase, i)
			hit, err := solo.Kill(ctx, emulator, filepath.Join(dir, name), name, phase, random)
			verdict := "as without a kill"
			if err != nil {
				failed++
				verdict = err.Error()
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
			_, _ = fmt.Fprintf(out, "%-14s killed %-55s %s\n", name, hit, verdict)
		}
		_, _ = fmt.Fprintf(out, "%s: %d kills, %d not as without\n", phase, *count, failed)
	}
	return errors.Join(errs...)
}
