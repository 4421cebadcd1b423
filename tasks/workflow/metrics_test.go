package workflow_test

import (
	"path/filepath"
	"regexp"
	"testing"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	argometrics "github.com/argoproj/argo-workflows/v3/workflow/metrics"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/tasks/workflow"
)

// requireMetrics sees that Argo takes a counter of the first name and a
// histogram of the second, with these labels, of which Argo fills in status.
func requireMetrics(t *testing.T, m *wfv1.Metrics, counter, histogram, status, duration string, labels map[string]string) {
	t.Helper()
	labels["status"] = status
	require.NotNil(t, m)
	require.Len(t, m.Prometheus, 2)
	require.Equal(t, []string{counter, histogram}, []string{m.Prometheus[0].Name, m.Prometheus[1].Name})
	require.Equal(t, "1", m.Prometheus[0].Counter.Value)
	require.Equal(t, duration, m.Prometheus[1].Histogram.Value)
	buckets := m.Prometheus[1].Histogram.GetBuckets()
	require.IsIncreasing(t, buckets)
	for _, metric := range m.Prometheus {
		require.True(t, argometrics.IsValidMetricName(metric.Name))
		require.NoError(t, argometrics.ValidateMetricLabels(metric.GetMetricLabels()))
		require.NoError(t, argometrics.ValidateMetricValues(metric))
		require.NotEmpty(t, metric.Help)
		require.NotRegexp(t, regexp.MustCompile(`[{}]`), metric.Name+metric.Help+metric.When, "Argo keeps the first it sees")
		require.Equal(t, labels, metric.GetMetricLabels())
	}
}

// Argo counts runs and their time in both runners, and stages where it emits
// what their templates ask for. Commits, branches and runs are in no label.
func TestGenerate_Metrics(t *testing.T) {
	t.Parallel()
	for _, runner := range []string{pipeline.RunnerPlugin, pipeline.RunnerContainer} {
		cfg, inst := load(t, filepath.Join(goldenDir, "container"))
		inst.Runner = runner
		data, err := workflow.Generate(cfg, inst)
		require.NoError(t, err)
		template := decode(t, data)
		validateArgo(t, template)
		requireMetrics(t, template.Spec.Metrics, "aphex_runs_total", "aphex_run_duration_seconds", "{{workflow.status}}", "{{workflow.duration}}",
			map[string]string{"namespace": inst.Namespace, "pipeline": inst.Pipeline})
		require.Nil(t, template.GetTemplateByName("pipeline").Metrics)
		for _, node := range pipeline.Topology(cfg) {
			step := template.GetTemplateByName(node.Name())
			if runner == pipeline.RunnerPlugin {
				require.Nil(t, step.Metrics, "they would never be emitted")
				continue
			}
			requireMetrics(t, step.Metrics, "aphex_stages_total", "aphex_stage_duration_seconds", "{{status}}", "{{duration}}",
				map[string]string{"namespace": inst.Namespace, "pipeline": inst.Pipeline, "stage": node.Stage, "environment": node.Environment})
		}
	}
}
