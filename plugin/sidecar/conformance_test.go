package sidecar_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	executorplugins "github.com/argoproj/argo-workflows/v3/pkg/plugins/executor"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/plugin/execution"
	"github.com/aphex-pipeline/aphex/plugin/server"
	"github.com/aphex-pipeline/aphex/plugin/sidecar"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// These tests speak to the plugin through Argo's own RPC client.

func TestConformance_ForeignTemplatesAreNotOurs(t *testing.T) {
	t.Parallel()
	p := start(t, options{registry: task.Registry{}, runs: newRuns()})
	for name, plugin := range map[string]map[string]any{
		"another plugin": {"hello": map[string]any{}},
		"no plugin":      {},
		"scalar body":    {"hello": "world"},
	} {
		reply := p.call(pluginArgs(plugin))
		require.Nil(t, reply.Node, name)
		require.Nil(t, reply.Requeue, name)
		require.JSONEq(t, `{}`, p.post(t, server.ExecutePath, pluginArgs(plugin)), name)
	}
	for _, raw := range []string{"", "null", "[]", "{", `{"template":null}`, `{"template":{"plugin":"aphex"}}`, `{"template":{"plugin":null}}`} {
		status, answer := p.raw(t, http.MethodPost, server.ExecutePath, token, raw)
		require.Equal(t, http.StatusOK, status, raw)
		require.Equal(t, `{}`, answer, raw)
	}
}

func TestConformance_RunningThenFinal(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := start(t, options{registry: task.Registry{task.StageBuild: g}, runs: newRuns()})
	reply := p.running(args(body(task.StageBuild)))
	require.Equal(t, "build is running", reply.Node.Message)
	require.Nil(t, reply.Node.Outputs)
	reply = p.call(args(body(task.StageBuild)))
	require.Empty(t, reply.Node.Phase, "a quiet poll: nothing has changed")
	require.Positive(t, reply.GetRequeue())
	close(g.open)
	final, _ := p.await(args(body(task.StageBuild)))
	require.Equal(t, wfv1.NodeSucceeded, final.Phase)
	require.Equal(t, "built", final.Message)
	require.Equal(t, "0", *final.Outputs.ExitCode)
	got := parameters(final)
	require.Regexp(t, "/runs/"+wfUID+`/logs/build/\d{8}T\d{6}Z-0[.]log$`, got[task.OutputLogURL])
	delete(got, task.OutputLogURL)
	require.Equal(t, map[string]string{task.OutputArtifactPath: "", task.OutputSnapshot: "", "declared-by-template": ""}, got, "every declared output is there")
	require.Equal(t, "global", final.Outputs.Parameters[len(final.Outputs.Parameters)-1].GlobalName)
	again, _ := p.await(args(body(task.StageBuild)))
	require.Equal(t, final, again)
}

func TestConformance_QuickStageNeedsOneCall(t *testing.T) {
	t.Parallel()
	p := start(t, options{registry: task.Registry{task.StageFinish: returns(task.Result{Message: "recorded", Outputs: map[string]string{"record": "s3://b/r"}}, nil)}, runs: newRuns(), change: func(c *sidecar.Config) {
		c.FirstPoll, c.LongPoll = 10*time.Second, 10*time.Second
	}})
	reply := p.call(args(body(task.StageFinish, "status", "Succeeded")))
	require.Equal(t, wfv1.NodeSucceeded, reply.Node.Phase)
	require.Nil(t, reply.Requeue)
	require.Equal(t, "s3://b/r", parameters(*reply.Node)["record"])
}

func TestConformance_OverrunOfTheClientIsSingleFlight(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := start(t, options{registry: task.Registry{task.StageBuild: g}, runs: newRuns(), change: func(c *sidecar.Config) {
		c.FirstPoll, c.LongPoll = 10*time.Second, 10*time.Second
	}})
	client := p.client(100*time.Millisecond, token) // gives up and calls again while the stage runs
	var reply executorplugins.ExecuteTemplateReply
	require.Error(t, client.Call(t.Context(), "template.execute", args(body(task.StageBuild)), &reply))
	close(g.open)
	final, _ := p.await(args(body(task.StageBuild)))
	require.Equal(t, wfv1.NodeSucceeded, final.Phase)
	runs, most := g.counts()
	require.Equal(t, []int{1, 1}, []int{runs, most})
}

