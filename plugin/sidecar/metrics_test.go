package sidecar_test

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/plugin/metrics"
	"github.com/aphex-pipeline/aphex/plugin/server"
	"github.com/aphex-pipeline/aphex/plugin/sidecar"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// TestMetrics_TellWhatThePluginDid drives a plugin through every kind of
// answer and reads its page.
func TestMetrics_TellWhatThePluginDid(t *testing.T) {
	t.Parallel()
	held := newGate()
	p := start(t, options{
		runs: newRuns(),
		registry: task.Registry{
			task.StageBuild: held,
			task.StageTest:  returns(task.Result{}, fault.Newf(fault.User, fault.StackFailed, "deploy", "", "it was rejected")),
			task.StageNoop:  returns(task.Result{}, errors.New("a defect")),
		},
		change: func(c *sidecar.Config) { c.Metrics = metrics.New("v1.2.3") },
	})
	build := args(body(task.StageBuild))
	p.call(build)
	<-held.entered
	require.Contains(t, p.page(t), `aphex_stages_running{stage="build"} 1`)
	p.call(build)
	p.call(build) // a quiet poll by now
	close(held.open)
	p.await(build)
	p.await(args(body(task.StageTest, "environment", "dev-of-somebody")))
	p.await(args(body(task.StageNoop)))
	p.await(args(body("no-such-stage-"+wfUID, "node", wfName+".typo")))
	p.post(t, server.ExecutePath, pluginArgs(map[string]any{"hello": map[string]any{}}))
	status, _ := p.raw(t, http.MethodPost, server.ExecutePath, "wrong", "{}")
	require.Equal(t, http.StatusForbidden, status)

	page := p.page(t)
	for _, line := range []string{
		`aphex_info{version="v1.2.3"} 1`,
		`aphex_stages_running{stage="build"} 0`,
		`aphex_stages_total{phase="Succeeded",reason="",stage="build"} 1`,
		`aphex_stages_total{phase="Failed",reason="StackFailed",stage="test"} 1`,
		`aphex_stages_total{phase="Error",reason="Internal",stage="noop"} 1`,
		`aphex_stages_total{phase="Failed",reason="UnknownStage",stage="other"} 1`,
		`aphex_stage_duration_seconds_count{phase="Succeeded",stage="build"} 1`,
		`aphex_calls_total{answer="succeeded"} 1`,
		`aphex_calls_total{answer="error"} 1`,
		`aphex_calls_total{answer="failed"} 2`,
		`aphex_calls_total{answer="not_mine"} 1`,
		`aphex_calls_total{answer="denied"} 1`,
		`aphex_journal_failures_total 0`,
	} {
		require.Contains(t, page, "\n"+line+"\n")
	}
	for _, answer := range []string{"quiet", "running"} { // how many depends on the machine
		require.Contains(t, page, `aphex_calls_total{answer="`+answer+`"} `)
	}
	require.NotContains(t, page, "aphex_log_bytes_total 0\n")
	for _, private := range []string{token, wfName, wfUID, "dev-of-somebody", "shop", "git.test"} {
		require.NotContains(t, page, private, "the page is for everybody")
	}
}

// page reads the page for Prometheus, which needs no token.
func (p *plugin) page(t *testing.T) string {
	t.Helper()
	status, text := p.raw(t, http.MethodGet, metrics.Path, "", "")
	require.Equal(t, http.StatusOK, status)
	return "\n" + text
}

func TestMetrics_AddressThatCannotBeHadStopsNothing(t *testing.T) {
	t.Parallel()
	p := start(t, options{
		registry: task.Registry{task.StageNoop: returns(task.Result{Message: "done"}, nil)}, runs: newRuns(),
		change: func(c *sidecar.Config) {
			c.Metrics, c.MetricsAddress = metrics.New("v1"), c.Listeners[0].Addr().String()
		},
	})
	final, _ := p.await(args(body(task.StageNoop)))
	require.Equal(t, wfv1.NodeSucceeded, final.Phase)
}

// TestMetrics_AreAllThatThePodNetworkSees: an address of its own has the page
// and neither calls nor health.
func TestMetrics_AreAllThatThePodNetworkSees(t *testing.T) {
	t.Parallel()
	// A free port, of an address that no other test listens at meanwhile.
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.3:0")
	require.NoError(t, err)
	addr := listener.Addr().String()
	require.NoError(t, listener.Close())
	p := start(t, options{
		registry: task.Registry{task.StageNoop: returns(task.Result{}, nil)}, runs: newRuns(),
		change: func(c *sidecar.Config) { c.Metrics, c.MetricsAddress = metrics.New("v1"), addr },
	})
	outside := &plugin{t: t, addr: addr}
	require.Eventually(t, func() bool { return sidecar.Probe(t.Context(), addr, metrics.Path) == nil }, 10*time.Second, 10*time.Millisecond)
	require.Contains(t, outside.page(t), "aphex_info")
	status, text := outside.raw(t, http.MethodPost, server.ExecutePath, token, "{}")
	require.True(t, strings.HasPrefix(text, "#"), "%d %s", status, text)
	require.Contains(t, p.page(t), "aphex_info")
	require.NotContains(t, p.page(t), "aphex_calls_total{", "it was no call")
}

func TestProbe(t *testing.T) {
	t.Parallel()
	p := start(t, options{registry: task.Registry{task.StageNoop: returns(task.Result{}, nil)}, change: func(c *sidecar.Config) { c.Grace = 50 * time.Millisecond }})
	require.NoError(t, sidecar.Probe(t.Context(), p.addr, server.HealthPath))
	require.NoError(t, sidecar.Probe(t.Context(), p.addr, server.ReadyPath))
	p.stop()
	require.ErrorContains(t, sidecar.Probe(t.Context(), p.addr, server.HealthPath), "ask the plugin")
}
