package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/lab"
)

const (
	benchStages = 6
	benchRounds = 3
	// benchRatio is the claim: six stages that do nothing take at most a
	// quarter of the same six as containers, on a stock controller.
	benchRatio = 0.25
)

// TestBench_NoopStages times Workflows of six stages that do nothing, as
// plugin stages and as containers, alternating in one run. It runs on demand:
// `make bench`.
func TestBench_NoopStages(t *testing.T) {
	if os.Getenv("APHEX_BENCH") == "" {
		t.Skip("a measurement, not a test: run `make bench`")
	}
	l := needLab(t)
	p, _ := newApp(t, l, "bench", config(npmCI(), dev("bench")), settings{"stack": "bench"})
	manifests := map[string]string{
		"plugin":    pluginWorkflow(t, l, p),
		"container": containerWorkflow(),
	}
	seconds := map[string][]float64{}
	for range benchRounds {
		for _, kind := range []string{"plugin", "container"} {
			seconds[kind] = append(seconds[kind], timeWorkflow(t, l, manifests[kind]))
		}
	}
	median := func(kind string) float64 {
		sorted := slices.Sorted(slices.Values(seconds[kind]))
		return sorted[len(sorted)/2]
	}
	ratio := median("plugin") / median("container")
	fmt.Printf("bench: %d no-op stages, stock controller, %d rounds: plugin %.1f s %v, container %.1f s %v, ratio %.3f (claim ≤ %.2f)\n",
		benchStages, benchRounds, median("plugin"), seconds["plugin"], median("container"), seconds["container"], ratio, benchRatio)
	require.LessOrEqual(t, ratio, benchRatio)
}

// timeWorkflow runs a Workflow and returns the seconds from its creation to
// its end, as this process sees them.
func timeWorkflow(t *testing.T, l *lab.Lab, manifest string) float64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	began := time.Now()
	run, err := l.SubmitManifest(ctx, []byte(manifest))
	require.NoError(t, err)
	status, err := run.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	return time.Since(began).Seconds()
}

// steps writes a Workflow of benchStages templates, one after the other.
func steps(spec string, template func(i int) string) string {
	var b strings.Builder
	b.WriteString("apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {generateName: bench-}\nspec:\n  entrypoint: main\n" + spec + "  templates:\n  - name: main\n    steps:\n")
	for i := range benchStages {
		fmt.Fprintf(&b, "    - - {name: s%d, template: s%d}\n", i, i)
	}
	for i := range benchStages {
		b.WriteString(template(i))
	}
	return b.String()
}

func containerWorkflow() string {
	return steps("  serviceAccountName: aphex-workflow\n", func(i int) string {
		return fmt.Sprintf("  - name: s%d\n    container: {image: quay.io/argoproj/argoexec:v3.7.18, imagePullPolicy: IfNotPresent, command: [/bin/argoexec, version]}\n", i)
	})
}

// pluginWorkflow has the pod patch, the security context and the identity of
// the pipeline's generated template.
func pluginWorkflow(t *testing.T, l *lab.Lab, p *lab.Pipeline) string {
	t.Helper()
	spec, err := l.TemplateSpec(t.Context(), p, "serviceAccountName", "podSpecPatch", "securityContext", "podMetadata")
	require.NoError(t, err)
	return steps(spec, func(i int) string {
		return fmt.Sprintf("  - name: s%d\n    plugin: {aphex: {stage: noop, pipeline: bench, node: \"{{node.name}}\", topology: none, config: aphex-config.yaml, repo: \"http://localhost/none\", commit: \"\", branch: main, allowOlder: \"false\"}}\n", i)
	})
}
