package reconcile_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/reconcile"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
)

// The times of the runs: created, ended an hour later, looked at a day later.
var (
	began = time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)
	ended = began.Add(time.Hour)
	now   = began.Add(24 * time.Hour)
)

const installation = `
pipeline: shop
namespace: shop
repoUrl: https://git.example.com/shop.git
bucket: shop
region: eu-west-1
images: {plugin: "p:1", worker: "w:1"}
`

// bucket is a store whose writes fail once the budget of calls is used up, as
// if the process had been killed there.
type bucket struct {
	*memory
	budget *atomic.Int64
	// hangs says that nothing is answered; asked counts what is read then.
	hangs bool
	asked *atomic.Int64
}

var errKilled = errors.New("killed")

func (b bucket) Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error) {
	if b.budget.Add(-1) < 0 {
		return store.Object{}, errKilled
	}
	return b.memory.Put(ctx, key, body, opts)
}

func (b bucket) Get(ctx context.Context, key string) (io.ReadCloser, store.Object, error) {
	if b.hangs {
		b.asked.Add(1)
		<-ctx.Done()
		return nil, store.Object{}, context.Cause(ctx)
	}
	return b.memory.Get(ctx, key)
}

// memory is a bucket without a disk, for tests that make many.
type memory struct {
	mu      sync.Mutex
	objects map[string][]byte
}

func (m *memory) Put(_ context.Context, key string, body io.Reader, _ store.PutOptions) (store.Object, error) {
	content, err := io.ReadAll(body)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.objects[key] = content
	return store.Object{Key: key}, err
}

func (m *memory) Get(_ context.Context, key string) (io.ReadCloser, store.Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	content, ok := m.objects[key]
	if !ok {
		return nil, store.Object{}, store.ErrNotFound
	}
	return io.NopCloser(bytes.NewReader(content)), store.Object{Key: key}, nil
}

func (m *memory) List(_ context.Context, prefix string) ([]store.Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []store.Object
	for _, key := range slices.Sorted(maps.Keys(m.objects)) {
		if strings.HasPrefix(key, prefix) {
			found = append(found, store.Object{Key: key})
		}
	}
	return found, nil
}

func (m *memory) URL(key string) string { return "memory://" + key }

// bench is a namespace with pipeline "shop".
type bench struct {
	api     *kubetest.Server
	client  *kube.Client
	store   *memory
	records *record.Recorder
	budget  atomic.Int64
	output  bytes.Buffer
	dryRun  bool
	// told is what channels heard: "type target key event", and refuse makes
	// them deaf.
	told   []string
	events []notify.Event
	refuse bool
	// measured are the runs whose figures were sent, with "since" if some had
	// been before, and at is when a pass looks, the zero time for now.
	measured []string
	at       time.Time
	// hangs makes the bucket answer nothing, see bucket.
	hangs bool
	asked atomic.Int64
}

// Announce implements reconcile.Announcer.
func (b *bench) Announce(_ context.Context, channels []pipeline.Notification, e notify.Event, skip func(n int) bool, sent func(n int)) []record.Notification {
	var results []record.Notification
	for n, c := range channels {
		result := record.Notification{Type: c.Type, Target: c.Target, Status: record.NotificationSent, Key: e.Key}
		switch {
		case b.refuse:
			result.Status, result.Error = record.NotificationFailed, "the answer is 404"
		case !skip(n):
			b.told = append(b.told, strings.Join([]string{c.Type, c.Target, e.Key, e.Event, e.Reason, e.Run, e.RunURL, e.RecordURL}, " "))
			b.events = append(b.events, e)
			sent(n)
		}
		results = append(results, result)
	}
	return results
}

// channels makes a run one that has them, in the body of its plugin step or in
// an argument of its container.
func (b *bench) channels(run string, container bool, list ...pipeline.Notification) {
	text := notify.Plan{ArgoURL: "https://argo.example.com", Channels: list}.Encode()
	step := map[string]any{"name": "finish", "plugin": map[string]any{"aphex": map[string]any{"stage": "finish", "notifications": text}}}
	if container {
		step = map[string]any{"name": "finish", "container": map[string]any{"args": []any{"--status=x", "--notifications=" + text}}}
	}
	w := b.api.Get("workflows", "shop", run)
	w["status"].(map[string]any)["storedWorkflowTemplateSpec"] = map[string]any{"templates": []any{map[string]any{"name": "build"}, step}}
	b.api.Put("workflows", w)
}

func newBench(tb testing.TB) *bench {
	tb.Helper()
	b := &bench{api: kubetest.New(tb), store: &memory{objects: map[string][]byte{}}}
	b.client, b.records = b.api.Client(tb), record.New(b.store)
	b.budget.Store(1 << 30)
	b.api.Put("configmaps", kubetest.Object{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("aphex-pipeline-shop", nil),
		"data": map[string]any{pipeline.InstallationKey: installation},
	})
	return b
}

func meta(name string, labels map[string]any) map[string]any {
	return map[string]any{"name": name, "namespace": "shop", "uid": "uid-" + name, "labels": labels}
}

