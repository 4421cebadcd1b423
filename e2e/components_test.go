package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/cluster"
	"github.com/aphex-pipeline/aphex/e2e/lab"
)

// apiServerAway is for how long the API server is away.
const apiServerAway = 20 * time.Second

// TestCluster_APIServerAwayWhileAStageEnds: the stage ends while nobody can be
// told; it is told afterwards, and not run again. No other test may be at work
// meanwhile.
func TestCluster_APIServerAwayWhileAStageEnds(t *testing.T) {
	l := needLab(t)
	ctx := limited(t)
	run := holdBuild(ctx, t, l, "away", pluginRunner())
	require.NoError(t, l.Cluster.Without(ctx, cluster.APIServer, func(ctx context.Context) error {
		run.release()
		_, err := l.Kubectl(ctx, nil, "get", "--raw", "/readyz", "--request-timeout", "5s")
		require.Error(t, err, "it is not away")
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(apiServerAway):
			return nil
		}
	}))
	status, err := run.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Equal(t, map[string]int{"build": 1, "synth": 1, "test": 1}, run.ledger.ran())
}

// TestCluster_PodStuckTerminating: the node no longer answers while the pod is
// to be deleted, so the pod neither goes nor is replaced. What runs in it goes
// on, and the run with it.
func TestCluster_PodStuckTerminating(t *testing.T) {
	l := needLab(t)
	ctx := limited(t)
	run := holdBuild(ctx, t, l, "stuck", pluginRunner())
	pods, err := l.Pods(ctx, run.Run)
	require.NoError(t, err)
	require.Len(t, pods, 1)
	require.NoError(t, l.Cluster.Without(ctx, cluster.Kubelet, func(ctx context.Context) error {
		if _, err := l.Kubectl(ctx, nil, "delete", "pod", "-n", run.Namespace, pods[0].Name, "--wait=false"); err != nil {
			return err
		}
		run.release()
		_, err := run.Until(ctx, "the build has ended", func(s lab.Status) bool { return s.Node("build").Phase == "Succeeded" })
		return err
	}))
	status, err := run.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Equal(t, 1, run.ledger.ran()["build"])
	_, err = run.Until(ctx, "the pod is gone", func(lab.Status) bool {
		pods, err := l.Pods(ctx, run.Run)
		return err == nil && len(pods) == 0
	})
	require.NoError(t, err)
}
