package kube_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
)

func workflow(name string) kubetest.Object {
	return kubetest.Object{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
		"metadata": map[string]any{
			"name": name, "namespace": "shop", "uid": "uid-" + name,
			"labels": map[string]any{"aphex.dev/pipeline": "shop"},
		},
		"spec": map[string]any{
			"shutdown":            "Stop",
			"workflowTemplateRef": map[string]any{"name": "shop"},
			"arguments": map[string]any{"parameters": []any{
				map[string]any{"name": "commit-sha", "value": "abc"}, map[string]any{"name": "count", "value": 3}, map[string]any{"name": "unset"},
			}},
		},
		"status": map[string]any{
			"phase": "Running", "startedAt": "2026-11-24T07:00:00+01:00",
			"nodes": map[string]any{
				kube.NodeID(name, name+".build"): map[string]any{"name": name + ".build", "phase": "Succeeded", "message": "built"},
				name:                             map[string]any{"name": name, "phase": "Running"},
			},
		},
	}
}

func TestWorkflow_View(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	s.Put("workflows", workflow("shop-1"))
	w, err := s.Client(t).Workflow(t.Context(), "shop", "shop-1")
	require.NoError(t, err)
	require.Equal(t, "uid-shop-1", w.UID)
	require.Equal(t, "2026-11-24T06:00:00Z", w.StartedAt.Format(time.RFC3339))
	require.Equal(t, "Stop", w.Shutdown)
	require.Equal(t, "shop", w.TemplateName)
	require.Equal(t, map[string]string{"commit-sha": "abc", "count": "3"}, w.Parameters)
	require.Equal(t, kube.PhaseSucceeded, w.NodePhase("shop-1.build"))
	require.Equal(t, kube.PhaseRunning, w.NodePhase("shop-1"))
	require.Empty(t, w.NodePhase("shop-1.test"))
	require.False(t, w.Finished())
	nodes, fulfilled := w.Progress()
	require.Equal(t, []int{2, 1}, []int{nodes, fulfilled})
	n, ok := w.Node("shop-1")
	require.True(t, ok)
	require.Equal(t, "Running", n.Phase)
}

func TestWorkflow_CompressedNodes(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	zw := gzip.NewWriter(&packed)
	_, err := zw.Write([]byte(`{"shop-1":{"name":"shop-1","phase":"Failed"}}`))
	require.NoError(t, err)
	require.NoError(t, zw.Close())
	o := workflow("shop-1")
	o["status"] = map[string]any{"phase": "Failed", "compressedNodes": base64.StdEncoding.EncodeToString(packed.Bytes())}
	s := kubetest.New(t)
	s.Put("workflows", o)
	w, err := s.Client(t).Workflow(t.Context(), "shop", "shop-1")
	require.NoError(t, err)
	require.Equal(t, kube.PhaseFailed, w.NodePhase("shop-1"))
	require.True(t, w.Finished())
	require.True(t, w.StartedAt.IsZero())
}

// The ids are those that Argo v3.7.18 gives to these names.
func TestNodeID(t *testing.T) {
	t.Parallel()
	require.Equal(t, "shop-1", kube.NodeID("shop-1", "shop-1"))
	require.Equal(t, "my-wf-1340600742", kube.NodeID("my-wf", "agent"), "the agent pod's constant")
	require.NotEqual(t, kube.NodeID("shop-1", "shop-1.a"), kube.NodeID("shop-1", "shop-1.a(0)"))
}

func TestErrors_AreClassified(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	c := s.Client(t)
	_, err := c.Workflow(t.Context(), "shop", "none")
	require.ErrorIs(t, err, kube.ErrNotFound)
	require.ErrorContains(t, err, "get workflow shop/none")
	_, err = c.CreateWorkflow(t.Context(), "shop", workflow("shop-1"))
	require.NoError(t, err)
	_, err = c.CreateWorkflow(t.Context(), "shop", workflow("shop-1"))
	require.ErrorIs(t, err, kube.ErrExists)
	require.NotErrorIs(t, err, kube.ErrConflict)
	s.Forbid("workflowtemplates", "get")
	_, err = c.WorkflowTemplate(t.Context(), "shop", "shop")
	require.ErrorIs(t, err, kube.ErrForbidden)
	s.Deny(func(kubetest.Call) *metav1.Status { return &metav1.Status{Code: http.StatusTeapot, Message: "tea"} })
	_, err = c.TaskSet(t.Context(), "shop", "shop-1")
	require.Error(t, err)
	for _, class := range []error{kube.ErrNotFound, kube.ErrConflict, kube.ErrExists, kube.ErrForbidden} {
		require.NotErrorIs(t, err, class)
	}
}

