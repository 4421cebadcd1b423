package e2e

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

// pushConfig commits a configuration.
func pushConfig(ctx context.Context, t *testing.T, p *lab.Pipeline, message, cfg string) string {
	t.Helper()
	commit, err := p.Push(ctx, gitserver.Change{Message: message, Write: map[string]string{pipeline.DefaultFile: cfg}})
	require.NoError(t, err)
	return commit
}

// TestSelfModification_NextRun: an environment that a commit adds is in the
// run after its own, one that a commit removes is passed over by its own run
// and gone from the next, and both runs say so.
//
// Feature: aphex-pipeline, Property 7: Self-modification visibility
func TestSelfModification_NextRun(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	ctx := limited(t)
	p, _, _ := newSmall(t, l, "next-run")
	one := config([]string{". ./ledger.sh; did build"}, dev("next-run"))
	two := config([]string{". ./ledger.sh; did build"}, dev("next-run"), environment{name: "prod", region: "eu-central-1", account: aws.AccountTarget, stack: "next-run"})
	require.NoError(t, p.Apply(ctx, []byte(one)))

	_, status := finish(t, p, pushConfig(ctx, t, p, "add prod", two))
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Contains(t, status.Node("deploy-pipeline").Message, "deploy-prod", "what waits for the next run")
	require.Equal(t, "Succeeded", status.Node("deploy-dev").Phase)
	require.Empty(t, status.Node("deploy-prod").Phase, "not in its own run")

	commit, err := p.Push(ctx, gitserver.Change{Message: "anything", Write: map[string]string{"README": "anything"}})
	require.NoError(t, err)
	_, status = finish(t, p, commit)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Equal(t, "true", status.Node("deploy-prod").Output("deployed"))

	_, status = finish(t, p, pushConfig(ctx, t, p, "remove prod", one))
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Equal(t, "Succeeded", status.Node("deploy-prod").Phase)
	require.Equal(t, "false", status.Node("deploy-prod").Output("deployed"))
	require.Contains(t, status.Node("deploy-prod").Message, "["+string(fault.TopologyChanged)+"]")

	commit, err = p.Push(ctx, gitserver.Change{Message: "anything else", Write: map[string]string{"README": "anything else"}})
	require.NoError(t, err)
	_, status = finish(t, p, commit)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Empty(t, status.Node("deploy-prod").Phase)
}

// TestSelfModification_SameRunRemovesAnEnvironment: the run hands over, and its
// successor has the environments the commit has and no other.
func TestSelfModification_SameRunRemovesAnEnvironment(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	ctx := limited(t)
	const name = "same-run"
	p, _, ledger := newSmall(t, l, name)
	build := []string{". ./ledger.sh; did build"}
	two := config(build, dev(name), environment{name: "prod", region: "eu-central-1", account: aws.AccountTarget, stack: name})
	require.NoError(t, p.Apply(ctx, []byte(two)))

	run, status := finish(t, p, pushConfig(ctx, t, p, "remove prod", config(build, dev(name))+"selfModification: same-run\n"))
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	for _, node := range []string{"deploy-pipeline", "deploy-dev", "deploy-prod"} {
		require.Contains(t, status.Node(node).Message, "["+string(fault.HandedOver)+"]")
	}
	successor, err := p.Latest(ctx)
	require.NoError(t, err)
	require.NotEqual(t, run.Name, successor.Name)
	status, err = successor.Wait(ctx)
	require.NoError(t, err)
	if status.Node("validate").Output("proceed") == "false" { // Argo's cache still had the old template
		successor, err = p.Latest(ctx)
		require.NoError(t, err)
		status, err = successor.Wait(ctx)
		require.NoError(t, err)
	}
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Equal(t, "true", status.Node("deploy-dev").Output("deployed"))
	require.Empty(t, status.Node("deploy-prod").Phase)
	require.Empty(t, stackOutputs(t, l, aws.AccountTarget, "eu-central-1", name))
	require.Equal(t, 1, ledger.ran()["build"])
}
