package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/aphex-pipeline/aphex/e2e/lab"
)

const mib = 1 << 20

// rows is how many lines memory over time takes.
const rows = 10

// report prints the figures and fails if something is stuck or lost.
func report(out io.Writer, s settings, results []result, o *observed, spent time.Duration) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	stuck, lost, done := 0, 0, 0
	var gaps []time.Duration
	for _, r := range results {
		gaps = append(gaps, r.gaps...)
		switch {
		case errors.Is(r.problem, errStuck):
			stuck++
		case r.problem != nil || r.took == 0:
			lost++
		default:
			done++
		}
	}
	total, most := 0, 0
	for _, values := range o.nudges {
		total, most = total+len(values), max(most, len(values))
	}
	stages := s.workflows * s.stages
	_, _ = fmt.Fprintf(out, "%d workflows of %d stages, %d at a time: %d stages in %.0f s, %.1f a second\n",
		s.workflows, s.stages, s.atOnce, stages, spent.Seconds(), float64(stages)/spent.Seconds())
	_, _ = fmt.Fprintf(out, "stage to stage: p50 %.2f s, p95 %.2f s, p99 %.2f s\n",
		lab.Quantile(gaps, 0.5).Seconds(), lab.Quantile(gaps, 0.95).Seconds(), lab.Quantile(gaps, 0.99).Seconds())
	_, _ = fmt.Fprintf(out, "nudges: %d, %.2f a stage; at most %.2f a stage in one workflow\n",
		total, float64(total)/float64(stages), float64(most)/float64(s.stages))
	_, _ = fmt.Fprintf(out, "controller: %d conflicts in %d lines of its log\n", o.conflicts, o.lines)
	printMemory(out, o.memory)
	_, _ = fmt.Fprintf(out, "%d workflows, %d done, %d stuck, %d lost\n", s.workflows, done, stuck, lost)
	if stuck+lost > 0 {
		return fmt.Errorf("%d of %d workflows are stuck, %d lost stages", stuck, s.workflows, lost)
	}
	return nil
}

// printMemory prints some of the samples, evenly spread, the last one included.
func printMemory(out io.Writer, samples []sample) {
	if len(samples) == 0 {
		_, _ = fmt.Fprintln(out, "memory: the kubelet gave no figures")
		return
	}
	_, _ = fmt.Fprintf(out, "%8s %16s %10s %18s %18s\n", "seconds", "controller MiB", "sidecars", "median MiB", "largest MiB")
	step := max(1, (len(samples)+rows-1)/rows)
	for i := range samples {
		s := &samples[i]
		if i%step != 0 && i != len(samples)-1 {
			continue
		}
		var median, largest int64
		if n := len(s.sidecars); n > 0 {
			median, largest = s.sidecars[n/2], slices.Max(s.sidecars)
		}
		_, _ = fmt.Fprintf(out, "%8.0f %16.1f %10d %18.1f %18.1f\n", s.at.Sub(samples[0].at).Seconds(),
			float64(s.controller)/mib, len(s.sidecars), float64(median)/mib, float64(largest)/mib)
	}
}
