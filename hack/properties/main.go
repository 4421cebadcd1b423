// Command properties keeps the table of the founding document's properties and
// the tests that prove them.
//
// A test says what it proves in its comment:
//
//	// Feature: aphex-pipeline, Property 9: Stack deployment ordering
//
// Without flags the tests of every property are run, those on a real cluster
// included, and a line for each property is printed. With -write the table in
// docs/spec/properties.md is written instead.
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
	"syscall"
)

// page is the table, from the root of the module.
const page = "docs/spec/properties.md"

func main() {
	write := flag.Bool("write", false, "write "+page+" and run nothing")
	unit := flag.Bool("unit", false, "leave out the tests that need a cluster or the emulated AWS")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, *write, *unit)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "properties:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, write, unit bool) error {
	properties, err := scan(".")
	if err != nil {
		return err
	}
	if write {
		return os.WriteFile(filepath.FromSlash(page), []byte(table(properties)), 0o644) //nolint:gosec // a document of the repository
	}
	results, err := test(ctx, os.Stderr, properties, unit)
	if err != nil {
		return err
	}
	if !report(out, properties, results, unit) {
		return errors.New("a property does not hold, or nothing proves it")
	}
	return nil
}
