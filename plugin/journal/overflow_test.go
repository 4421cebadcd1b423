package journal_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// text is JSON of about n bytes that differs by name.
func text(name string, n int) []byte {
	return []byte(`"` + name + strings.Repeat("x", n) + `"`)
}

// data is what the run's ConfigMap holds.
func data(t *testing.T, s *kubetest.Server) map[string]any {
	t.Helper()
	d, ok := s.Get("configmaps", "shop", journal.Name("uid-1"))["data"].(map[string]any)
	require.True(t, ok)
	return d
}

func objects(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "runs", "uid-1", "journal", "*.json"))
	require.NoError(t, err)
	return files
}

// The largest run there may be: 25 stages with the largest reply each, the
// last of which deploys 50 stacks at once. Every ConfigMap that is sent fits,
// and nothing is forgotten.
func TestKube_HoldsTheLargestRun(t *testing.T) {
	t.Parallel()
	s, dir := kubetest.New(t), t.TempDir()
	open := func(pod string) journal.Book {
		b, err := journal.NewKube(s.Client(t), pod, "shop").WithOverflow(store.NewDir(dir)).Open(t.Context(), run())
		require.NoError(t, err)
		return b
	}
	ctx, b := t.Context(), open("pod-1")
	const stages, stacks, effects = 25, 50, 3
	for i := range stages {
		e := entry(fmt.Sprintf("shop-1.stage-%d", i))
		e.StartedAt = e.StartedAt.Add(time.Duration(i) * time.Minute)
		_, err := b.Begin(ctx, e)
		require.NoError(t, err)
		if i < stages-1 {
			require.NoError(t, b.PutEffect(ctx, e.Key, "small", []byte(`1`)))
			_, err = b.End(ctx, e.Key, text(e.Node, 64<<10), "Succeeded", e.StartedAt)
			require.NoError(t, err)
		}
	}
	last := entry(fmt.Sprintf("shop-1.stage-%d", stages-1))
	var wg sync.WaitGroup
	for stack := range stacks {
		wg.Go(func() {
			for n := range effects {
				if err := b.PutEffect(ctx, last.Key, fmt.Sprintf("stack-%d-%d", stack, n), text("", 4000)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, c := range s.Calls() {
		require.Less(t, len(c.Body), 1<<20, "a ConfigMap holds 1 MiB")
	}
	require.Equal(t, "2", data(t, s)["schema"])
	require.NotEmpty(t, objects(t, dir))

	b = open("pod-2")
	all, err := b.Entries(ctx)
	require.NoError(t, err)
	require.Len(t, all, stages)
	for i, e := range all[:stages-1] {
		require.Equal(t, string(text(fmt.Sprintf("shop-1.stage-%d", i), 64<<10)), string(e.Final), "byte for byte")
		require.Len(t, e.Effects, 1)
	}
	require.Len(t, all[stages-1].Effects, stacks*effects)
	_, err = b.End(ctx, last.Key, text("end", 10), "Succeeded", time.Now())
	require.NoError(t, err)
}

func TestKube_EarlierTriesStayReadableBesideTheBucket(t *testing.T) {
	t.Parallel()
	s, dir := kubetest.New(t), t.TempDir()
	b, err := journal.NewKube(s.Client(t), "pod-1", "shop").WithOverflow(store.NewDir(dir)).Open(t.Context(), run())
	require.NoError(t, err)
	for i := range 20 {
		e := entry("shop-1.build")
		e.Epoch = fmt.Sprintf("2026-11-24T06:%02d:00Z", i)
		e.StartedAt = e.StartedAt.Add(time.Duration(i) * time.Minute)
		r := task.Request{Run: task.Run{UID: "uid-1", Epoch: e.Epoch}, Node: e.Node}
		e.Key = r.Key()
		_, err := b.Begin(t.Context(), e)
		require.NoError(t, err)
		_, err = b.End(t.Context(), e.Key, text(e.Epoch, 60<<10), "Failed", e.StartedAt)
		require.NoError(t, err)
	}
	written := len(objects(t, dir))
	require.Less(t, written, 20, "the newest stay where they are, and none is written twice")
	b, err = journal.NewKube(s.Client(t), "pod-2", "shop").WithOverflow(store.NewDir(dir)).Open(t.Context(), run())
	require.NoError(t, err)
	all, err := b.Entries(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 20)
	for _, e := range all {
		require.Equal(t, string(text(e.Epoch, 60<<10)), string(e.Final))
	}
	require.Len(t, objects(t, dir), written)
}

func TestKube_SmallRunsNeedNoBucketAndStayReadableForTheVersionBefore(t *testing.T) {
	t.Parallel()
	s, dir := kubetest.New(t), t.TempDir()
	b, err := journal.NewKube(s.Client(t), "pod-1", "shop").WithOverflow(store.NewDir(dir)).Open(t.Context(), run())
	require.NoError(t, err)
	_, err = b.Begin(t.Context(), entry("shop-1.build"))
	require.NoError(t, err)
	require.Equal(t, "1", data(t, s)["schema"])
	require.Empty(t, objects(t, dir))
}

// full is a journal one entry of which is in the bucket.
func full(t *testing.T) (s *kubetest.Server, dir string) {
	t.Helper()
	s, dir = kubetest.New(t), t.TempDir()
	b, err := journal.NewKube(s.Client(t), "pod-1", "shop").WithOverflow(store.NewDir(dir)).Open(t.Context(), run())
	require.NoError(t, err)
	for i := range 16 {
		e := entry(fmt.Sprintf("shop-1.stage-%d", i))
		_, err := b.Begin(t.Context(), e)
		require.NoError(t, err)
		_, err = b.End(t.Context(), e.Key, text("", 60<<10), "Succeeded", time.Now())
		require.NoError(t, err)
	}
	require.NotEmpty(t, objects(t, dir))
	return s, dir
}

func TestKube_RefusesAnEntryThatIsNotTheOneItWrote(t *testing.T) {
	t.Parallel()
	s, dir := full(t)
	for _, file := range objects(t, dir) {
		raw, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, bytes.Replace(raw, []byte("Succeeded"), []byte("Failed000"), 1), 0o600))
	}
	_, err := journal.NewKube(s.Client(t), "pod-2", "shop").WithOverflow(store.NewDir(dir)).Open(t.Context(), run())
	require.Error(t, err)
	_, err = journal.NewKube(s.Client(t), "pod-2", "shop").Open(t.Context(), run())
	require.Equal(t, fault.JournalInvalid, fault.From(err).Reason, "without a bucket it cannot be read")
	require.ErrorContains(t, err, "is in the bucket as runs/uid-1/journal/")
}

func TestKube_NewerSchemaIsRefusedAndLeftAlone(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	openKube(t, s, "pod-1")
	s.Change("configmaps", "shop", journal.Name("uid-1"), func(o kubetest.Object) {
		d, _ := o["data"].(map[string]any)
		maps.Copy(d, map[string]any{"schema": "3", "something": "new"})
	})
	before, err := json.Marshal(data(t, s))
	require.NoError(t, err)
	_, err = journal.NewKube(s.Client(t), "pod-2", "shop").Open(t.Context(), run())
	require.Equal(t, fault.JournalInvalid, fault.From(err).Reason)
	require.ErrorContains(t, err, "a newer version of aphex has written it: its schema is 3, this version reads up to 2")
	require.Contains(t, fault.From(err).Remedy, "or a newer one")
	after, err := json.Marshal(data(t, s))
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))
}

// The right to change is as necessary as that to create, and is found missing
// before anything is done.
func TestKube_MissingRightToUpdateIsFoundAtOnce(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	s.Forbid("configmaps", "update")
	_, err := journal.NewKube(s.Client(t), "pod-1", "shop").Open(t.Context(), run())
	f := fault.From(err)
	require.Equal(t, fault.KubernetesRejected, f.Reason)
	require.Contains(t, f.Remedy, "get, create and update on config maps")
}

// Somebody deletes the ConfigMap, and the pod that was fenced long ago writes
// it anew: the pod that has the run goes on.
func TestKube_DeletedJournalDoesNotComeBackToTheOlderPod(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	old := openKube(t, s, "pod-1")
	e := entry("shop-1.build")
	_, err := old.Begin(t.Context(), e)
	require.NoError(t, err)
	fresh := openKube(t, s, "pod-2")
	require.NoError(t, fresh.PutEffect(t.Context(), e.Key, "changeset", []byte(`2`)))
	s.Delete("configmaps", "shop", journal.Name("uid-1"))
	require.NoError(t, old.PutEffect(t.Context(), e.Key, "late", []byte(`1`)), "it cannot know yet")

	require.NoError(t, fresh.PutEffect(t.Context(), e.Key, "executed", []byte(`3`)))
	require.ErrorIs(t, old.PutEffect(t.Context(), e.Key, "late", []byte(`1`)), journal.ErrFenced)
	again, ok, err := openKube(t, s, "pod-2").Entry(t.Context(), e.Key)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, map[string]json.RawMessage{"changeset": []byte(`2`), "executed": []byte(`3`)}, again.Effects)
}