func TestConformance_ConcurrentCallsShareOneExecution(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := start(t, options{registry: task.Registry{task.StageBuild: g}, runs: newRuns()})
	var wg sync.WaitGroup
	finals := make([]wfv1.NodeResult, 8)
	for i := range finals {
		wg.Go(func() { finals[i], _ = p.await(args(body(task.StageBuild))) })
	}
	<-g.entered
	close(g.open)
	wg.Wait()
	for _, f := range finals {
		require.Equal(t, finals[0], f)
	}
	runs, most := g.counts()
	require.Equal(t, []int{1, 1}, []int{runs, most})
}

func TestConformance_WrongTokenIs403(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := start(t, options{registry: task.Registry{task.StageBuild: g}, runs: newRuns()})
	for _, tok := range []string{"", "wrong", token + "x", token[:5]} {
		client := p.client(time.Second, tok)
		var reply executorplugins.ExecuteTemplateReply
		err := client.Call(t.Context(), "template.execute", args(body(task.StageBuild)), &reply)
		require.ErrorContains(t, err, "403")
		require.NotContains(t, err.Error(), token)
	}
	runs, _ := g.counts()
	require.Zero(t, runs)
}

func TestConformance_PanicIsAnErrorAndThePluginLivesOn(t *testing.T) {
	t.Parallel()
	p := start(t, options{runs: newRuns(), registry: task.Registry{
		task.StageBuild: task.RunnerFunc(func(context.Context, task.Request, task.Env) (task.Result, error) { panic("boom") }),
		task.StageTest:  returns(task.Result{Message: "passed"}, nil),
	}})
	final, _ := p.await(args(body(task.StageBuild)))
	require.Equal(t, wfv1.NodeError, final.Phase)
	require.Contains(t, final.Message, "boom")
	require.Contains(t, final.Message, "[Internal]")
	require.NotContains(t, final.Message, "goroutine")
	require.Equal(t, "125", *final.Outputs.ExitCode)
	require.Contains(t, parameters(final), task.OutputSnapshot)
	final, _ = p.await(args(body(task.StageTest, "environment", "dev")))
	require.Equal(t, wfv1.NodeSucceeded, final.Phase)
}

func TestConformance_UnknownRoutesAreNever404(t *testing.T) {
	t.Parallel()
	p := start(t, options{registry: task.Registry{}, runs: newRuns()})
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		for _, path := range []string{"/", "/api/v1/template.execute/", "/api/v1/workflow.preOperate", "//api//v1/template.execute", "/API/V1/template.execute", "/%00"} {
			status, answer := p.raw(t, method, path, token, "{}")
			require.Equal(t, http.StatusOK, status, "%s %s", method, path)
			require.Equal(t, `{}`, answer, "%s %s", method, path)
		}
	}
	status, answer := p.raw(t, http.MethodGet, server.ExecutePath, token, "")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, `{}`, answer)
	status, _ = p.raw(t, http.MethodGet, server.HealthPath, "", "")
	require.Equal(t, http.StatusOK, status)
	client := p.client(time.Second, token)
	var reply executorplugins.ExecuteTemplateReply
	require.NoError(t, client.Call(t.Context(), "unknown.method", args(body(task.StageBuild)), &reply))
	require.Nil(t, reply.Node)
}

func TestConformance_OversizedOutputFailsItsStageClearly(t *testing.T) {
	t.Parallel()
	for name, outputs := range map[string]map[string]string{
		"one":      {task.OutputStacks: strings.Repeat("x", 32<<10+1)},
		"together": {task.OutputStacks: strings.Repeat("x", 30<<10), "b": strings.Repeat("x", 30<<10), "c": strings.Repeat("x", 10<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, options{runs: newRuns(), registry: task.Registry{task.StageDeployEnv: returns(task.Result{Message: "deployed", Outputs: outputs}, nil)}})
			final, _ := p.await(args(body(task.StageDeployEnv, "environment", "dev")))
			require.Equal(t, wfv1.NodeFailed, final.Phase)
			require.Contains(t, final.Message, "[OutputTooLarge]")
			require.Empty(t, parameters(final)[task.OutputStacks])
			require.NotEmpty(t, parameters(final)[task.OutputLogURL])
		})
	}
}

