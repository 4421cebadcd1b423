package journal_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

func run() task.Run {
	return task.Run{Namespace: "shop", Name: "shop-1", UID: "uid-1", Epoch: "2026-11-24T06:00:00Z"}
}

func entry(node string) journal.Entry {
	r := task.Request{Run: run(), Node: node, Stage: task.StageBuild}
	return journal.Entry{
		Key: r.Key(), Stage: r.Stage, Node: node, Epoch: r.Run.Epoch, Digest: "sha256:00",
		StartedAt: time.Date(2026, 11, 24, 6, 0, 1, 0, time.UTC),
	}
}

func openKube(t *testing.T, s *kubetest.Server, pod string) journal.Book {
	t.Helper()
	b, err := journal.NewKube(s.Client(t), pod, "shop").Open(t.Context(), run())
	require.NoError(t, err)
	return b
}

// Both kinds keep the same promises.
func TestBook_KeepsWhatItWasTold(t *testing.T) {
	t.Parallel()
	server, dir := kubetest.New(t), t.TempDir()
	kinds := map[string]func(t *testing.T) journal.Book{
		"config map": func(t *testing.T) journal.Book { t.Helper(); return openKube(t, server, "pod-1") },
		"file": func(t *testing.T) journal.Book {
			t.Helper()
			b, err := journal.NewFiles(dir, "pod-1").Open(t.Context(), run())
			require.NoError(t, err)
			return b
		},
	}
	for name, open := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, b := t.Context(), open(t)
			e := entry("shop-1.build")
			_, ok, err := b.Entry(ctx, e.Key)
			require.NoError(t, err)
			require.False(t, ok)
			require.ErrorIs(t, b.PutEffect(ctx, e.Key, "changeset", []byte(`1`)), journal.ErrUnknown)

			begun, err := b.Begin(ctx, e)
			require.NoError(t, err)
			require.Equal(t, 1, begun.Starts)
			require.NoError(t, b.PutEffect(ctx, e.Key, "changeset", []byte(`{"arn":"<a&b>"}`)))

			b = open(t) // another process
			e.StartedAt = e.StartedAt.Add(time.Hour)
			begun, err = b.Begin(ctx, e)
			require.NoError(t, err)
			require.Equal(t, 2, begun.Starts)
			require.Equal(t, entry("x").StartedAt, begun.StartedAt, "the first start counts")
			value, ok, err := b.Effect(ctx, e.Key, "changeset")
			require.NoError(t, err)
			require.True(t, ok)
			require.JSONEq(t, `{"arn":"<a&b>"}`, string(value))

			final := []byte(`{"node":{"phase":"Succeeded","message":"\u003cdone\u003e"}}`)
			_, err = b.End(ctx, e.Key, final, "Succeeded", time.Now())
			require.NoError(t, err)
			ended, err := b.End(ctx, e.Key, []byte(`{"other":1}`), "Failed", time.Now())
			require.NoError(t, err)
			require.Equal(t, string(final), string(ended.Final), "the first reply counts")
			require.ErrorIs(t, b.PutEffect(ctx, e.Key, "late", []byte(`1`)), journal.ErrEnded)

			b = open(t)
			ended, err = b.Begin(ctx, e)
			require.NoError(t, err)
			require.True(t, ended.Ended())
			require.Equal(t, string(final), string(ended.Final), "byte for byte")
			require.Equal(t, "Succeeded", ended.Phase)

			old := entry("shop-1.build")
			old.Epoch, old.Key = "2026-11-24T05:00:00Z", "older"
			_, err = b.Begin(ctx, old)
			require.NoError(t, err)
			all, err := b.Entries(ctx)
			require.NoError(t, err)
			require.Len(t, all, 2, "earlier tries stay readable")
		})
	}
}

