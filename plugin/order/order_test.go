package order_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/plugin/order"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// ask runs the stage in a Workflow whose stages have the given nodes: a phase,
// and after a blank a message. Its own node is that of deploy-dev.
func ask(t *testing.T, guard func(task.Registry, order.Workflows) task.Registry, stage string, stages map[string]string) (ran bool, err error) {
	t.Helper()
	s := kubetest.New(t)
	nodes := map[string]any{"shop-1": map[string]any{"id": "shop-1", "name": "shop-1", "phase": "Running"}}
	for name, node := range stages {
		full := "shop-1." + name
		phase, message, _ := strings.Cut(node, " ")
		nodes[kube.NodeID("shop-1", full)] = map[string]any{"id": kube.NodeID("shop-1", full), "name": full, "phase": phase, "message": message}
	}
	s.Put("workflows", kubetest.Object{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
		"metadata": map[string]any{"name": "shop-1", "namespace": "shop", "uid": "uid-1"},
		"status":   map[string]any{"phase": "Running", "nodes": nodes},
	})
	runner := task.RunnerFunc(func(context.Context, task.Request, task.Env) (task.Result, error) {
		ran = true
		return task.Result{}, nil
	})
	guarded := guard(task.Registry{task.StageDeployEnv: runner, task.StageFinish: runner}, s.Client(t))
	_, err = guarded[stage].Run(t.Context(), task.Request{
		Run: task.Run{Namespace: "shop", Name: "shop-1", UID: "uid-1"}, Stage: stage, Node: "shop-1.deploy-dev",
	}, task.Env{})
	return ran, err
}

// requireRefused checks whether deploy-dev was refused.
func requireRefused(t *testing.T, refused, ran bool, err error) {
	t.Helper()
	require.Equal(t, !refused, ran)
	if !refused {
		require.NoError(t, err)
		return
	}
	require.Equal(t, fault.OutOfOrder, fault.From(err).Reason)
}

func TestGuard_StagesFollowOneAnother(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		phases map[string]string
		want   bool
	}{
		"in order":                     {map[string]string{"validate": "Succeeded", "build": "Succeeded", "deploy-pipeline": "Succeeded", "deploy-dev": "Pending"}, true},
		"deploy-pipeline may fail":     {map[string]string{"build": "Succeeded", "deploy-pipeline": "Failed", "deploy-dev": "Pending"}, true},
		"passed over":                  {map[string]string{"build": "Succeeded", "deploy-qa": "Succeeded", "test-qa": "Skipped"}, true},
		"the exit handler is no stage": {map[string]string{"onExit": "Pending"}, true},
		"own attempt":                  {map[string]string{"build": "Succeeded", "deploy-dev": "Pending", "deploy-dev(0)": "Pending"}, true},
		"a lost attempt":               {map[string]string{"build": "Succeeded", "build(0)": "Error", "build(1)": "Succeeded"}, true},
		"all attempts failed":          {map[string]string{"build": "Failed", "build(0)": "Failed"}, false},
		"all at once":                  {map[string]string{"validate": "Pending", "build": "Pending", "deploy-dev": "Pending", "test-dev": "Pending"}, false},
		"beside a running stage":       {map[string]string{"validate": "Succeeded", "build": "Running", "deploy-dev": "Pending"}, false},
		"after a failed stage":         {map[string]string{"validate": "Succeeded", "build": "Failed", "deploy-dev": "Pending"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ran, err := ask(t, order.Guard, task.StageDeployEnv, c.phases)
			requireRefused(t, !c.want, ran, err)
		})
	}
	ran, err := ask(t, order.Guard, task.StageFinish, map[string]string{"build": "Failed", "deploy-dev": "Running"})
	require.NoError(t, err)
	require.True(t, ran, "finish comes after everything")
}

func TestGuardPods_ResultsAreTheRunsOwn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		nodes   map[string]string
		refused bool
	}{
		"in order":                       {map[string]string{"build": "Succeeded", "build(0)": "Succeeded", "deploy-dev": "Running", "deploy-dev(0)": "Pending"}, false},
		"passed over":                    {map[string]string{"build": "Succeeded", "test-qa": "Skipped when 'false == true' evaluated false"}, false},
		"the end before is not seen yet": {map[string]string{"build": "Running", "build(0)": "Running", "deploy-dev": "Running", "deploy-dev(0)": "Pending"}, false},
		"the build is of another run":    {map[string]string{"build": "Succeeded", "build(0)": "Skipped original pod: shop-0-123", "deploy-dev(1)": "Pending"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ran, err := ask(t, order.GuardPods, task.StageDeployEnv, c.nodes)
			requireRefused(t, c.refused, ran, err)
			if c.refused {
				require.ErrorContains(t, err, "the result of build is that of another run")
			}
		})
	}
	ran, err := ask(t, order.GuardPods, task.StageFinish, map[string]string{"build(0)": "Skipped original pod: shop-0-123"})
	requireRefused(t, false, ran, err)
}
