// Command chaos kills the plugin at every boundary of a run, at random times
// and twice in a row, loses AWS's answers, and checks after each run that
// nothing was lost, doubled or left hanging.
package main

import (
	"bufio"
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

	"github.com/aphex-pipeline/aphex/e2e/chaos"
	"github.com/aphex-pipeline/aphex/e2e/lab"
)

// options are the flags.
type options struct {
	sample     bool
	parts      string
	seed       uint64
	random     int
	doubles    int
	parallel   int
	boundaries string
	results    string
}

func main() {
	o := options{}
	flag.BoolVar(&o.sample, "sample", false, "make only the fixed sample that CI makes")
	flag.StringVar(&o.parts, "parts", "enumerated,lost,random,double", "the parts to make, each spread over the whole time")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the random kills")
	flag.IntVar(&o.random, "n", 50, "number of random kills, spread evenly over ten phases")
	flag.IntVar(&o.doubles, "doubles", 20, "number of double kills")
	flag.IntVar(&o.parallel, "parallel", 2, "runs at a time")
	flag.StringVar(&o.boundaries, "boundaries", "", "file with the boundaries to kill the sidecar at, one per line, instead of the parts; - for standard input")
	flag.StringVar(&o.results, "results", "", "file that keeps the results; what is in it is not made again")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := lab.UseTemporary(ctx, "chaos", os.Stdout, func(l *lab.Lab, root, dir string) error { return run(ctx, os.Stdout, l, root, dir, o) })
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "chaos failed:", err)
		os.Exit(1)
	}
}

// run records one run, then makes the cases.
func run(ctx context.Context, out io.Writer, l *lab.Lab, root, dir string, o options) error {
	h, err := chaos.New(ctx, l, root, filepath.Join(dir, "sample"), "chaos", out)
	if err != nil {
		return err
	}
	seen, recordErr := h.Record(ctx)
	_, _ = fmt.Fprintf(out, "recorded %d effects:\n", len(seen))
	for _, s := range seen {
		_, _ = fmt.Fprintf(out, "  %6.2f s  %s\n", s.At.Sub(seen[0].At).Seconds(), s.Point)
	}
	if recordErr != nil {
		return recordErr
	}
	cases, err := o.cases(seen)
	if err != nil {
		return err
	}
	campaign := &chaos.Campaign{File: o.results, Parallel: o.parallel, Log: out}
	results, err := campaign.Run(ctx, h, cases)
	if !chaos.Report(out, results) {
		err = errors.Join(err, errors.New("not every run ended as it has to"))
	}
	return err
}

// cases are what the options ask for.
func (o options) cases(seen []chaos.Seen) ([]chaos.Case, error) {
	switch {
	case o.sample:
		return chaos.Sample(seen)
	case o.boundaries != "":
		return o.listed(seen)
	}
	phases, err := chaos.Phases(seen)
	if err != nil {
		return nil, err
	}
	var cases []chaos.Case
	for part := range strings.SplitSeq(o.parts, ",") {
		switch part {
		case "enumerated":
			cases = append(cases, chaos.Enumerate(seen)...)
		case "lost":
			cases = append(cases, chaos.LostAnswers(seen)...)
		case "random":
			cases = append(cases, chaos.Random(phases, o.random, o.seed)...)
		case "double":
			cases = append(cases, chaos.Doubles(phases, o.doubles, o.seed)...)
		default:
			return nil, fmt.Errorf("part %q: allowed are enumerated, lost, random and double", part)
		}
	}
	return chaos.Spread(cases), nil
}

// listed are the enumerated cases at the boundaries of a file.
func (o options) listed(seen []chaos.Seen) ([]chaos.Case, error) {
	file := os.Stdin
	if o.boundaries != "-" {
		var err error
		if file, err = os.Open(o.boundaries); err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }()
	}
	all := chaos.Enumerate(seen)
	var cases []chaos.Case
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		b, err := chaos.ParseBoundary(lines.Text())
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(all, func(c chaos.Case) bool { return c.Strikes[0].At == b })
		if i < 0 {
			return nil, fmt.Errorf("boundary %s is not in the recorded run", b)
		}
		cases = append(cases, all[i])
	}
	return cases, lines.Err()
}