func TestConformance_UnresolvedTagFails(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := start(t, options{registry: task.Registry{task.StageBuild: g}, runs: newRuns()})
	for _, b := range []map[string]any{
		body(task.StageBuild, "attempt", "{{retries}}"),
		body(task.StageBuild, "commit", "{{body.after}}"),
		body(task.StageBuild, "extra", "{{aphex.foo}}"),
	} {
		reply := p.call(args(b))
		require.Equal(t, wfv1.NodeFailed, reply.Node.Phase)
		require.Contains(t, reply.Node.Message, "[UnresolvedTag]")
		require.Contains(t, parameters(*reply.Node), task.OutputSnapshot)
	}
	runs, _ := g.counts()
	require.Zero(t, runs)
}

func TestConformance_FaultsKeepTheirClass(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		class fault.Class
		phase wfv1.NodePhase
		exit  string
	}{
		{fault.User, wfv1.NodeFailed, "1"},
		{fault.Transient, wfv1.NodeFailed, "75"},
		{fault.Cancelled, wfv1.NodeFailed, "143"},
		{fault.System, wfv1.NodeError, "125"},
	} {
		t.Run(c.class.String(), func(t *testing.T) {
			t.Parallel()
			err := fmt.Errorf("deploy: %w", fault.Newf(c.class, fault.StackFailed, "deploy stack shop", "Look at hunter22", "it failed:\n%s", strings.Repeat("längst ", 400)))
			p := start(t, options{runs: newRuns(), registry: task.Registry{task.StageBuild: returns(task.Result{}, err)}, change: func(c *sidecar.Config) {
				c.Redactor = redact.New("hunter22")
			}})
			final, _ := p.await(args(body(task.StageBuild)))
			require.Equal(t, c.phase, final.Phase)
			require.Equal(t, c.exit, *final.Outputs.ExitCode)
			require.LessOrEqual(t, len(final.Message), 1024)
			require.True(t, utf8.ValidString(final.Message))
			require.True(t, strings.HasPrefix(final.Message, "deploy: deploy stack shop: it failed:"), final.Message)
			require.True(t, strings.HasSuffix(final.Message, "Look at [REDACTED] [StackFailed]"), "the remedy survives the cut: %s", final.Message)
			require.NotContains(t, final.Message, "\n")
		})
	}
}

func TestConformance_UnknownStageFails(t *testing.T) {
	t.Parallel()
	p := start(t, options{registry: task.Registry{}, runs: newRuns()})
	final, _ := p.await(args(body("lunch")))
	require.Equal(t, wfv1.NodeFailed, final.Phase)
	require.Contains(t, final.Message, `"lunch" is not a stage`)
}

func TestConformance_RestartReplaysTheFinalReply(t *testing.T) {
	t.Parallel()
	g := newGate()
	close(g.open)
	o := options{dir: t.TempDir(), registry: task.Registry{task.StageBuild: g}, runs: newRuns()}
	p := start(t, o)
	first, _ := p.await(args(body(task.StageBuild)))
	bytes1 := p.post(t, server.ExecutePath, args(body(task.StageBuild)))
	p.stop()
	p = start(t, o)
	second, reports := p.await(args(body(task.StageBuild)))
	require.Equal(t, first, second)
	require.Empty(t, reports, "never running after final")
	require.Equal(t, bytes1, p.post(t, server.ExecutePath, args(body(task.StageBuild))), "byte for byte")
	runs, _ := g.counts()
	require.Equal(t, 1, runs)
}

func TestConformance_RestartResumesWhatHadNotEnded(t *testing.T) {
	t.Parallel()
	g := newGate()
	o := options{dir: t.TempDir(), registry: task.Registry{task.StageBuild: g}, runs: newRuns()}
	o.change = func(c *sidecar.Config) { c.Grace = 200 * time.Millisecond }
	p := start(t, o)
	p.running(args(body(task.StageBuild)))
	p.stop() // a drain: the run goes on
	close(g.open)
	p = start(t, o)
	final, _ := p.await(args(body(task.StageBuild)))
	require.Equal(t, wfv1.NodeSucceeded, final.Phase)
	runs, most := g.counts()
	require.Equal(t, []int{2, 1}, []int{runs, most})
	log, err := os.ReadFile(strings.TrimPrefix(parameters(final)[task.OutputLogURL], "file://"))
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(log), "working"), "the log goes on in the same pod:\n%s", log)
}