func TestAnnotateWorkflow_OnlyItsOwn(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	s.Put("workflows", workflow("shop-1"))
	c := s.Client(t)
	w, err := c.AnnotateWorkflow(t.Context(), "shop", "shop-1", "uid-shop-1", map[string]string{"aphex.dev/nudge": "1"})
	require.NoError(t, err)
	require.Equal(t, "1", w.Annotations["aphex.dev/nudge"])
	require.Equal(t, "Running", w.Phase, "nothing else is touched")
	_, err = c.AnnotateWorkflow(t.Context(), "shop", "shop-1", "uid-other", map[string]string{"aphex.dev/nudge": "2"})
	require.ErrorIs(t, err, kube.ErrConflict)
	calls := s.Calls()
	require.JSONEq(t, `{"metadata":{"uid":"uid-other","annotations":{"aphex.dev/nudge":"2"}}}`, string(calls[len(calls)-1].Body))
}

func TestConfigMap_OptimisticConcurrency(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	c := s.Client(t)
	cm := &kube.ConfigMap{
		Namespace: "shop", Name: "aphex-state-shop", Labels: map[string]string{"a": "b"},
		Data: map[string]string{"k": "1"}, Owner: kube.WorkflowOwner("shop-1", "uid-shop-1"),
	}
	created, err := c.CreateConfigMap(t.Context(), cm)
	require.NoError(t, err)
	require.NotEmpty(t, created.ResourceVersion)
	require.Equal(t, cm.Owner, created.Owner)
	_, err = c.CreateConfigMap(t.Context(), cm)
	require.ErrorIs(t, err, kube.ErrExists)

	read, err := c.ConfigMap(t.Context(), "shop", "aphex-state-shop")
	require.NoError(t, err)
	require.Equal(t, created, read)
	read.Data["k"] = "2"
	_, err = c.UpdateConfigMap(t.Context(), read)
	require.NoError(t, err)
	created.Data["k"] = "3"
	_, err = c.UpdateConfigMap(t.Context(), created)
	require.ErrorIs(t, err, kube.ErrConflict, "based on an outdated version")
	created.ResourceVersion = ""
	_, err = c.UpdateConfigMap(t.Context(), created)
	require.ErrorIs(t, err, kube.ErrConflict, "never unconditionally")

	read, err = c.ConfigMap(t.Context(), "shop", "aphex-state-shop")
	require.NoError(t, err)
	require.Equal(t, "2", read.Data["k"])
	require.NoError(t, c.DeleteConfigMap(t.Context(), "shop", "aphex-state-shop"))
	require.ErrorIs(t, c.DeleteConfigMap(t.Context(), "shop", "aphex-state-shop"), kube.ErrNotFound)
}

func manifest(t *testing.T, value string) *unstructured.Unstructured {
	t.Helper()
	obj, err := kube.ParseManifest([]byte(`
apiVersion: argoproj.io/v1alpha1
kind: WorkflowTemplate
metadata: {name: shop, namespace: shop, resourceVersion: "7", managedFields: [{manager: x}]}
spec: {entrypoint: ` + value + `}
`))
	require.NoError(t, err)
	return obj
}

func TestApply_CreatedUnchangedConfigured(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	c := s.Client(t)
	for _, step := range []struct {
		value string
		want  kube.Change
	}{{"main", kube.Created}, {"main", kube.Unchanged}, {"other", kube.Configured}, {"other", kube.Unchanged}} {
		change, err := c.Apply(t.Context(), manifest(t, step.value), kube.ApplyOptions{})
		require.NoError(t, err)
		require.Equal(t, step.want, change)
	}
	for _, call := range s.Calls() {
		if call.Verb == "patch" {
			require.Equal(t, "application/apply-patch+yaml", call.ContentType)
			require.Contains(t, call.Query, "fieldManager=aphex")
			require.NotContains(t, call.Query, "force=true")
			require.NotContains(t, string(call.Body), "resourceVersion")
		}
	}
}

// Feature: aphex-pipeline, Property 26: Cluster resource isolation
func TestApply_NeverTakesForeignFields(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	c := s.Client(t)
	s.Put("workflowtemplates", manifest(t, "main").Object)
	owner := "kubectl-client-side-apply"
	s.Own("workflowtemplates", "shop", "shop", owner, ".spec.entrypoint")

	_, err := c.Apply(t.Context(), manifest(t, "other"), kube.ApplyOptions{})
	require.ErrorIs(t, err, kube.ErrConflict)
	require.ErrorContains(t, err, `apply WorkflowTemplate shop/shop: .spec.entrypoint is owned by "kubectl-client-side-apply"`)
	spec, _ := s.Get("workflowtemplates", "shop", "shop")["spec"].(map[string]any)
	require.Equal(t, "main", spec["entrypoint"])

	change, err := c.Apply(t.Context(), manifest(t, "other"), kube.ApplyOptions{Owned: []string{owner}})
	require.NoError(t, err)
	require.Equal(t, kube.Configured, change)
	spec, _ = s.Get("workflowtemplates", "shop", "shop")["spec"].(map[string]any)
	require.Equal(t, "other", spec["entrypoint"])
}

