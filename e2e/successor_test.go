package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

// TestSuccessor_DeliversTheNewEnvironmentWithoutASecondBuild: a commit adds an
// environment and asks for it in the same run. That run hands over and passes
// its environments over; exactly one successor deploys all of them with what
// the first run built.
//
// Feature: aphex-pipeline, Property 7: Self-modification visibility
func TestSuccessor_DeliversTheNewEnvironmentWithoutASecondBuild(t *testing.T) {
	t.Parallel()
	handsOver(t, pluginRunner())
}

func TestSuccessor_InStagePodsDeliversTheNewEnvironment(t *testing.T) {
	t.Parallel()
	handsOver(t, containerRunner())
}

func handsOver(t *testing.T, r runner) {
	t.Helper()
	l := needLab(t)
	name := "succ" + r.suffix
	p, _, ledger := newSmall(t, l, name, r.use)
	// The marker is of the build that ran; the test that finds it proves that
	// the successor has that build's workspace.
	after := config(
		[]string{". ./ledger.sh; did build", "echo $APHEX_RUN > built-by"},
		dev(name, ". ./ledger.sh; did test", "echo built by $(cat built-by)"),
		environment{name: "prod", region: "eu-central-1", account: "222222222222", stack: name},
	) + "selfModification: same-run\n"
	commit, err := p.Push(t.Context(), gitserver.Change{Write: map[string]string{"aphex-config.yaml": after}})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*runLimit)
	defer cancel()
	run, err := p.Submit(ctx, commit)
	require.NoError(t, err)
	status, err := run.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Equal(t, "false", status.Node("deploy-dev").Output("deployed"))
	require.Equal(t, "Skipped", status.Node("test-dev").Phase)

	successor, err := p.Latest(ctx)
	require.NoError(t, err)
	require.Regexp(t, `^`+run.Name+`-s[0-9a-f]{10}$`, successor.Name)
	for _, node := range []string{"deploy-pipeline", "deploy-dev"} {
		require.Contains(t, status.Node(node).Message, "handed over to")
		require.Contains(t, status.Node(node).Message, successor.Name)
		require.Contains(t, status.Node(node).Message, "["+string(fault.HandedOver)+"]")
	}
	rec, err := p.Record(ctx, status.UID)
	require.NoError(t, err)
	require.Equal(t, record.Succeeded, rec.Status)
	require.Equal(t, string(fault.HandedOver), rec.Reason)

	after2, err := successor.Wait(ctx)
	require.NoError(t, err)
	runs := 2
	if after2.Node("validate").Output("proceed") == "false" {
		// The controller took it up while its cache had the old template, so it
		// has been replaced, with all it had been given.
		replacement, err := p.Latest(ctx)
		require.NoError(t, err)
		require.NotEqual(t, successor.Name, replacement.Name)
		require.Contains(t, after2.Node("validate").Message, replacement.Name)
		after2, err = replacement.Wait(ctx)
		require.NoError(t, err)
		runs++
	}
	require.Equal(t, "Succeeded", after2.Phase, "%+v", after2)
	require.Contains(t, after2.Node("build").Message, "not built again")
	require.Equal(t, status.Node("build").Output("snapshot"), after2.Node("build").Output("snapshot"))
	require.Equal(t, "true", after2.Node("deploy-dev").Output("deployed"))
	require.Equal(t, "true", after2.Node("deploy-prod").Output("deployed"))
	require.Contains(t, object(t, l, after2.Node("test-dev").Output("log-url")), "built by "+run.Name+"\n")
	require.Equal(t, int64(1), parameterVersion(t, l, "/e2e/"+name), "deployed once")
	rec, err = p.Record(ctx, after2.UID)
	require.NoError(t, err)
	require.Equal(t, status.UID, rec.Predecessor)
	require.Equal(t, map[string]int{"build": 1, "synth": 2, "test": 1}, ledger.ran())

	names, err := l.Kubectl(ctx, nil, "get", "workflows", "-n", p.Installation.Namespace, "-l", pipeline.LabelPipeline+"="+p.Installation.Pipeline, "-o", "name")
	require.NoError(t, err)
	require.Len(t, strings.Fields(names), runs, "the run and its one successor: %s", names)
}