func TestConformance_RetryIsANewExecution(t *testing.T) {
	t.Parallel()
	runs := newRuns()
	var mu sync.Mutex
	n := 0
	p := start(t, options{runs: runs, registry: task.Registry{task.StageBuild: task.RunnerFunc(
		func(context.Context, task.Request, task.Env) (task.Result, error) {
			mu.Lock()
			defer mu.Unlock()
			n++
			if n == 1 {
				return task.Result{}, fault.Newf(fault.User, fault.CommandFailed, "run npm test", "Mend it", "exit 1")
			}
			return task.Result{Message: "mended"}, nil
		})}})
	final, _ := p.await(args(body(task.StageBuild)))
	require.Equal(t, wfv1.NodeFailed, final.Phase)
	runs.set(execution.RunState{Epoch: "2026-11-24T07:00:00Z"})
	require.Eventually(t, func() bool {
		final, _ = p.await(args(body(task.StageBuild)))
		return final.Phase == wfv1.NodeSucceeded
	}, 5*time.Second, 10*time.Millisecond)
	final, _ = p.await(args(body(task.StageBuild, "attempt", "1")))
	require.Equal(t, wfv1.NodeSucceeded, final.Phase)
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, 3, n, "an attempt and an epoch are each an execution of their own")
}

func TestConformance_StopEndsTheStageFailed(t *testing.T) {
	t.Parallel()
	runs := newRuns()
	g := newGate()
	p := start(t, options{runs: runs, registry: task.Registry{task.StageBuild: g, task.StageFinish: returns(task.Result{Message: "recorded"}, nil)}})
	p.running(args(body(task.StageBuild)))
	runs.set(execution.RunState{Epoch: "2026-11-24T06:00:00Z", Shutdown: "Stop"})
	final, _ := p.await(args(body(task.StageBuild)))
	require.Equal(t, wfv1.NodeFailed, final.Phase)
	require.Contains(t, final.Message, "shut down (Stop)")
	require.Contains(t, final.Message, "[Cancelled]")
	final, _ = p.await(args(body(task.StageFinish, "status", "Failed")))
	require.Equal(t, wfv1.NodeSucceeded, final.Phase, "the exit handler runs on")
	final, _ = p.await(args(body(task.StageDeployPipeline)))
	require.Equal(t, wfv1.NodeFailed, final.Phase, "and nothing else begins")
}

func TestConformance_ExitHandlerCancelsWhatIsLeft(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := start(t, options{runs: newRuns(), registry: task.Registry{task.StageBuild: g, task.StageFinish: returns(task.Result{Message: "recorded"}, nil)}})
	p.running(args(body(task.StageBuild)))
	_, _ = p.await(args(body(task.StageFinish, "status", "Failed")))
	final, _ := p.await(args(body(task.StageBuild)))
	require.Equal(t, wfv1.NodeFailed, final.Phase)
	require.Contains(t, final.Message, "exit handler")
}

func TestConformance_NoStageRunsForEver(t *testing.T) {
	t.Parallel()
	p := start(t, options{runs: newRuns(), registry: task.Registry{task.StageBuild: newGate()}, change: func(c *sidecar.Config) {
		c.StageLimit = 100 * time.Millisecond
	}})
	a := args(body(task.StageBuild))
	a.Template.Timeout = "1ms" // for nodes that never started
	final, _ := p.await(a)
	require.Equal(t, wfv1.NodeFailed, final.Phase)
	require.Contains(t, final.Message, "100ms")
	require.Contains(t, final.Message, "[StageTimeout]")
}

func TestConformance_DrainAnswersQuietlyToTheEnd(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := start(t, options{runs: newRuns(), registry: task.Registry{task.StageBuild: g}, change: func(c *sidecar.Config) {
		c.Grace = time.Second
	}})
	p.running(args(body(task.StageBuild)))
	stopped := make(chan struct{})
	go func() { p.stop(); close(stopped) }()
	polls := 0
	for polls < 3 {
		reply := p.call(args(body(task.StageBuild)))
		require.Empty(t, reply.Node.Phase)
		require.Positive(t, reply.GetRequeue())
		if reply.GetRequeue() >= 500*time.Millisecond {
			polls++
		}
	}
	<-stopped
	_, most := g.counts()
	require.Equal(t, 1, most)
}

