package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/aphex-pipeline/aphex/e2e/lab"
)

const (
	// longStages and podStages are how many stages the latency is taken over:
	// a pod for each takes its time.
	longStages, podStages = 50, 8
	// The aims for stage to stage with the plugin.
	aimMedian, aimP95 = 700 * time.Millisecond, 1500 * time.Millisecond
)

// gaps are the times from the end of each stage to the start of the next, as
// the run's journal has them.
func gaps(ctx context.Context, l *lab.Lab, manifest string, stages int) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*runLimit)
	defer cancel()
	run, status, err := succeed(ctx, l, manifest)
	if err != nil {
		return nil, err
	}
	return run.Gaps(ctx, status.UID, stages)
}

// latency compares both runners of aphex.
func latency(ctx context.Context, out io.Writer, l *lab.Lab, manifests map[string]string) error {
	plugin, err := gaps(ctx, l, manifests["long"], longStages)
	if err != nil {
		return fmt.Errorf("%d plugin stages: %w", longStages, err)
	}
	pods, err := gaps(ctx, l, manifests["pods"], podStages)
	if err != nil {
		return fmt.Errorf("%d stages with a pod each: %w", podStages, err)
	}
	for _, row := range []struct {
		name string
		gaps []time.Duration
	}{{"runner: plugin", plugin}, {"runner: container", pods}} {
		_, _ = fmt.Fprintf(out, "stage to stage, %-18s %2d gaps  p50 %6.2f s  p95 %6.2f s  max %6.2f s\n", row.name, len(row.gaps),
			lab.Quantile(row.gaps, 0.5).Seconds(), lab.Quantile(row.gaps, 0.95).Seconds(), slices.Max(row.gaps).Seconds())
	}
	p50, p95 := lab.Quantile(plugin, 0.5), lab.Quantile(plugin, 0.95)
	_, _ = fmt.Fprintf(out, "stage to stage, ratio of the medians %.3f; aims with the plugin: p50 %s (%s), p95 %s (%s)\n",
		p50.Seconds()/lab.Quantile(pods, 0.5).Seconds(), aimMedian, verdict(p50 <= aimMedian), aimP95, verdict(p95 <= aimP95))
	return nil
}

// verdict is what is said of an aim. Only ratios can fail a measurement:
// absolute figures depend on the machine and what else it does.
func verdict(met bool) string {
	if met {
		return "met"
	}
	return "MISSED"
}
