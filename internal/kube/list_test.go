package kube_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
)

func TestEachWorkflow_PageByPage(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	for i := range 250 {
		s.Put("workflows", workflow(fmt.Sprintf("shop-%03d", i)))
	}
	other := workflow("other")
	other["metadata"].(map[string]any)["labels"] = map[string]any{"aphex.dev/pipeline": "other"}
	s.Put("workflows", other)
	var names []string
	require.NoError(t, s.Client(t).EachWorkflow(t.Context(), "shop", "aphex.dev/pipeline=shop", func(w *kube.Workflow) error {
		names = append(names, w.Name)
		return nil
	}))
	require.Len(t, names, 250)
	require.Equal(t, "shop-249", names[249])
	require.Len(t, s.Calls(), 3, "a hundred at a time")
}

func TestLabelWorkflow_OnlyItsOwn(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	s.Put("workflows", workflow("shop-1"))
	c := s.Client(t)
	w, err := c.LabelWorkflow(t.Context(), "shop", "shop-1", "uid-shop-1", map[string]string{"a": "1", "b": "2"})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"aphex.dev/pipeline": "shop", "a": "1", "b": "2"}, w.Labels)
	w, err = c.LabelWorkflow(t.Context(), "shop", "shop-1", "uid-shop-1", map[string]string{"a": ""})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"aphex.dev/pipeline": "shop", "b": "2"}, w.Labels, "empty removes")
	_, err = c.LabelWorkflow(t.Context(), "shop", "shop-1", "another", map[string]string{"a": "1"})
	require.ErrorIs(t, err, kube.ErrConflict)
}

func agentPod(phase string) kubetest.Object {
	return kubetest.Object{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{
			"name": "shop-1-1340600742-agent", "namespace": "shop", "uid": "pod-1",
			"labels": map[string]any{"workflows.argoproj.io/component": "agent", "workflows.argoproj.io/workflow": "shop-1"},
		},
		"status": map[string]any{
			"phase": phase, "reason": "NodeShutdown",
			"containerStatuses": []any{
				map[string]any{"name": "main", "state": map[string]any{"terminated": map[string]any{"exitCode": 137, "reason": "OOMKilled"}}},
				map[string]any{"name": "worker", "state": map[string]any{"terminated": map[string]any{"exitCode": 0}}},
				map[string]any{"name": "plugin", "state": map[string]any{"running": map[string]any{}}},
			},
		},
	}
}

func TestPods_View(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	s.Put("pods", agentPod("Failed"))
	c := s.Client(t)
	pods, err := c.Pods(t.Context(), "shop", kube.SelectAgentPods)
	require.NoError(t, err)
	require.Len(t, pods, 1)
	require.Equal(t, "shop-1", pods[0].Workflow)
	require.Equal(t, kube.AgentPodName("shop-1"), pods[0].Name)
	require.True(t, pods[0].Over())
	require.False(t, pods[0].Deleting)
	require.Equal(t, "NodeShutdown, container main ended with exit code 137 OOMKilled", pods[0].Cause)
	pod, err := c.Pod(t.Context(), "shop", pods[0].Name)
	require.NoError(t, err)
	require.Equal(t, pods[0], pod)
}

func TestDeletePod_OnlyAsItWasRead(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	s.Put("pods", agentPod("Failed"))
	c := s.Client(t)
	pod, err := c.Pod(t.Context(), "shop", "shop-1-1340600742-agent")
	require.NoError(t, err)
	s.Put("pods", agentPod("Running"))
	require.ErrorIs(t, c.DeletePod(t.Context(), pod), kube.ErrConflict)
	pod, err = c.Pod(t.Context(), "shop", pod.Name)
	require.NoError(t, err)
	require.NoError(t, c.DeletePod(t.Context(), pod))
	require.ErrorIs(t, c.DeletePod(t.Context(), pod), kube.ErrNotFound)
}
