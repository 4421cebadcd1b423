package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

// tries are the rows of docs/security.md: what was tried, and how it ended.
func tries(t *testing.T) map[string]string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", "security.md"))
	require.NoError(t, err)
	rows := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|.*\\| (contained|limit) \\|").FindAllStringSubmatch(string(page), -1) {
		require.NotContains(t, rows, row[1], "twice")
		rows[row[1]] = row[2]
	}
	return rows
}

// said are the verdicts in the logs of commands.
func said(logs ...string) map[string]string {
	found := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^hostile: ([a-z-]+): (contained|limit)$`).FindAllStringSubmatch(strings.Join(logs, "\n"), -1) {
		found[m[1]] = m[2]
	}
	return found
}

// killers are what takes the worker down with it, each in a run of its own.
func killers() map[string]string {
	return map[string]string{
		"kill-everything": "kill -TERM 1; kill -KILL -1; sleep 60",
		"fill-memory":     `python3 -c "x = [bytearray(1 << 20) for _ in range(1 << 20)]"`,
		"fork-bomb":       "bomb() { bomb | bomb & }; bomb; sleep 60",
	}
}

// TestHostileCommands tries in a real pod what hostile code of a build would:
// what comes of it is what docs/security.md says, try by try.
func TestHostileCommands(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	rows := tries(t)
	require.GreaterOrEqual(t, len(rows), 30)
	for _, name := range append(slices.Collect(maps.Keys(killers())), "fill-disk") {
		require.Equal(t, "contained", rows[name], name)
		delete(rows, name)
	}
	p, _, ledger := newSmall(t, l, "hostile")
	cfg := config([]string{". ./ledger.sh; did build", ". ./hostile.sh"}, dev("hostile", "bash hostile-later.sh", ". ./ledger.sh; did test"))
	write := map[string]string{pipeline.DefaultFile: cfg}
	for _, name := range []string{"hostile.sh", "hostile-later.sh"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(t, err)
		write[name] = string(text)
	}
	commit, err := p.Push(t.Context(), gitserver.Change{Write: write})
	require.NoError(t, err)
	_, status := finish(t, p, commit)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	found := said(object(t, l, status.Node("build").Output("log-url")), object(t, l, status.Node("test-dev").Output("log-url")))
	require.Equal(t, rows, found)
	require.Equal(t, map[string]int{"build": 1, "synth": 1, "test": 1}, ledger.ran())
	require.Contains(t, status.Node("build").Message, " 1 artifact,", "links are not published")
}

// TestHostileCommands_ThatKillTheWorker: the build fails and says so; the
// sidecar, and with it the record, is not disturbed.
func TestHostileCommands_ThatKillTheWorker(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	for name, command := range killers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, _, _ := newSmall(t, l, name)
			cfg := config([]string{command}, dev(name, "true")) + "worker: {resources: {limits: {memory: 128Mi}}}\n"
			commit, err := p.Push(t.Context(), gitserver.Change{Write: map[string]string{pipeline.DefaultFile: cfg}})
			require.NoError(t, err)
			require.NoError(t, p.Apply(t.Context(), []byte(cfg)))
			_, status := finish(t, p, commit)
			require.Equal(t, "Failed", status.Phase, "%+v", status)
			node := status.Node("build")
			require.Equal(t, "Failed", node.Phase)
			require.Regexp(t, `\[(`+string(fault.WorkerLost)+`|`+string(fault.CommandFailed)+`)\]$`, node.Message)
			require.Contains(t, []string{"Omitted", ""}, status.Node("deploy-dev").Phase)
			rec, err := p.Record(t.Context(), status.UID)
			require.NoError(t, err)
			require.Equal(t, record.Failed, rec.Status, "closed by the run itself")
			require.Equal(t, node.Message, *record.FirstFailed(rec.Stages).ErrorMessage)
		})
	}
}

// TestHostileCommands_ThatFillTheDisk: the kubelet evicts the run's pod when it
// has more on the node's disk than its worker may have. The run ends by itself,
// and says so once the reconciler has seen it.
func TestHostileCommands_ThatFillTheDisk(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	ctx := limited(t)
	p, _, _ := newSmall(t, l, "fill-disk")
	cfg := config([]string{"head -c 200M /dev/zero >/workspace/home/full; sleep 600"}, dev("fill-disk", "true")) +
		"worker: {resources: {limits: {ephemeral-storage: 64Mi}}}\n"
	commit, err := p.Push(ctx, gitserver.Change{Write: map[string]string{pipeline.DefaultFile: cfg}})
	require.NoError(t, err)
	require.NoError(t, p.Apply(ctx, []byte(cfg)))
	run, err := p.Submit(ctx, commit)
	require.NoError(t, err)
	status, err := run.Wait(ctx)
	require.NoError(t, err)
	require.NotEqual(t, "Succeeded", status.Phase, "%+v", status)
	require.Contains(t, status.Node("build").Message, "ephemeral")
	aloneWithReconciler(t)
	rec, said := reconcileUntil(ctx, t, l, p, run, status.UID)
	require.Contains(t, said, "failed, AgentLost")
	require.Equal(t, string(fault.AgentLost), rec.Reason)
}
