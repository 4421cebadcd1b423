package e2e

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/lab"
)

// TestPlugin_ChecksItsOwnPod: in the pod of a run that is at its build, every
// check is passed, the probes are, and /metrics tells of the stages.
func TestPlugin_ChecksItsOwnPod(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	p, commit := newApp(t, l, "health", config([]string{"echo begun; until [ -e /workspace/tmp/go ]; do sleep 0.2; done"}, dev("health")), settings{"stack": "health"})
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	run, err := p.Submit(ctx, commit)
	require.NoError(t, err)
	_, err = run.Until(ctx, "the build's command runs", func(s lab.Status) bool {
		log, err := run.Log(ctx)
		return err == nil && strings.Contains(log, "[build] begun") || s.Done()
	})
	require.NoError(t, err)
	exec := func(container string, command ...string) string {
		t.Helper()
		pods, err := l.Pods(ctx, run)
		require.NoError(t, err)
		require.Len(t, pods, 1)
		out, err := l.Kubectl(ctx, nil, append([]string{"exec", "-n", run.Namespace, pods[0].Name, "-c", container, "--"}, command...)...)
		require.NoError(t, err, out)
		return out
	}

	verdicts := exec("aphex-executor-plugin", "aphex", "plugin", "--check")
	t.Log("\n" + verdicts)
	lines := strings.Split(strings.TrimSpace(verdicts), "\n")
	require.Len(t, lines, 10)
	for _, line := range lines {
		require.True(t, strings.HasPrefix(line, "ok    "), line)
	}
	for _, command := range []string{"--probe=live", "--probe=ready"} {
		exec("aphex-executor-plugin", "aphex", "plugin", command)
	}

	// From the worker, as whoever shares the pod's network sees it.
	page := exec("worker", "bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/4355; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3`)
	require.Contains(t, page, `aphex_stages_running{stage="build"} 1`)
	require.Contains(t, page, `aphex_stages_total{phase="Succeeded",reason="",stage="validate"} 1`)
	require.Regexp(t, `aphex_nudges_total\{result="written"\} [1-2]\n`, page)
	require.Regexp(t, `aphex_journal_writes_total\{result="written"\} [1-9]`, page)
	require.Regexp(t, `aphex_log_bytes_total [1-9]`, page)
	require.NotContains(t, page, run.Name)
	require.NotContains(t, page, commit)

	// The kubelet asks every 20 s; its first question may have come too early.
	isReady := func(lab.Status) bool { return ready(ctx, t, l, run)["aphex-executor-plugin"] }
	_, err = run.Until(ctx, "the sidecar is ready", isReady)
	require.NoError(t, err)
	exec("worker", "touch", "/workspace/tmp/go")
	_, err = run.Until(ctx, "the build ends", func(s lab.Status) bool { return s.Node("build").Phase == "Succeeded" || s.Done() })
	require.NoError(t, err)
}

// ready tells which containers of the run's pod are ready and have never been
// started again.
func ready(ctx context.Context, t *testing.T, l *lab.Lab, run *lab.Run) map[string]bool {
	t.Helper()
	text, err := l.Kubectl(ctx, nil, "get", "pods", "-n", run.Namespace, "-l", "workflows.argoproj.io/workflow="+run.Name, "-o", "json")
	require.NoError(t, err)
	var list struct {
		Items []struct {
			Status struct {
				ContainerStatuses []struct {
					Name         string `json:"name"`
					Ready        bool   `json:"ready"`
					RestartCount int    `json:"restartCount"`
				} `json:"containerStatuses"`
			} `json:"status"`
		} `json:"items"`
	}
	require.NoError(t, json.Unmarshal([]byte(text), &list))
	require.Len(t, list.Items, 1)
	found := map[string]bool{}
	for _, c := range list.Items[0].Status.ContainerStatuses {
		found[c.Name] = c.Ready && c.RestartCount == 0
	}
	return found
}