func TestApply_DryRunStoresNothing(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	_, err := s.Client(t).Apply(t.Context(), manifest(t, "main"), kube.ApplyOptions{DryRun: true})
	require.NoError(t, err)
	require.Nil(t, s.Get("workflowtemplates", "shop", "shop"))
}

func TestParseManifest_Refusals(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no kind":      "apiVersion: v1\nmetadata: {name: a}",
		"no name":      "apiVersion: v1\nkind: ConfigMap",
		"not yaml":     "\t: {",
		"a list":       "[1]",
		"key repeated": "apiVersion: v1\nkind: ConfigMap\nkind: Secret\nmetadata: {name: a}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := kube.ParseManifest([]byte(text))
			require.Error(t, err)
		})
	}
}

func TestWatchWorkflow_SurvivesDroppedAndExpiredWatches(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	s.Put("workflows", workflow("shop-1"))
	s.Put("workflows", workflow("shop-2"))
	var mu sync.Mutex
	expired := false
	s.Deny(func(c kubetest.Call) *metav1.Status {
		mu.Lock()
		defer mu.Unlock()
		if c.Verb == "watch" && !expired {
			expired = true
			return kubetest.Status(http.StatusGone, metav1.StatusReasonExpired, "too old resource version")
		}
		return nil
	})
	seen := make(chan string, 100)
	done := make(chan error, 1)
	go func() {
		done <- s.Client(t).WatchWorkflow(t.Context(), "shop", "shop-1", func(w *kube.Workflow) bool {
			seen <- w.Name + "/" + w.Phase
			return w.Phase == "Succeeded"
		})
	}()
	require.Equal(t, "shop-1/Running", <-seen)
	require.Equal(t, "shop-1/Running", <-seen, "read anew after the expired watch")
	s.DropWatches()
	setPhase := func(name, phase string) {
		s.Change("workflows", "shop", name, func(o kubetest.Object) { o["status"] = map[string]any{"phase": phase} })
	}
	setPhase("shop-2", "Failed")
	setPhase("shop-1", "Succeeded")
	require.NoError(t, <-done)
	for len(seen) > 0 {
		require.NotContains(t, <-seen, "shop-2")
	}
}

func TestWatchWorkflow_Ends(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	c := s.Client(t)
	never := func(*kube.Workflow) bool { return false }
	require.ErrorIs(t, c.WatchWorkflow(t.Context(), "shop", "shop-1", never), kube.ErrNotFound)

	s.Put("workflows", workflow("shop-1"))
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := context.DeadlineExceeded
	err := c.WatchWorkflow(ctx, "shop", "shop-1", func(*kube.Workflow) bool { cancel(cause); return false })
	require.ErrorIs(t, err, cause)

	err = c.WatchWorkflow(t.Context(), "shop", "shop-1", func(*kube.Workflow) bool {
		go s.Delete("workflows", "shop", "shop-1")
		return false
	})
	require.ErrorIs(t, err, kube.ErrNotFound)

	s.Put("workflows", workflow("shop-1"))
	s.Forbid("workflows", "watch")
	require.ErrorIs(t, c.WatchWorkflow(t.Context(), "shop", "shop-1", never), kube.ErrForbidden)
}

func TestWatchTaskSet_View(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	s.Put("workflowtasksets", kubetest.Object{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTaskSet",
		"metadata": map[string]any{"name": "shop-1", "namespace": "shop", "labels": map[string]any{"workflows.argoproj.io/completed": "true"}},
		"spec":     map[string]any{"tasks": map[string]any{"a": map[string]any{}}},
		"status":   map[string]any{"nodes": map[string]any{"a": map[string]any{"phase": "Failed", "message": "no"}, "odd": "x"}},
	})
	var got *kube.TaskSet
	require.NoError(t, s.Client(t).WatchTaskSet(t.Context(), "shop", "shop-1", func(ts *kube.TaskSet) bool { got = ts; return true }))
	require.True(t, got.Completed)
	require.Equal(t, map[string]bool{"a": true}, got.Tasks)
	require.Equal(t, map[string]kube.NodeResult{"a": {Phase: "Failed", Message: "no"}}, got.Results)
}
