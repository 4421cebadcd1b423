package sidecar_test

import (
	"net/http"
	"strings"
	"testing"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/tasks/task"
)

func TestConformance_RunningThenFinal(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := start(t, options{registry: task.Registry{task.StageBuild: g}, runs: newRuns()})
	reply := p.call(args(body(task.StageBuild)))
	require.Equal(t, wfv1.NodeRunning, reply.Node.Phase)
	require.NotEmpty(t, reply.Node.Message)
	close(g.open)
	final, _ := p.await(args(body(task.StageBuild)))
	require.Equal(t, wfv1.NodeSucceeded, final.Phase)
	require.Equal(t, "built", final.Message)
	require.Contains(t, parameters(final), "declared-by-template")
	require.Contains(t, parameters(final), task.OutputArtifactPath)
	require.True(t, strings.HasSuffix(parameters(final)[task.OutputLogURL], "/logs/build.log"), parameters(final))
}

var _ = http.StatusOK