func TestKube_TheConfigMap(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	b := openKube(t, s, "pod-1")
	_, err := b.Begin(t.Context(), entry("shop-1.build"))
	require.NoError(t, err)
	name := journal.Name("uid-1")
	require.Regexp(t, `^aphex-journal-[0-9a-f]{16}$`, name)
	cm := s.Get("configmaps", "shop", name)
	meta, _ := cm["metadata"].(map[string]any)
	require.Equal(t, []any{map[string]any{"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "shop-1", "uid": "uid-1"}}, meta["ownerReferences"])
	data, _ := cm["data"].(map[string]any)
	require.Equal(t, "1", data["schema"])
	for key := range data {
		require.Regexp(t, `^[-._a-zA-Z0-9]{1,253}$`, key)
	}
}

func TestKube_WritesTogetherWhatComesTogether(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	b := openKube(t, s, "pod-1")
	before := len(s.Calls())
	var wg sync.WaitGroup
	const n = 60
	for i := range n {
		wg.Go(func() {
			e := entry(fmt.Sprintf("shop-1.stage-%d", i))
			if _, err := b.Begin(t.Context(), e); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.Less(t, len(s.Calls())-before, n, "batched")
	again := openKube(t, s, "pod-1")
	all, err := again.Entries(t.Context())
	require.NoError(t, err)
	require.Len(t, all, n, "and nothing is lost")
}

func TestKube_NewerPodFencesTheOlder(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	old := openKube(t, s, "pod-1")
	e := entry("shop-1.build")
	_, err := old.Begin(t.Context(), e)
	require.NoError(t, err)

	fresh := openKube(t, s, "pod-2")
	require.NoError(t, fresh.PutEffect(t.Context(), e.Key, "changeset", []byte(`2`)))

	err = old.PutEffect(t.Context(), e.Key, "changeset", []byte(`1`))
	require.ErrorIs(t, err, journal.ErrFenced)
	require.Equal(t, fault.JournalConflict, fault.From(err).Reason)
	require.ErrorContains(t, err, "pod-2")
	_, err = old.End(t.Context(), e.Key, []byte(`{}`), "Failed", time.Now())
	require.ErrorIs(t, err, journal.ErrFenced, "and from then on")
	_, _, err = old.Entry(t.Context(), e.Key)
	require.ErrorIs(t, err, journal.ErrFenced)

	value, _, err := fresh.Effect(t.Context(), e.Key, "changeset")
	require.NoError(t, err)
	require.Equal(t, `2`, string(value))
}

// A write whose answer was lost, an edit by somebody else and a deletion: the
// document ends up complete.
func TestKube_SurvivesConflictsAndLoss(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	b := openKube(t, s, "pod-1")
	first, second, third := entry("a"), entry("b"), entry("c")
	_, err := b.Begin(t.Context(), first)
	require.NoError(t, err)
	s.Change("configmaps", "shop", journal.Name("uid-1"), func(o kubetest.Object) {
		meta, _ := o["metadata"].(map[string]any)
		meta["labels"] = map[string]any{"edited": "yes"}
	})
	_, err = b.Begin(t.Context(), second)
	require.NoError(t, err, "the version was outdated: read again")
	s.Delete("configmaps", "shop", journal.Name("uid-1"))
	_, err = b.Begin(t.Context(), third)
	require.NoError(t, err, "gone: written anew")
	all, err := openKube(t, s, "pod-1").Entries(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 3)
}

func TestKube_WaitsForAnAPIServerThatIsAway(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	b := openKube(t, s, "pod-1")
	var mu sync.Mutex
	failures := 3
	s.Deny(func(c kubetest.Call) *metav1.Status {
		mu.Lock()
		defer mu.Unlock()
		if c.Verb != "update" || failures == 0 {
			return nil
		}
		failures--
		return kubetest.Status(http.StatusInternalServerError, metav1.StatusReasonInternalError, "etcd is away")
	})
	_, err := b.Begin(t.Context(), entry("a"))
	require.NoError(t, err)
	_, ok, err := openKube(t, s, "pod-1").Entry(t.Context(), entry("a").Key)
	require.NoError(t, err)
	require.True(t, ok)
}

func TestKube_SaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	s.Forbid("configmaps", "create")
	_, err := journal.NewKube(s.Client(t), "pod-1", "shop").Open(t.Context(), run())
	f := fault.From(err)
	require.Equal(t, fault.KubernetesRejected, f.Reason)
	require.Equal(t, fault.User, f.Class)
	require.Contains(t, f.Remedy, "aphex-executor-plugin")
}

// A right that is taken away under a run's hands is waited for: what the journal
// already says must not be contradicted by a failure that it does not hold.
func TestKube_WaitsForARightItHad(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	e := entry("shop-1.build")
	b := openKube(t, s, "pod-1")
	_, err := b.Begin(t.Context(), e)
	require.NoError(t, err)
	s.Forbid("configmaps", "update")
	brief, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = b.End(brief, e.Key, []byte(`{}`), "Succeeded", time.Now())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	next, cancelNext := context.WithTimeout(t.Context(), time.Second)
	defer cancelNext()
	_, err = journal.NewKube(s.Client(t), "pod-1", "shop").Open(next, run())
	require.Equal(t, fault.Transient, fault.From(err).Class, "%v", err)
	require.Contains(t, fault.From(err).Remedy, "aphex-executor-plugin")

	s.Deny(nil)
	ended, err := b.End(t.Context(), e.Key, []byte(`{"late":1}`), "Failed", time.Now())
	require.NoError(t, err)
	require.JSONEq(t, `{}`, string(ended.Final), "the change that nobody waited for was made")
}

func TestKube_RefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(data map[string]any){
		"newer schema": func(d map[string]any) { d["schema"] = "3" },
		"no schema":    func(d map[string]any) { delete(d, "schema") },
		"foreign key":  func(d map[string]any) { d["note"] = "x" },
		"broken entry": func(d map[string]any) { d["execution.00"] = "{" },
		"moved entry":  func(d map[string]any) { d["execution.00"] = `{"key":"a"}` },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := kubetest.New(t)
			openKube(t, s, "pod-1")
			s.Change("configmaps", "shop", journal.Name("uid-1"), func(o kubetest.Object) {
				data, _ := o["data"].(map[string]any)
				spoil(data)
			})
			_, err := journal.NewKube(s.Client(t), "pod-2", "shop").Open(t.Context(), run())
			require.Equal(t, fault.JournalInvalid, fault.From(err).Reason)
		})
	}
	s := kubetest.New(t)
	s.Put("configmaps", kubetest.Object{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": journal.Name("uid-1"), "namespace": "shop"}, "data": map[string]any{"schema": "1"},
	})
	_, err := journal.NewKube(s.Client(t), "pod-1", "shop").Open(t.Context(), run())
	require.ErrorContains(t, err, "not owned by workflow uid-1")
}

func TestBook_LimitsEffects(t *testing.T) {
	t.Parallel()
	b, err := journal.NewFiles(t.TempDir(), "pod-1").Open(t.Context(), run())
	require.NoError(t, err)
	e := entry("a")
	_, err = b.Begin(t.Context(), e)
	require.NoError(t, err)
	require.ErrorContains(t, b.PutEffect(t.Context(), e.Key, "Name", []byte(`1`)), "must match")
	require.ErrorContains(t, b.PutEffect(t.Context(), e.Key, "big", []byte(`"`+strings.Repeat("x", 4096)+`"`)), "4098 bytes")
	require.ErrorContains(t, b.PutEffect(t.Context(), e.Key, "text", []byte(`not json`)), "not JSON")
	require.NoError(t, b.PutEffect(t.Context(), e.Key, "ok", []byte(`"`+strings.Repeat("x", 4000)+`"`)))
}

// Replies of earlier tries give way before a config map becomes too large.
func TestKube_MakesRoom(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	b := openKube(t, s, "pod-1")
	large, err := json.Marshal(strings.Repeat("x", 60<<10))
	require.NoError(t, err)
	var last journal.Entry
	for i := range 18 {
		e := entry("shop-1.build")
		e.Epoch = fmt.Sprintf("2026-11-24T06:%02d:00Z", i)
		e.StartedAt = e.StartedAt.Add(time.Duration(i) * time.Minute)
		r := task.Request{Run: task.Run{UID: "uid-1", Epoch: e.Epoch}, Node: e.Node}
		e.Key = r.Key()
		_, err := b.Begin(t.Context(), e)
		require.NoError(t, err)
		last, err = b.End(t.Context(), e.Key, large, "Failed", e.StartedAt)
		require.NoError(t, err)
	}
	again, ok, err := openKube(t, s, "pod-1").Entry(t.Context(), last.Key)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, string(large), string(again.Final), "the newest try keeps its reply")
	raw, err := json.Marshal(s.Get("configmaps", "shop", journal.Name("uid-1"))["data"])
	require.NoError(t, err)
	require.Less(t, len(raw), 1<<20)
}

func TestBook_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	b, err := journal.NewFiles(t.TempDir(), "pod-1").Open(ctx, run())
	require.NoError(t, err)
	cancel()
	require.Eventually(t, func() bool {
		_, err := b.Begin(t.Context(), entry("a"))
		return errors.Is(err, context.Canceled)
	}, 5*time.Second, time.Millisecond)
}