// run puts a Workflow; nodes are phases and messages ("Error: lost") by stage.
func (b *bench) run(name, phase, shutdown string, nodes map[string]string) {
	status := map[string]any{"phase": phase, "startedAt": stamp(began)}
	if kube.Fulfilled(phase) {
		status["finishedAt"] = stamp(ended)
	}
	tree := map[string]any{}
	for stage, text := range nodes {
		full := name + "." + stage
		nodePhase, message, _ := strings.Cut(text, ": ")
		tree[kube.NodeID(name, full)] = map[string]any{"name": full, "phase": nodePhase, "message": message}
	}
	status["nodes"] = tree
	object := kubetest.Object{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
		"metadata": meta(name, map[string]any{pipeline.LabelPipeline: "shop"}),
		"spec": map[string]any{"arguments": map[string]any{"parameters": []any{
			map[string]any{"name": "commit-sha", "value": "abc"}, map[string]any{"name": "branch", "value": "main"},
		}}},
		"status": status,
	}
	if shutdown != "" {
		object["spec"].(map[string]any)["shutdown"] = shutdown
	}
	object["metadata"].(map[string]any)["creationTimestamp"] = stamp(began)
	b.api.Put("workflows", object)
}

func stamp(t time.Time) string { return t.Format(time.RFC3339) }

// pod puts a run's agent pod.
func (b *bench) pod(run, phase string) string {
	name := kube.AgentPodName(run)
	b.api.Put("pods", kubetest.Object{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": meta(name, map[string]any{
			"workflows.argoproj.io/component": "agent", "workflows.argoproj.io/workflow": run, pipeline.LabelPipeline: "shop",
		}),
		"status": map[string]any{"phase": phase, "reason": "Evicted", "message": "the node was low on memory"},
	})
	return name
}

// begin opens a run's record with stages that ran ("succeeded") or run
// ("running", "failed Reason").
func (b *bench) begin(tb require.TestingT, run string, stages ...string) {
	ctx := context.Background()
	uid := "uid-" + run
	require.NoError(tb, b.records.Begin(ctx, record.Run{
		WorkflowID: uid, WorkflowName: run, Namespace: "shop", Pipeline: "shop", CommitSHA: "abc", Branch: "main", TriggeredAt: began,
	}))
	for i := 0; i < len(stages); i += 2 {
		stage, environment, _ := strings.Cut(stages[i], "/")
		status, reason, _ := strings.Cut(stages[i+1], " ")
		s := record.Stage{
			StageName: record.StageName(stage, environment), Stage: stage, Environment: environment,
			StartedAt: began.Add(time.Duration(i) * time.Minute), Status: record.Status(status), Reason: reason,
		}
		if s.Status != record.Running {
			s.CompletedAt = new(s.StartedAt.Add(time.Minute))
		}
		require.NoError(tb, b.records.PutStage(ctx, uid, s))
	}
}

// pass reconciles once and returns what was said.
func (b *bench) pass(tb require.TestingT) (string, error) {
	b.output.Reset()
	answer := time.Duration(0)
	if b.hangs {
		answer = 100 * time.Millisecond
	}
	err := reconcile.New(reconcile.Config{
		Answer:  answer,
		Cluster: b.client, Namespace: "shop", Output: &b.output, DryRun: b.dryRun, Settle: reconcile.DefaultSettle,
		Now: func() time.Time {
			if b.at.IsZero() {
				return now
			}
			return b.at
		},
		Figures: func(context.Context, pipeline.Installation) (reconcile.Figures, error) { return b.measure, nil },
		News:    func(context.Context, pipeline.Installation) (reconcile.Announcer, error) { return b, nil },
		Records: func(context.Context, pipeline.Installation) (*record.Recorder, error) {
			return record.New(bucket{b.store, &b.budget, b.hangs, &b.asked}), nil
		},
	}).Pass(context.Background())
	return b.output.String(), err
}

// measure implements reconcile.Figures.
func (b *bench) measure(_ context.Context, run record.Run, since time.Time) error {
	if b.refuse {
		return errors.New("CloudWatch is away")
	}
	text := run.WorkflowName + " " + string(run.Status)
	if !since.IsZero() {
		text += " since " + stamp(since)
	}
	b.measured = append(b.measured, text)
	return nil
}

// kill lets n more writes through, to either side, and then none.
func (b *bench) kill(n int64) {
	b.budget.Store(n)
	b.api.Deny(func(c kubetest.Call) *metav1.Status {
		if c.Verb == "get" || c.Verb == "list" || b.budget.Add(-1) >= 0 {
			return nil
		}
		return &metav1.Status{Code: http.StatusBadGateway, Message: "killed"}
	})
}

func (b *bench) revive() {
	b.budget.Store(1 << 30)
	b.api.Deny(nil)
}

// record returns the record of a run.
func (b *bench) record(tb require.TestingT, run string) record.Run {
	rec, err := b.records.Run(context.Background(), "uid-"+run)
	require.NoError(tb, err)
	return rec
}

// labels returns those of a run that reconcile writes.
func (b *bench) labels(run string) map[string]any {
	all, _ := b.api.Get("workflows", "shop", run)["metadata"].(map[string]any)["labels"].(map[string]any)
	found := map[string]any{}
	for _, name := range []string{pipeline.LabelReason, pipeline.LabelRecorded} {
		if value, ok := all[name]; ok {
			found[name] = value
		}
	}
	return found
}

// writes are the calls that change something.
func (b *bench) writes() []string {
	var found []string
	for _, call := range b.api.Calls() {
		if call.Verb != "get" && call.Verb != "list" {
			found = append(found, call.Verb+" "+call.Resource+" "+call.Name)
		}
	}
	return found
}
