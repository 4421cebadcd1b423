// Command bench measures the speed claims on a real cluster with a stock Argo
// controller, as ratios within one run: absolute times differ between
// machines, ratios hardly do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/e2e/solo"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

const (
	stages = 6
	rounds = 3
	// claim: stages that do nothing take at most a quarter of the same number
	// of container steps.
	claim = 0.25
	// runLimit is the time one Workflow may take.
	runLimit = 5 * time.Minute

	partLatency = "latency"
	partSidecar = "sidecar"
	partCompare = "compare"
	partDeploy  = "deploy"
	partMemory  = "memory"
	partStages  = "stages"
)

func main() {
	if code, served := solo.Served(os.Args); served { // a deployment that is measured
		os.Exit(code)
	}
	only := flag.String("only", "", "measure one part alone: "+strings.Join(parts(), ", "))
	length := flag.Duration("length", 10*time.Second, "how long the stacks that wait take (deploy)")
	rounds := flag.Int("rounds", rounds, "how often each deployment is measured (deploy)")
	which := flag.String("case", "", "measure only the deployments whose name contains this, and no synth (deploy)")
	flag.Parse()
	if *only != "" && !slices.Contains(parts(), *only) {
		_, _ = fmt.Fprintf(os.Stderr, "-only is %q: allowed are %s\n", *only, strings.Join(parts(), ", "))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	var errs []error
	if *only == "" || *only == partDeploy || *only == partMemory {
		errs = append(errs, withEmulator(ctx, os.Stdout, *length, *rounds, func(b *bench) error {
			var errs []error
			if *only != partMemory {
				errs = append(errs, b.deployments(ctx, *which))
			}
			if *only != partDeploy {
				errs = append(errs, b.memory(ctx))
			}
			return errors.Join(errs...)
		}))
	}
	if *only != partDeploy && *only != partMemory {
		errs = append(errs, lab.UseTemporary(ctx, "bench", os.Stdout, func(l *lab.Lab, _, _ string) error { return measure(ctx, os.Stdout, l, *only) }))
	}
	stop()
	if err := errors.Join(errs...); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "bench failed:", err)
		os.Exit(1)
	}
}

// parts are what can be measured alone. Only the first four need a cluster.
func parts() []string {
	return []string{partLatency, partSidecar, partCompare, partStages, partDeploy, partMemory}
}

func measure(ctx context.Context, out io.Writer, l *lab.Lab, only string) error {
	parts := []struct {
		name    string
		measure func(manifests map[string]string) error
	}{
		{partLatency, func(m map[string]string) error { return latency(ctx, out, l, m) }},
		{partSidecar, func(m map[string]string) error { return sidecar(ctx, out, l, m["idle"]) }},
		{partCompare, func(m map[string]string) error { return compare(ctx, out, l, m) }},
		{partStages, func(map[string]string) error { return stageTimes(ctx, out, l) }},
	}
	manifests, err := manifests(ctx, l)
	if err != nil {
		return err
	}
	var errs []error
	for _, part := range parts {
		if only == "" || only == part.name {
			errs = append(errs, part.measure(manifests))
		}
	}
	return errors.Join(errs...)
}

// compare measures whole Workflows of plugin stages against the same number of
// the smallest containers there are.
func compare(ctx context.Context, out io.Writer, l *lab.Lab, manifests map[string]string) error {
	seconds := map[string][]float64{}
	for range rounds {
		for _, kind := range []string{"plugin", "container"} {
			spent, err := timeWorkflow(ctx, l, manifests[kind])
			if err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
			seconds[kind] = append(seconds[kind], spent)
			_, _ = fmt.Fprintf(out, "%-10s %5.1f s\n", kind, spent)
		}
	}
	ratio := median(seconds["plugin"]) / median(seconds["container"])
	_, _ = fmt.Fprintf(out, "%d no-op stages, stock controller, median of %d: plugin %.1f s, container %.1f s, ratio %.3f (claim: at most %.2f)\n",
		stages, rounds, median(seconds["plugin"]), median(seconds["container"]), ratio, claim)
	if ratio > claim {
		return fmt.Errorf("ratio %.3f is above the claim of %.2f", ratio, claim)
	}
	return nil
}

func median(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}

// timeWorkflow runs a Workflow and returns the seconds from its creation to
// its end, as this process sees them.
func timeWorkflow(ctx context.Context, l *lab.Lab, manifest string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	began := time.Now()
	_, _, err := succeed(ctx, l, manifest)
	return time.Since(began).Seconds(), err
}

// succeed runs a Workflow to its end, which must be a success.
func succeed(ctx context.Context, l *lab.Lab, manifest string) (*lab.Run, lab.Status, error) {
	run, err := l.SubmitManifest(ctx, []byte(manifest))
	if err != nil {
		return nil, lab.Status{}, err
	}
	status, err := run.Wait(ctx)
	if err == nil && status.Phase != "Succeeded" {
		err = fmt.Errorf("the workflow ended %s: %s", status.Phase, status.Message)
	}
	return run, status, err
}

// manifests are the two Workflows. The plugin's has the pod patch, the
// security context and the identity of a generated template.
func manifests(ctx context.Context, l *lab.Lab) (map[string]string, error) {
	p, err := l.NoopPipeline(ctx)
	if err != nil {
		return nil, err
	}
	spec, err := l.TemplateSpec(ctx, p, podFields()...)
	if err != nil {
		return nil, err
	}
	p.Installation.Runner = pipeline.RunnerContainer
	if err := p.Apply(ctx, []byte(lab.NoopConfig)); err != nil {
		return nil, err
	}
	pods, err := l.TemplateSpec(ctx, p, podFields()...)
	if err != nil {
		return nil, err
	}
	podStep := func(i int) string { return lab.NoopPod(i, p.Installation) }
	if _, err := l.Kubectl(ctx, []byte(containerIdentity), "apply", "-n", p.Installation.Namespace, "-f", "-"); err != nil {
		return nil, err
	}
	return map[string]string{
		"plugin":    lab.Steps("bench-", spec, stages, lab.NoopStep),
		"container": lab.Steps("bench-", "  serviceAccountName: bench-container\n", stages, containerStep),
		"long":      lab.Steps("bench-", spec, longStages, lab.NoopStep),
		"pods":      lab.Steps("bench-", pods, podStages, podStep),
		"idle":      lab.Steps("bench-", spec, 2, idleStep),
	}, nil
}

// podFields are what a generated template says of its pods.
func podFields() []string {
	return []string{"serviceAccountName", "automountServiceAccountToken", "executor", "podSpecPatch", "securityContext", "podMetadata"}
}