func TestEarlier_IsTheSameStageOfOtherTries(t *testing.T) {
	t.Parallel()
	b, err := journal.NewFiles(t.TempDir(), "pod-1").Open(t.Context(), run())
	require.NoError(t, err)
	begin := func(epoch, stage, environment, value string) string {
		r := task.Request{Run: run(), Node: "shop-1." + stage + environment, Stage: stage, Environment: environment}
		r.Run.Epoch = epoch
		_, err := b.Begin(t.Context(), journal.Entry{Key: r.Key(), Stage: stage, Environment: environment, Node: r.Node, Epoch: epoch, StartedAt: time.Now()})
		require.NoError(t, err)
		if value != "" {
			require.NoError(t, b.PutEffect(t.Context(), r.Key(), "stack", []byte(value)))
		}
		return r.Key()
	}
	begin("1", task.StageDeployEnv, "dev", `"first"`)
	begin("1", task.StageDeployEnv, "prod", `"another environment"`)
	begin("1", task.StageTest, "dev", `"another stage"`)
	begin("2", task.StageDeployEnv, "dev", "")
	begin("3", task.StageDeployEnv, "dev", `"third"`)
	last := begin("4", task.StageDeployEnv, "dev", `"its own"`)
	values, err := journal.Own{Book: b, Key: last}.Earlier(t.Context(), "stack")
	require.NoError(t, err)
	require.Equal(t, [][]byte{[]byte(`"first"`), []byte(`"third"`)}, values)
	values, err = journal.Own{Book: b, Key: "never begun"}.Earlier(t.Context(), "stack")
	require.NoError(t, err)
	require.Empty(t, values)
}
