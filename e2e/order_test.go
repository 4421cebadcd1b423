package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

// TestRuns_OfOnePipelineNeverGoBack: two commits pushed together queue up, an
// older one submitted by hand is passed over, and deploys when that is asked
// for.
//
// Feature: aphex-pipeline, Property 25: Commit-specific CDK code usage
func TestRuns_OfOnePipelineNeverGoBack(t *testing.T) {
	t.Parallel()
	neverGoBack(t, pluginRunner())
}

func TestRuns_InStagePodsNeverGoBack(t *testing.T) {
	t.Parallel()
	neverGoBack(t, containerRunner())
}

func neverGoBack(t *testing.T, r runner) {
	t.Helper()
	l := needLab(t)
	name := "order" + r.suffix
	p, first, ledger := newSmall(t, l, name, r.use)
	second, err := p.Push(t.Context(), gitserver.Change{Write: smallTemplate(t, name, "two")})
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), 2*runLimit)
	defer cancel()
	release := ledger.hold("build") // so that it is at work when the second comes
	defer release()
	one, err := p.Submit(ctx, first)
	require.NoError(t, err)
	// The queue is ordered by whole seconds: make the order of creation the
	// order of the queue.
	created := time.Now().Truncate(time.Second)
	_, err = one.Until(ctx, "a second has passed", func(lab.Status) bool { return time.Now().Truncate(time.Second).After(created) })
	require.NoError(t, err)
	two, err := p.Submit(ctx, second)
	require.NoError(t, err)

	waiting, err := two.Until(ctx, "the second run waits for the lock", func(s lab.Status) bool { return s.Phase == "Pending" && s.Message != "" })
	require.NoError(t, err)
	require.Contains(t, waiting.Message, "lock")
	release()
	for _, run := range []*lab.Run{one, two} {
		status, err := run.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	}
	require.Equal(t, "two", parameter(t, l, "/e2e/"+name))

	_, status := finish(t, p, first)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	node := status.Node("deploy-dev")
	require.Equal(t, "false", node.Output("deployed"))
	require.Contains(t, node.Message, "["+string(fault.Superseded)+"]")
	require.Equal(t, "Skipped", status.Node("test-dev").Phase)
	require.Equal(t, "two", parameter(t, l, "/e2e/"+name))

	_, status = finish(t, p, first, "allow-older=true")
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Equal(t, "true", status.Node("deploy-dev").Output("deployed"))
	require.Equal(t, "one", parameter(t, l, "/e2e/"+name))
}

// TestRun_StaleTopologyIsReplaced: a run adds an environment to the pipeline
// while another one waits with the old topology. That one starts its own
// replacement, which has the new environment, and ends.
//
// Feature: aphex-pipeline, Property 7: Self-modification visibility
func TestRun_StaleTopologyIsReplaced(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	p, _, ledger := newSmall(t, l, "stale")
	after := config([]string{". ./ledger.sh; did build"}, dev("stale"), environment{name: "prod", region: "eu-central-1", account: "222222222222", stack: "stale"})
	commit, err := p.Push(t.Context(), gitserver.Change{Write: map[string]string{"aphex-config.yaml": after}})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*runLimit)
	defer cancel()
	release := ledger.hold("build")
	defer release()
	first, err := p.Submit(ctx, commit)
	require.NoError(t, err)
	_, err = first.Until(ctx, "the first run holds the lock", func(s lab.Status) bool { return s.Phase == "Running" })
	require.NoError(t, err)
	waiting, err := p.Submit(ctx, commit)
	require.NoError(t, err)
	release()

	status, err := first.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Contains(t, status.Node("deploy-pipeline").Message, "deploy-prod", "the stage says what waits for the next run")
	require.Empty(t, status.Node("deploy-prod").Phase, "a run keeps the nodes it began with")

	status, err = waiting.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Equal(t, "false", status.Node("validate").Output("proceed"))
	require.Equal(t, "Skipped", status.Node("build").Phase)
	require.Equal(t, "Omitted", status.Node("deploy-dev").Phase)

	replacement, err := p.Latest(ctx)
	require.NoError(t, err)
	require.Contains(t, status.Node("validate").Message, replacement.Name)
	status, err = replacement.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Equal(t, "true", status.Node("deploy-prod").Output("deployed"))
}
