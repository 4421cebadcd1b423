package main

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/internal/stagelog"
	"github.com/aphex-pipeline/aphex/internal/store"
)

// screen is where a user sees the logs.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func writing(t *testing.T, bucket stagelog.Store, stage, epoch string) *stagelog.Log {
	t.Helper()
	return stagelog.Open(t.Context(), stagelog.Config{Dir: t.TempDir(), Store: bucket, Every: time.Millisecond},
		stagelog.ID{RunUID: "uid-1", Stage: stage, Epoch: epoch}, 1)
}

func TestLogs_FollowEndsWithTheStage(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	log := writing(t, bucket, "build", "2026-11-24T06:00:00Z")
	log.Append([]byte("one"))
	run := &runLogs{store: bucket, name: "shop-1", uid: "uid-1", over: func(context.Context) (bool, error) { return false, nil }}
	out, ended := &screen{}, make(chan error, 1)
	go func() { ended <- run.print(t.Context(), "build", true, out) }()
	require.Eventually(t, func() bool { return out.String() == "one\n" }, 20*time.Second, time.Millisecond)
	log.Append([]byte("two"))
	_, err := log.Finish(t.Context())
	require.NoError(t, err)
	require.NoError(t, <-ended)
	require.Equal(t, "one\ntwo\n", out.String())
}

func TestLogs_FollowOfAllStagesEndsWithTheRun(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	over := make(chan struct{})
	run := &runLogs{store: bucket, name: "shop-1", uid: "uid-1", over: func(context.Context) (bool, error) {
		select {
		case <-over:
			return true, nil
		default:
			return false, nil
		}
	}}
	out, ended := &screen{}, make(chan error, 1)
	go func() { ended <- run.print(t.Context(), "", true, out) }()
	build := writing(t, bucket, "build", "2026-11-24T06:00:00Z")
	build.Append([]byte("one"))
	_, err := build.Finish(t.Context())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return out.String() == "[build] one\n" }, 20*time.Second, time.Millisecond)
	// A stage whose process is killed leaves no complete log.
	killed := writing(t, bucket, "deploy-pipeline", "2026-11-24T06:00:00Z")
	killed.Append([]byte("two"))
	require.Eventually(t, func() bool { return out.String() == "[build] one\n[deploy-pipeline] two\n" }, 20*time.Second, time.Millisecond)
	killed.Detach(t.Context())
	close(over)
	require.NoError(t, <-ended)
	require.Equal(t, "[build] one\n[deploy-pipeline] two\n", out.String())
}

func TestLogs_RunIsFoundInTheCluster(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	client := s.Client(t)
	s.Put("workflows", kubetest.Object{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
		"metadata": map[string]any{"name": "shop-1", "namespace": "shop", "uid": "uid-1", "labels": map[string]any{"aphex.dev/pipeline": "shop"}},
	})
	s.Put("workflows", kubetest.Object{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": map[string]any{"name": "other", "namespace": "shop", "uid": "uid-2"},
	})
	f := lookupFlags{namespace: "shop"}
	uid, name, err := f.find(t.Context(), client, "shop-1")
	require.NoError(t, err)
	require.Equal(t, []string{"uid-1", "shop"}, []string{uid, name})
	_, _, err = f.find(t.Context(), client, "shop-2")
	require.Equal(t, fault.RunUnknown, fault.From(err).Reason)
	require.ErrorContains(t, err, "find run shop-2 in namespace shop")
	require.Contains(t, fault.From(err).Remedy, "--pipeline")
	_, _, err = f.find(t.Context(), client, "other")
	require.ErrorContains(t, err, "it has no label aphex.dev/pipeline")
	f.pipeline = "shop"
	uid, name, err = f.find(t.Context(), client, "uid-of-a-removed-run")
	require.NoError(t, err)
	require.Equal(t, []string{"uid-of-a-removed-run", "shop"}, []string{uid, name})

	_, err = f.bucket(t.Context(), client, "shop")
	require.Equal(t, fault.InstallationMissing, fault.From(err).Reason)
	s.Forbid("workflows", "get")
	_, _, err = f.find(t.Context(), client, "shop-1")
	require.ErrorIs(t, err, kube.ErrForbidden)
	require.Equal(t, fault.User, fault.From(err).Class)
}
