package parity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// SynthTimes measures how long the command line ("cdk synth") and aphex take to
// synthesize an app, one after the other in each round.
func SynthTimes(ctx context.Context, app string, rounds int, log io.Writer) (cli, ours []time.Duration, err error) {
	dir, err := os.MkdirTemp("", "aphex-synth-")
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cells, err := Matrix([]string{app}, nil)
	if err != nil {
		return nil, nil, err
	}
	with, err := install(ctx, cells, log)
	if err != nil {
		return nil, nil, err
	}
	engineBench, stop, err := newEngine(ctx, filepath.Join(dir, "aphex"), with)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	lineBench, stopLine, err := newCommandLine(ctx, filepath.Join(dir, "cdk"), with, log)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, stopLine()) }()
	for round := range rounds {
		for _, b := range []bench{lineBench, engineBench} {
			kept := newAssemblies(filepath.Join(dir, fmt.Sprintf("%s-%d", b.name(), round)))
			began := time.Now()
			switch d := b.deployer.(type) {
			case *commandLine:
				d.kept = kept
				_, err = d.synth(ctx, app, One)
				cli = append(cli, time.Since(began))
			case *engine:
				d.kept = kept
				_, err = d.synth(ctx, app, One)
				ours = append(ours, time.Since(began))
			}
			if err != nil {
				return nil, nil, fmt.Errorf("synthesize %s with %s: %w", app, b.name(), err)
			}
		}
	}
	return cli, ours, nil
}
