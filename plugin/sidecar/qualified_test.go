package sidecar_test

import (
	"testing"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// TestConformance_QualifiedSuccess: a stage that was passed over says so by
// the same code that records carry.
func TestConformance_QualifiedSuccess(t *testing.T) {
	t.Parallel()
	passedOver := task.Result{Message: "dev was passed over", Reason: string(fault.Superseded), Outputs: map[string]string{task.OutputDeployed: "false"}}
	p := start(t, options{registry: task.Registry{task.StageDeployEnv: returns(passedOver, nil)}, runs: newRuns()})
	final, _ := p.await(args(body(task.StageDeployEnv, "environment", "dev")))
	require.Equal(t, wfv1.NodeSucceeded, final.Phase)
	require.Equal(t, "dev was passed over [Superseded]", final.Message)
	require.Equal(t, "false", parameters(final)[task.OutputDeployed])
}
