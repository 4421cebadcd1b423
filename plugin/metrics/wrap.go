package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/plugin/execution"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// Results of what is written into the cluster.
const (
	written   = "written"
	conflict  = "conflict"
	forbidden = "forbidden"
	failed    = "failed"
)

func result(err error) string {
	switch {
	case err == nil:
		return written
	case errors.Is(err, kube.ErrConflict), errors.Is(err, kube.ErrExists), errors.Is(err, kube.ErrNotFound):
		return conflict
	case errors.Is(err, kube.ErrForbidden):
		return forbidden
	}
	return failed
}

// Stages counts the stages that run now.
func (m *Metrics) Stages(stages task.Registry) task.Registry {
	counted := make(task.Registry, len(stages))
	for name, stage := range stages {
		gauge := m.running.WithLabelValues(name)
		counted[name] = task.RunnerFunc(func(ctx context.Context, req task.Request, env task.Env) (task.Result, error) {
			gauge.Inc()
			defer gauge.Dec()
			return stage.Run(ctx, req, env)
		})
	}
	return counted
}

// Recorder counts the ends of stages on their way to next, which may be nil.
func (m *Metrics) Recorder(next execution.Recorder) execution.Recorder { //nolint:ireturn // it stands in for one
	return recorder{m, next}
}

type recorder struct {
	metrics *Metrics
	next    execution.Recorder
}

// StageStarted implements execution.Recorder.
func (r recorder) StageStarted(ctx context.Context, req task.Request, at time.Time) error {
	if r.next == nil {
		return nil
	}
	return r.next.StageStarted(ctx, req, at)
}

// StageEnded implements execution.Recorder.
func (r recorder) StageEnded(ctx context.Context, req task.Request, startedAt, endedAt time.Time, phase, message, reason, logURL string) error {
	stage := stageName(req.Stage)
	r.metrics.stages.WithLabelValues(stage, phase, r.metrics.reasons.value(reason)).Inc()
	r.metrics.durations.WithLabelValues(stage, phase).Observe(max(endedAt.Sub(startedAt), 0).Seconds())
	if r.next == nil {
		return nil
	}
	return r.next.StageEnded(ctx, req, startedAt, endedAt, phase, message, reason, logURL)
}

// stageName is the stage's name, or "other" for one that is in a body only.
func stageName(name string) string {
	switch name {
	case task.StageValidate, task.StageBuild, task.StageDeployPipeline, task.StageDeployEnv, task.StageTest, task.StageFinish, task.StageNoop:
		return name
	}
	return other
}

// Logs counts the bytes put into next.
func (m *Metrics) Logs(next execution.Logs) execution.Logs { //nolint:ireturn // it stands in for one
	return logs{next, m}
}

type logs struct {
	execution.Logs

	metrics *Metrics
}

// Put implements execution.Logs.
func (l logs) Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error) {
	object, err := l.Logs.Put(ctx, key, body, opts)
	if err == nil {
		l.metrics.logBytes.Add(float64(max(object.Size, 0)))
	}
	return object, err
}

// Journal counts the changes that next gives up.
func (m *Metrics) Journal(next journal.Journal) journal.Journal { //nolint:ireturn // it stands in for one
	return books{next, m}
}

type books struct {
	next    journal.Journal
	metrics *Metrics
}

// Open implements journal.Journal.
func (b books) Open(ctx context.Context, run task.Run) (journal.Book, error) { //nolint:ireturn // as Journal asks
	opened, err := b.next.Open(ctx, run)
	if err != nil {
		b.metrics.gaveUp(ctx, err)
		return nil, err
	}
	return book{opened, b.metrics}, nil
}

type book struct {
	journal.Book

	metrics *Metrics
}

// Begin implements journal.Book.
func (b book) Begin(ctx context.Context, e journal.Entry) (journal.Entry, error) {
	entry, err := b.Book.Begin(ctx, e)
	b.metrics.gaveUp(ctx, err)
	return entry, err
}

// End implements journal.Book.
func (b book) End(ctx context.Context, key string, final []byte, phase string, at time.Time) (journal.Entry, error) {
	entry, err := b.Book.End(ctx, key, final, phase, at)
	b.metrics.gaveUp(ctx, err)
	return entry, err
}

// PutEffect implements journal.Book.
func (b book) PutEffect(ctx context.Context, key, name string, value []byte) error {
	err := b.Book.PutEffect(ctx, key, name, value)
	b.metrics.gaveUp(ctx, err)
	return err
}

// gaveUp counts err, unless nobody waited any more or another pod has the run.
func (m *Metrics) gaveUp(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil && !errors.Is(err, journal.ErrFenced) && !errors.Is(err, journal.ErrEnded) {
		m.journalError.Inc()
	}
}

// Cluster is a client whose writes for journal, nudges and watchdog are
// counted. It is to be given to those alone.
type Cluster struct {
	*kube.Client

	metrics *Metrics
}

// Cluster counts what client writes.
func (m *Metrics) Cluster(client *kube.Client) Cluster { return Cluster{client, m} }

// CreateConfigMap is kube.Client's.
func (c Cluster) CreateConfigMap(ctx context.Context, cm *kube.ConfigMap) (*kube.ConfigMap, error) {
	stored, err := c.Client.CreateConfigMap(ctx, cm)
	c.metrics.journal.WithLabelValues(result(err)).Inc()
	return stored, err
}

// UpdateConfigMap is kube.Client's.
func (c Cluster) UpdateConfigMap(ctx context.Context, cm *kube.ConfigMap) (*kube.ConfigMap, error) {
	stored, err := c.Client.UpdateConfigMap(ctx, cm)
	c.metrics.journal.WithLabelValues(result(err)).Inc()
	return stored, err
}

// AnnotateWorkflow is kube.Client's.
func (c Cluster) AnnotateWorkflow(ctx context.Context, namespace, name, uid string, annotations map[string]string) (*kube.Workflow, error) {
	workflow, err := c.Client.AnnotateWorkflow(ctx, namespace, name, uid, annotations)
	c.metrics.nudges.WithLabelValues(result(err)).Inc()
	return workflow, err
}

// PatchResults is kube.Client's.
func (c Cluster) PatchResults(ctx context.Context, namespace, name, version string, entries map[string]json.RawMessage) error {
	err := c.Client.PatchResults(ctx, namespace, name, version, entries)
	c.metrics.watchdog.WithLabelValues(result(err)).Inc()
	return err
}
