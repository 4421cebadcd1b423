// Command parity compares deployments by aphex with deployments by the
// real CDK command line, for every app and prior state, and prints the table.
// It exits with 1 if anything differs that is not allowed with a reason.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/aphex-pipeline/aphex/e2e/parity"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "conformance failed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	apps := flags.String("apps", "", "apps to compare, separated by commas; empty means all")
	states := flags.String("states", "", "prior states, separated by commas; empty means all")
	live := flags.Bool("live", false, "run the command line even where its result is recorded")
	record := flags.Bool("record", false, "keep what the command line does (from the root of the repository)")
	known := flags.Bool("recorded", false, "only what is recorded; the command line is not run")
	markdown := flags.String("markdown", "", "file for the table of apps and states")
	parallel := flags.Int("parallel", 0, "apps at a time")
	if err := flags.Parse(args); err != nil {
		return err
	}
	cells, err := parity.Matrix(split(*apps), split(*states))
	if err != nil {
		return err
	}
	if *known {
		if cells, err = onlyRecorded(cells); err != nil {
			return err
		}
	}
	folder := ""
	if *record {
		folder = filepath.Join("e2e", "parity")
	}
	report, err := parity.Run(ctx, parity.Config{Cells: cells, Live: *live, Parallel: *parallel, Record: folder, Log: os.Stderr})
	if err != nil {
		return err
	}
	if err := report.Write(out); err != nil {
		return err
	}
	if *markdown != "" {
		if err := writeTable(report, *markdown); err != nil {
			return err
		}
	}
	if n := report.Different(); n > 0 {
		return errors.New("there are differences that are not allowed with a reason")
	}
	return nil
}

// onlyRecorded leaves out the cells whose other side is not known.
func onlyRecorded(cells []parity.Cell) ([]parity.Cell, error) {
	recorded, stale, err := parity.Recorded()
	if err != nil {
		return nil, err
	}
	if len(stale) > 0 {
		return nil, fmt.Errorf("recordings are not valid any more: %s", strings.Join(stale, ", "))
	}
	return slices.DeleteFunc(cells, func(c parity.Cell) bool { return !slices.Contains(recorded, c) }), nil
}

func writeTable(report *parity.Report, name string) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(report.Markdown(file), file.Close())
}

func split(list string) []string {
	return slices.DeleteFunc(strings.Split(list, ","), func(s string) bool { return s == "" })
}
