package kube

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/aphex-pipeline/aphex/internal/testkit/bounded"
)

func packed(tb testing.TB, nodes []byte) string {
	tb.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(nodes)
	require.NoError(tb, err)
	require.NoError(tb, w.Close())
	return base64.StdEncoding.EncodeToString(out.Bytes())
}

// FuzzViews: objects of the cluster are written by others. Whatever they hold,
// reading them ends in a view that holds what it promises or in an error.
func FuzzViews(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"argoproj.io/v1alpha1","kind":"Workflow","metadata":{"name":"shop-1","namespace":"shop","uid":"u","creationTimestamp":"2026-11-24T07:00:00Z",
		"annotations":{"aphex.dev/handed-over-to":"shop-2"},"labels":{"aphex.dev/pipeline":"shop"}},
		"spec":{"shutdown":"Stop","workflowTemplateRef":{"name":"shop"},"arguments":{"parameters":[{"name":"commit-sha","value":"abc"},{"name":"n","value":3},{"name":"u"}]}},
		"status":{"phase":"Running","startedAt":"2026-11-24T07:00:00+01:00","nodes":{"shop-1-7":{"name":"shop-1.build","phase":"Succeeded"}}}}`), []byte(`{"shop-1-8":{"name":"shop-1.test","phase":"Error","message":"agent pod failed"}}`))
	f.Add([]byte(`{"metadata":{"name":"shop-1","labels":{"workflows.argoproj.io/completed":"true"},"ownerReferences":[{"uid":"u","kind":"Workflow","name":"shop-1","apiVersion":"argoproj.io/v1alpha1"}]},
		"spec":{"tasks":{"a":{},"b":null}},"status":{"nodes":{"a":{"phase":"Failed","message":7},"b":[]}}}`), []byte("null"))
	f.Add([]byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","ownerReferences":[{"uid":"u"}],"resourceVersion":"7"},"data":{"schema":"1","dev":"{}"}}`), []byte(""))
	f.Add([]byte(`{"metadata":{"name":"p","deletionTimestamp":"x"},"status":{"phase":"Failed","reason":"Evicted","containerStatuses":[{"name":"main","state":{"terminated":{"exitCode":137}}}]}}`), []byte("{"))
	f.Add([]byte(`{"metadata":{"ownerReferences":[7],"labels":[]},"status":{"nodes":{"":null},"compressedNodes":"H4s="}}`), []byte(`{"a":`+strings.Repeat("[", 200)))
	f.Fuzz(func(t *testing.T, text, nodes []byte) {
		bounded.Here(t)
		checkManifest(t, text)
		var object map[string]any
		if json.Unmarshal(text, &object) != nil || object == nil {
			return // the API server has no such object
		}
		obj := &unstructured.Unstructured{Object: object}
		checkWorkflow(t, obj)
		_ = taskSetView(obj)
		if pod, err := podView(obj); err == nil {
			require.Equal(t, pod.Phase == "Failed" || pod.Phase == "Succeeded", pod.Over())
		}
		if cm, err := configMapView(obj); err == nil {
			require.NotNil(t, cm.Data)
			sent, err := cm.object()
			require.NoError(t, err)
			again, err := configMapView(sent)
			require.NoError(t, err)
			require.Equal(t, cm.Data, again.Data)
			require.Equal(t, cm.Owner, again.Owner)
		}
		if unstructured.SetNestedField(obj.Object, packed(t, nodes), "status", "compressedNodes") == nil {
			checkWorkflow(t, obj)
		}
	})
}

func checkWorkflow(t *testing.T, obj *unstructured.Unstructured) {
	t.Helper()
	w, err := workflowView(obj)
	if err != nil {
		require.Contains(t, err.Error(), "workflow")
		return
	}
	all, fulfilled := w.Progress()
	require.Len(t, w.Nodes(), all)
	require.LessOrEqual(t, fulfilled, all)
	for _, n := range w.Nodes() {
		found, ok := w.Node(n.ID)
		require.True(t, ok)
		require.Equal(t, n, found)
	}
	require.NotNil(t, w.Parameters)
	_ = w.Finished()
}

func checkManifest(t *testing.T, text []byte) {
	t.Helper()
	obj, err := ParseManifest(text)
	if err != nil {
		require.NotEmpty(t, err.Error())
		return
	}
	require.NotEmpty(t, obj.GetName())
	body, err := applyBody(obj)
	require.NoError(t, err)
	require.True(t, json.Valid(body))
}

// Compressed nodes may be few bytes that become very many.
func TestUnpackNodes_IsBounded(t *testing.T) {
	t.Parallel()
	large := append([]byte(`{"a":{"message":"`), bytes.Repeat([]byte("x"), maxNodes)...)
	_, err := unpackNodes(packed(t, append(large, `"}}`...)))
	require.ErrorContains(t, err, "more than 67108864 bytes")
	_, err = unpackNodes(packed(t, []byte(`{"a":{}} {`)))
	require.Error(t, err)
}
