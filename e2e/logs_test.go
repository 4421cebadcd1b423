package e2e

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/stagelog"
	"github.com/aphex-pipeline/aphex/internal/store"
)

// TestLogs_OfAFinishedStageAreInArgosLogPanel: the pod is gone, and Argo's
// server gives the bytes that are in the bucket, by each of the ways its user
// interface and people have.
func TestLogs_OfAFinishedStageAreInArgosLogPanel(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	argo := server(t, l)
	p, commit, _ := newSmall(t, l, "panel")
	run, status := finish(t, p, commit)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	ctx := limited(t)
	_, err := run.Until(ctx, "the pods are gone", func(lab.Status) bool {
		pods, err := l.Pods(ctx, run)
		return err == nil && len(pods) == 0
	})
	require.NoError(t, err)
	for _, stage := range []string{"validate", "build", "deploy-pipeline", "deploy-dev", "test-dev"} {
		node := status.Node(stage)
		want := object(t, l, node.Output("log-url"))
		require.Contains(t, want, "aphex: "+stage+" Succeeded\n")
		id := kube.NodeID(run.Name, node.Name)
		for name, path := range map[string]string{
			"download":  "/artifacts/" + run.Namespace + "/" + run.Name + "/" + id + "/main-logs",
			"log panel": "/artifact-files/" + run.Namespace + "/workflows/" + run.Name + "/" + id + "/outputs/main-logs",
		} {
			got, err := argo.Get(ctx, path)
			require.NoError(t, err, "%s of %s", name, stage)
			require.Equal(t, want, string(got), "%s of %s", name, stage)
		}
	}
}

// TestLogs_AreInTheBucketWhileTheStageRuns: what a command has said is in the
// bucket seconds later, stays there although the pod is taken away, and is the
// beginning of the complete log of the stage that the next pod resumes.
func TestLogs_AreInTheBucketWhileTheStageRuns(t *testing.T) {
	t.Parallel()
	resumesAKilledPod(t, pluginRunner())
}

func TestLogs_OfAStagePodAreInTheBucketWhileItRuns(t *testing.T) {
	t.Parallel()
	resumesAKilledPod(t, containerRunner())
}

func resumesAKilledPod(t *testing.T, r runner) {
	t.Helper()
	l := needLab(t)
	ctx := limited(t)
	run := holdBuild(ctx, t, l, "livelog"+r.suffix, r)
	p, status := run.p, run.status
	began := time.Now()

	bucket := store.NewS3(l.AWS.Config(aws.AccountTools, p.Installation.Region), p.Installation.Bucket, "")
	var log bytes.Buffer
	_, err := run.Until(ctx, "what the command said is in the bucket", func(lab.Status) bool {
		entries, err := stagelog.List(ctx, bucket, status.UID)
		require.NoError(t, err)
		log.Reset()
		for _, entry := range entries {
			if entry.Stage == "build" {
				require.NoError(t, stagelog.NewCursor(bucket, status.UID, entry).Copy(ctx, &log))
			}
		}
		return strings.Contains(log.String(), "build begins\n")
	})
	require.NoError(t, err)
	t.Logf("in the bucket after %s", time.Since(began).Round(time.Millisecond))
	require.Less(t, time.Since(began), time.Minute, "five seconds are promised; this machine is shared")

	killPods(ctx, t, l, run.Run)
	run.release()
	status, err = run.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	whole := object(t, l, status.Node("build").Output("log-url"))
	require.True(t, strings.HasPrefix(whole, log.String()), "%s\ndoes not begin with\n%s", whole, log.String())
	require.Contains(t, whole, "the plugin was restarted; the stage is resumed")
	require.Equal(t, 2, strings.Count(whole, "build begins\n"), whole)
	require.Equal(t, map[string]int{"build": 2, "synth": 1, "test": 1}, run.ledger.ran())
}

// killPods takes the run's pods away without a grace period.
func killPods(ctx context.Context, t *testing.T, l *lab.Lab, run *lab.Run) {
	t.Helper()
	pods, err := l.Pods(ctx, run)
	require.NoError(t, err)
	require.NotEmpty(t, pods)
	for _, pod := range pods {
		_, err := l.Kubectl(ctx, nil, "delete", "pod", "-n", run.Namespace, pod.Name, "--force", "--grace-period", "0")
		require.NoError(t, err)
	}
}
