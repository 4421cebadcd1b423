package sidecar_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	executorplugins "github.com/argoproj/argo-workflows/v3/pkg/plugins/executor"
	rpc "github.com/argoproj/argo-workflows/v3/workflow/util/plugins"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/plugin/execution"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/plugin/server"
	"github.com/aphex-pipeline/aphex/plugin/sidecar"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

const (
	wfName = "shop-x7k2p"
	wfUID  = "0b1c2d3e-aaaa-bbbb-cccc-111122223333"
	token  = "s3cret-of-the-agent"
)

// stubRuns is a run whose state the test sets.
type stubRuns struct {
	mu      sync.Mutex
	state   execution.RunState
	changed chan struct{}
}

func newRuns() *stubRuns {
	return &stubRuns{state: execution.RunState{Epoch: "2026-11-24T06:00:00Z"}, changed: make(chan struct{})}
}

func (r *stubRuns) set(s execution.RunState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = s
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *stubRuns) State(context.Context, task.Run) (execution.RunState, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state, nil
}

func (*stubRuns) Wanted(context.Context, task.Run, string) (bool, error) { return true, nil }

func (r *stubRuns) Watch(ctx context.Context, _ task.Run, fn func(execution.RunState)) error {
	for {
		r.mu.Lock()
		state, changed := r.state, r.changed
		r.mu.Unlock()
		fn(state)
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// plugin is one plugin process. Several may share a pod's directory, one
// after the other.
type plugin struct {
	t    *testing.T
	addr string
	stop func() // as SIGTERM, and waits for the end
	done chan error
}

type options struct {
	dir      string
	registry task.Registry
	runs     *stubRuns
	change   func(*sidecar.Config)
}

func start(t *testing.T, o options) *plugin {
	t.Helper()
	if o.dir == "" {
		o.dir = t.TempDir()
	}
	tokenFile := filepath.Join(o.dir, "token")
	require.NoError(t, os.WriteFile(tokenFile, []byte(token), 0o600))
	listeners, err := server.Listen(t.Context(), 0)
	require.NoError(t, err)
	cfg := sidecar.Config{
		Registry: o.registry, Journal: journal.NewFiles(filepath.Join(o.dir, "journal"), "pod-1"),
		LogDir: filepath.Join(o.dir, "logs"), Logs: store.NewDir(filepath.Join(o.dir, "bucket")),
		TokenFile: tokenFile, Listeners: listeners, PodUID: "pod-1",
		Stdout: t.Output(), Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		FirstPoll: 50 * time.Millisecond, LongPoll: 300 * time.Millisecond, Requeue: 10 * time.Millisecond,
		ReportEvery: time.Hour, Grace: 2 * time.Second,
	}
	if o.runs != nil {
		cfg.Runs = o.runs
	}
	if o.change != nil {
		o.change(&cfg)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p := &plugin{t: t, addr: listeners[0].Addr().String(), done: make(chan error, 1)}
	go func() { p.done <- sidecar.Run(ctx, cfg) }()
	var once sync.Once
	p.stop = func() {
		once.Do(func() {
			cancel()
			require.NoError(t, <-p.done)
		})
	}
	t.Cleanup(func() {
		if o.runs != nil { // spares the wait for a run that goes on
			o.runs.set(execution.RunState{Finished: true})
		}
		p.stop()
	})
	ready, cancelReady := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancelReady()
	require.NoError(t, sidecar.WaitReady(ready, p.addr))
	return p
}

// client is Argo's own, with its own patience cut to a scale of the test's.
func (p *plugin) client(timeout time.Duration, tok string) rpc.Client {
	return rpc.New("http://"+p.addr, tok, timeout, wait.Backoff{Duration: 20 * time.Millisecond, Jitter: 0.2, Factor: 2, Steps: 5})
}

func args(body map[string]any) executorplugins.ExecuteTemplateArgs {
	return pluginArgs(map[string]any{"aphex": body})
}

func pluginArgs(value map[string]any) executorplugins.ExecuteTemplateArgs {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	tmpl := &wfv1.Template{Name: "stage", Plugin: &wfv1.Plugin{Object: wfv1.Object{Value: raw}}}
	tmpl.Outputs.Parameters = []wfv1.Parameter{{Name: "declared-by-template", GlobalName: "global"}}
	return executorplugins.ExecuteTemplateArgs{
		Workflow: &executorplugins.Workflow{ObjectMeta: executorplugins.ObjectMeta{Name: wfName, Namespace: "shop", UID: wfUID}},
		Template: tmpl,
	}
}

func body(stage string, more ...string) map[string]any {
	b := map[string]any{
		"stage": stage, "pipeline": "shop", "node": wfName + "." + stage, "topology": "sha256:00",
		"config": "aphex-config.yaml", "repo": "https://git.test/shop.git",
		"commit": "0123456789012345678901234567890123456789", "branch": "main", "allowOlder": "false",
	}
	for i := 0; i+1 < len(more); i += 2 {
		b[more[i]] = more[i+1]
	}
	return b
}

func (p *plugin) call(a executorplugins.ExecuteTemplateArgs) executorplugins.ExecuteTemplateReply {
	p.t.Helper()
	client := p.client(5*time.Second, token)
	var reply executorplugins.ExecuteTemplateReply
	require.NoError(p.t, client.Call(p.t.Context(), "template.execute", a, &reply))
	return reply
}

// running polls until it is told that the stage runs, which it is not before
// the beginning is kept.
func (p *plugin) running(a executorplugins.ExecuteTemplateArgs) executorplugins.ExecuteTemplateReply {
	p.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		reply := p.call(a)
		if reply.Node.Phase == wfv1.NodeRunning {
			return reply
		}
		require.Empty(p.t, reply.Node.Phase)
	}
	require.FailNow(p.t, "the stage is not said to run")
	return executorplugins.ExecuteTemplateReply{}
}

// await polls as the agent does until a final reply, and returns everything it
// was told on the way.
func (p *plugin) await(a executorplugins.ExecuteTemplateArgs) (final wfv1.NodeResult, reports []string) {
	p.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		reply := p.call(a)
		require.NotNil(p.t, reply.Node)
		switch reply.Node.Phase {
		case wfv1.NodeRunning:
			require.Positive(p.t, reply.GetRequeue())
			reports = append(reports, reply.Node.Message)
		case "":
			require.Positive(p.t, reply.GetRequeue())
			require.Nil(p.t, reply.Node.Outputs)
		default:
			require.Zero(p.t, reply.GetRequeue(), "a final reply has no requeue")
			require.NotEmpty(p.t, reply.Node.Message)
			return *reply.Node, reports
		}
		<-time.After(reply.GetRequeue())
	}
	require.Fail(p.t, "no final reply")
	return wfv1.NodeResult{}, nil
}

func parameters(n wfv1.NodeResult) map[string]string {
	m := map[string]string{}
	if n.Outputs != nil {
		for _, p := range n.Outputs.Parameters {
			m[p.Name] = p.Value.String()
		}
	}
	return m
}

// returns is a stage that ends at once.
func returns(result task.Result, err error) task.Runner {
	return task.RunnerFunc(func(context.Context, task.Request, task.Env) (task.Result, error) { return result, err })
}

// gate is a stage that ends when it is let, and counts its runs.
type gate struct {
	mu      sync.Mutex
	runs    int
	live    int
	most    int
	entered chan struct{}
	open    chan struct{}
}

func newGate() *gate {
	return &gate{entered: make(chan struct{}, 100), open: make(chan struct{})}
}

func (g *gate) Run(ctx context.Context, _ task.Request, env task.Env) (task.Result, error) {
	g.mu.Lock()
	g.runs++
	g.live++
	g.most = max(g.most, g.live)
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		g.live--
		g.mu.Unlock()
	}()
	_, _ = fmt.Fprintln(env.Output, "working")
	g.entered <- struct{}{}
	select {
	case <-g.open:
		return task.Result{Message: "built"}, nil
	case <-ctx.Done():
		return task.Result{}, context.Cause(ctx)
	}
}

func (g *gate) counts() (runs, most int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.runs, g.most
}

// raw makes one plain HTTP request.
func (p *plugin) raw(t *testing.T, method, path, tok, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.addr, strings.NewReader(body))
	require.NoError(t, err)
	req.URL.Opaque = "//" + p.addr + path
	if tok != "" {
		req.Header.Set("Authorization", "Bearer "+tok)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	require.NoError(t, err)
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode, string(answer)
}

func (p *plugin) post(t *testing.T, path string, a executorplugins.ExecuteTemplateArgs) string {
	t.Helper()
	raw, err := json.Marshal(a)
	require.NoError(t, err)
	status, answer := p.raw(t, http.MethodPost, path, token, string(raw))
	require.Equal(t, http.StatusOK, status)
	return answer
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
