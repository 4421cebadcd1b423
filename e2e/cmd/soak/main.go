// Command soak runs many Workflows of stages that do nothing on a stock
// controller, several at a time, and sees that none is stuck and no stage is
// lost or run twice. It reports nudges, the controller's conflicts, memory and
// latency on the way.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

const (
	// pollEvery is how often a Workflow is looked at: seldom enough to leave
	// the API server to those it is measured for.
	pollEvery = time.Second
)

// settings are the flags.
type settings struct {
	workflows, stages, atOnce int
	limit                     time.Duration
}

func main() {
	var s settings
	flag.IntVar(&s.workflows, "n", 100, "how many Workflows")
	flag.IntVar(&s.stages, "stages", 20, "stages of each")
	flag.IntVar(&s.atOnce, "at-once", 10, "how many at a time")
	flag.DurationVar(&s.limit, "limit", 15*time.Minute, "time after which a Workflow counts as stuck")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Stdout, s)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "soak failed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, s settings) error {
	if s.workflows < 1 || s.stages < 1 || s.atOnce < 1 {
		return fmt.Errorf("-n %d, -stages %d and -at-once %d must be at least 1", s.workflows, s.stages, s.atOnce)
	}
	return lab.UseTemporary(ctx, "soak", out, func(l *lab.Lab, _, _ string) error { return measure(ctx, out, l, s) })
}

// measure runs the Workflows and reports what was seen meanwhile.
func measure(ctx context.Context, out io.Writer, l *lab.Lab, s settings) error {
	manifest, err := prepare(ctx, l, s.stages)
	if err != nil {
		return err
	}
	watchCtx, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	seen, err := observe(watchCtx, l)
	if err != nil {
		return err
	}
	began := time.Now()
	results, err := soak(ctx, out, l, s, manifest)
	spent := time.Since(began)
	stopWatching()
	return errors.Join(err, seen.wait(), report(out, s, results, seen, spent))
}

// prepare installs a pipeline and returns the Workflow that is run. Its
// workers do nothing, so that many fit on a small node.
func prepare(ctx context.Context, l *lab.Lab, stages int) (string, error) {
	p, err := l.NoopPipeline(ctx, func(i *pipeline.Installation) {
		i.WorkerResources = pipeline.Resources{Requests: map[string]string{"cpu": "10m", "memory": "16Mi"}}
	})
	if err != nil {
		return "", err
	}
	spec, err := l.TemplateSpec(ctx, p, "serviceAccountName", "podSpecPatch", "securityContext", "podMetadata")
	if err != nil {
		return "", err
	}
	return lab.Steps("soak-", spec, stages, lab.NoopStep), nil
}

// soak runs the Workflows and returns what became of each.
func soak(ctx context.Context, out io.Writer, l *lab.Lab, s settings, manifest string) ([]result, error) {
	results := make([]result, s.workflows)
	var group errgroup.Group
	group.SetLimit(s.atOnce)
	for i := range results {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			results[i] = one(ctx, l, s, manifest)
			if r := &results[i]; r.problem != nil {
				_, _ = fmt.Fprintf(out, "workflow %d of %d: %s\n", i+1, s.workflows, r.problem)
			} else if (i+1)%s.atOnce == 0 {
				_, _ = fmt.Fprintf(out, "workflow %d of %d: %.1f s\n", i+1, s.workflows, r.took.Seconds())
			}
			return nil
		})
	}
	return results, group.Wait()
}

// errStuck is a Workflow that has not ended in time.
var errStuck = errors.New("stuck")

// result is what became of one Workflow.
type result struct {
	took    time.Duration
	gaps    []time.Duration
	problem error
}

// one runs a Workflow to its end, compares its nodes with the journal, and
// removes it.
func one(ctx context.Context, l *lab.Lab, s settings, manifest string) result {
	limited, cancel := context.WithTimeoutCause(ctx, s.limit, errStuck)
	defer cancel()
	began := time.Now()
	run, err := l.SubmitManifest(limited, []byte(manifest))
	if err != nil {
		return result{problem: err}
	}
	status, err := run.WaitEvery(limited, pollEvery)
	r := result{took: time.Since(began), problem: err}
	if err != nil {
		return r // left for whoever looks for the reason
	}
	succeeded := 0
	for _, node := range status.Nodes {
		if node.Phase == "Succeeded" {
			succeeded++
		}
	}
	if status.Phase != "Succeeded" || succeeded != s.stages {
		r.problem = fmt.Errorf("%s ended %s with %d of %d stages done: %s", run.Name, status.Phase, succeeded, s.stages, status.Message)
		return r
	}
	if r.gaps, r.problem = run.Gaps(ctx, status.UID, s.stages); r.problem == nil {
		_, r.problem = l.Kubectl(ctx, nil, "delete", "workflow", run.Name, "-n", run.Namespace, "--wait=false")
	}
	return r
}
