package metrics_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/plugin/metrics"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

func page(t *testing.T, m *metrics.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Page().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, metrics.Path, http.NoBody))
	text, err := io.ReadAll(w.Body)
	require.NoError(t, err)
	return "\n" + string(text)
}

// TestCluster_CountsJournalAndNudges uses the parts that write, on a server
// that refuses some of it.
func TestCluster_CountsJournalAndNudges(t *testing.T) {
	t.Parallel()
	server := kubetest.New(t)
	server.Put("workflows", kubetest.Object{"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": map[string]any{"name": "w", "namespace": "n", "uid": "u"}})
	m := metrics.New("v1")
	cluster := m.Cluster(server.Client(t))
	run := task.Run{Namespace: "n", Name: "w", UID: "u"}
	book, err := m.Journal(journal.NewKube(cluster, "pod", "shop")).Open(t.Context(), run) // creates
	require.NoError(t, err)
	_, err = book.Begin(t.Context(), journal.Entry{Key: "k", StartedAt: time.Now()}) // updates
	require.NoError(t, err)
	name := journal.Name("u")
	server.Change("configmaps", "n", name, func(o kubetest.Object) { o["touched"] = true }) // a conflict, then success
	require.NoError(t, book.PutEffect(t.Context(), "k", "e", []byte("1")))
	_, err = cluster.AnnotateWorkflow(t.Context(), "n", "w", "u", map[string]string{"a": "b"})
	require.NoError(t, err)
	err = cluster.PatchResults(t.Context(), "n", "none", "1", map[string]json.RawMessage{"id": nil})
	require.ErrorIs(t, err, kube.ErrNotFound)

	server.Change("configmaps", "n", name, func(o kubetest.Object) { o["data"].(map[string]any)["schema"] = "99" })
	_, err = book.End(t.Context(), "k", []byte(`{}`), "Succeeded", time.Now()) // nobody will ever read that
	require.ErrorContains(t, err, "newer version")
	server.Forbid("configmaps", "update")
	_, err = cluster.UpdateConfigMap(t.Context(), &kube.ConfigMap{Namespace: "n", Name: name, ResourceVersion: "1"})
	require.ErrorIs(t, err, kube.ErrForbidden)
	server.Forbid("workflows", "patch")
	_, err = cluster.AnnotateWorkflow(t.Context(), "n", "w", "u", map[string]string{"a": "c"})
	require.ErrorIs(t, err, kube.ErrForbidden)

	text := page(t, m)
	for _, line := range []string{
		`aphex_journal_writes_total{result="written"} 4`, // opening tries the right to update too
		`aphex_journal_writes_total{result="conflict"} 2`,
		`aphex_journal_writes_total{result="forbidden"} 1`,
		`aphex_journal_failures_total 1`,
		`aphex_nudges_total{result="written"} 1`,
		`aphex_nudges_total{result="forbidden"} 1`,
		`aphex_watchdog_patches_total{result="conflict"} 1`,
	} {
		require.Contains(t, text, "\n"+line+"\n")
	}
}

// TestRecorder_LabelsStayFew: whatever the stages say, the page does not grow
// without bound.
func TestRecorder_LabelsStayFew(t *testing.T) {
	t.Parallel()
	m := metrics.New("v1")
	recorder := m.Recorder(nil)
	now := time.Now()
	for i := range 500 {
		req := task.Request{Stage: "stage-" + strconv.Itoa(i), Environment: strconv.Itoa(i)}
		require.NoError(t, recorder.StageEnded(t.Context(), req, now, now, "Failed", "", "Reason"+strconv.Itoa(i), ""))
	}
	text := page(t, m)
	require.Contains(t, text, `aphex_stages_total{phase="Failed",reason="other",stage="other"} 420`)
	require.NotContains(t, text, "stage-1")
}