func TestConformance_SigtermOfAFinishedRunCancelsAndEnds(t *testing.T) {
	t.Parallel()
	runs := newRuns()
	g := newGate()
	rec := &recorder{}
	o := options{dir: t.TempDir(), runs: runs, registry: task.Registry{task.StageBuild: g}, change: func(c *sidecar.Config) {
		c.Grace, c.Recorder = time.Minute, rec
	}}
	p := start(t, o)
	p.running(args(body(task.StageBuild)))
	runs.set(execution.RunState{Epoch: "2026-11-24T06:00:00Z", Finished: true})
	begin := time.Now()
	p.stop()
	require.Less(t, time.Since(begin), 20*time.Second, "it does not wait for the whole grace period")
	require.Equal(t, []string{"start build", "end build Failed Cancelled"}, rec.all())
}

func TestConformance_ProgressIsReportedRarely(t *testing.T) {
	t.Parallel()
	const every = 400 * time.Millisecond
	open := make(chan struct{})
	p := start(t, options{runs: newRuns(), registry: task.Registry{task.StageBuild: task.RunnerFunc(
		func(_ context.Context, _ task.Request, env task.Env) (task.Result, error) {
			for i := 0; ; i++ {
				env.Progress(fmt.Sprintf("step %d", i))
				select {
				case <-open:
					return task.Result{Message: "done"}, nil
				case <-time.After(time.Millisecond):
				}
			}
		})}, change: func(c *sidecar.Config) {
		c.FirstPoll, c.LongPoll, c.ReportEvery = 10*time.Millisecond, 20*time.Millisecond, every
	}})
	begun := time.Now()
	for range 3 {
		p.running(args(body(task.StageBuild)))
	}
	require.GreaterOrEqual(t, time.Since(begun), 2*every)
	close(open)
	p.await(args(body(task.StageBuild)))
}

func TestConformance_LogUploadFailureIsAWarning(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := start(t, options{runs: newRuns(), registry: task.Registry{task.StageDeployEnv: task.RunnerFunc(
		func(_ context.Context, _ task.Request, env task.Env) (task.Result, error) {
			_, err := io.WriteString(env.Output, "one\ntwo\nunfinished")
			return task.Result{Message: "deployed", Outputs: map[string]string{task.OutputDeployed: "true"}}, err
		})}, change: func(c *sidecar.Config) { c.Logs, c.Stdout = brokenStore{}, &out }})
	final, _ := p.await(args(body(task.StageDeployEnv, "environment", "dev")))
	require.Equal(t, wfv1.NodeSucceeded, final.Phase)
	require.Contains(t, final.Message, "deployed (warning: the log could not be kept")
	require.Empty(t, parameters(final)[task.OutputLogURL])
	require.Equal(t, "true", parameters(final)[task.OutputDeployed])
	p.stop()
	require.Equal(t, "[deploy-dev] one\n[deploy-dev] two\n[deploy-dev] unfinished\n[deploy-dev] aphex: deploy-dev Succeeded\n", out.String())
}

func TestConformance_BootingIs503(t *testing.T) {
	t.Parallel()
	listeners, err := server.Listen(t.Context(), 0)
	require.NoError(t, err)
	p := &plugin{t: t, addr: listeners[0].Addr().String()}
	s := server.New(discard())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listeners, s, time.Second) }()
	status, _ := p.raw(t, http.MethodPost, server.ExecutePath, token, "{}")
	require.Equal(t, http.StatusServiceUnavailable, status)
	status, _ = p.raw(t, http.MethodGet, server.HealthPath, "", "")
	require.Equal(t, http.StatusOK, status)
	brief, cancelBrief := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancelBrief()
	require.Error(t, sidecar.WaitReady(brief, p.addr))
	cancel()
	require.NoError(t, <-done)
}

// brokenStore is a bucket that cannot be written; nothing else is asked of it.
type brokenStore struct{ execution.Logs }

func (brokenStore) Put(context.Context, string, io.Reader, store.PutOptions) (store.Object, error) {
	return store.Object{}, errors.New("access denied")
}

// recorder remembers what it was told.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) StageStarted(_ context.Context, req task.Request, _ time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, "start "+req.Stage)
	return errors.New("is only logged")
}

func (r *recorder) StageEnded(_ context.Context, req task.Request, _, _ time.Time, phase, _, reason, _ string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, strings.Join([]string{"end", req.Stage, phase, reason}, " "))
	return errors.New("is only logged")
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.lines...)
}
