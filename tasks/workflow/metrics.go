package workflow

import "github.com/aphex-pipeline/aphex/internal/pipeline"

// The metrics that Argo's controller has of runs and stages. Their names and
// help texts are never changed: the controller keeps the first it has seen and
// refuses others until it is started again.
const (
	metricRuns          = "aphex_runs_total"
	metricRunDuration   = "aphex_run_duration_seconds"
	metricStages        = "aphex_stages_total"
	metricStageDuration = "aphex_stage_duration_seconds"
)

// metrics are evaluated by Argo when a run, or the node of a template, ends.
type (
	metrics struct {
		Prometheus []metric `yaml:"prometheus"`
	}

	metric struct {
		Name      quoted        `yaml:"name"`
		Help      quoted        `yaml:"help"`
		Labels    []metricLabel `yaml:"labels"`
		Counter   *metricValue  `yaml:"counter,omitempty"`
		Histogram *histogram    `yaml:"histogram,omitempty"`
	}

	metricLabel struct {
		Key   quoted `yaml:"key"`
		Value quoted `yaml:"value"`
	}

	metricValue struct {
		Value quoted `yaml:"value"`
	}

	histogram struct {
		Value   quoted `yaml:"value"`
		Buckets []int  `yaml:"buckets,flow"`
	}
)

// runMetrics count runs and the time they take, by how Argo says they ended.
func runMetrics(inst pipeline.Installation) *metrics {
	labels := []metricLabel{
		{Key: "namespace", Value: quoted(inst.Namespace)},
		{Key: "pipeline", Value: quoted(inst.Pipeline)},
		{Key: "status", Value: "{{workflow.status}}"},
	}
	return &metrics{Prometheus: []metric{
		{Name: metricRuns, Help: "Runs of aphex pipelines that ended.", Labels: labels, Counter: &metricValue{Value: "1"}},
		{Name: metricRunDuration, Help: "How long runs of aphex pipelines took, in seconds.", Labels: labels, Histogram: &histogram{
			Value: "{{workflow.duration}}", Buckets: []int{30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400},
		}},
	}}
}

// stageMetrics are the same of a stage in a pod of its own. A plugin step has
// none: its node has ended before Argo looks for what ended, and so it never
// emits what such a template asks for.
//
// Source: workflow/controller, operate and reconcileTaskSet, Argo v3.7.18.
func stageMetrics(node pipeline.Node, inst pipeline.Installation) *metrics {
	labels := []metricLabel{
		{Key: "namespace", Value: quoted(inst.Namespace)},
		{Key: "pipeline", Value: quoted(inst.Pipeline)},
		{Key: "stage", Value: quoted(node.Stage)},
		{Key: "environment", Value: quoted(node.Environment)},
		{Key: "status", Value: "{{status}}"},
	}
	return &metrics{Prometheus: []metric{
		{Name: metricStages, Help: "Stages of aphex pipelines that ended.", Labels: labels, Counter: &metricValue{Value: "1"}},
		{Name: metricStageDuration, Help: "How long stages of aphex pipelines took, in seconds.", Labels: labels, Histogram: &histogram{
			Value: "{{duration}}", Buckets: []int{1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200},
		}},
	}}
}
