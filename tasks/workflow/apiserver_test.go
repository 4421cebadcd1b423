package workflow_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	kyaml "sigs.k8s.io/yaml"

	"github.com/aphex-pipeline/aphex/internal/kube"
)

const (
	templatePath     = "/apis/argoproj.io/v1alpha1/namespaces/shop/workflowtemplates/shop"
	installationPath = "/api/v1/namespaces/shop/configmaps/aphex-pipeline-shop"
)

// apiServer answers the few calls the stage makes as an API server would, and
// checks what they look like.
type apiServer struct {
	t       *testing.T
	mu      sync.Mutex
	objects map[string]map[string]any
	version int
	applies int
	// refusal answers applies, if set.
	refusal *metav1.Status
}

// serve starts an API server and returns it with a client of it.
func serve(t *testing.T) (*apiServer, *kube.Client) {
	t.Helper()
	api := &apiServer{t: t, objects: map[string]map[string]any{}}
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	client, err := kube.FromConfig(&rest.Config{Host: server.URL})
	require.NoError(t, err)
	return api, client
}

// put stores an object, given as YAML.
func (a *apiServer) put(path, manifest string) {
	a.t.Helper()
	var object map[string]any
	require.NoError(a.t, kyaml.Unmarshal([]byte(manifest), &object))
	a.mu.Lock()
	defer a.mu.Unlock()
	a.store(path, object)
}

func (a *apiServer) store(path string, object map[string]any) {
	a.version++
	metadata, ok := object["metadata"].(map[string]any)
	if !ok {
		metadata = map[string]any{}
		object["metadata"] = metadata
	}
	metadata["resourceVersion"] = strconv.Itoa(a.version)
	a.objects[path] = object
}

func (a *apiServer) applied() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.applies
}

// ServeHTTP answers GET and server-side apply.
func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	object, found := a.objects[r.URL.Path]
	switch {
	case r.Method == http.MethodPatch:
		a.applies++
		if a.refusal != nil {
			a.reply(w, int(a.refusal.Code), a.refusal)
			return
		}
		a.patch(w, r, object)
	case r.Method == http.MethodGet && found:
		a.reply(w, http.StatusOK, object)
	default:
		a.reply(w, http.StatusNotFound, status(http.StatusNotFound, metav1.StatusReasonNotFound, r.URL.Path+" not found"))
	}
}

func (a *apiServer) patch(w http.ResponseWriter, r *http.Request, before map[string]any) {
	if r.Header.Get("Content-Type") != "application/apply-patch+yaml" || r.URL.Query().Get("fieldManager") != kube.FieldManager {
		a.reply(w, http.StatusBadRequest, status(http.StatusBadRequest, metav1.StatusReasonBadRequest, "not a server-side apply of "+kube.FieldManager))
		return
	}
	body, err := io.ReadAll(r.Body)
	var after map[string]any
	if err == nil {
		err = json.Unmarshal(body, &after)
	}
	if err != nil {
		a.reply(w, http.StatusBadRequest, status(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error()))
		return
	}
	if before == nil || !cmp.Equal(before["spec"], after["spec"]) {
		a.store(r.URL.Path, after)
	}
	a.reply(w, http.StatusOK, a.objects[r.URL.Path])
}

func (a *apiServer) reply(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(value); err != nil {
		a.t.Errorf("write reply: %v", err)
	}
}

func status(code int32, reason metav1.StatusReason, message string) *metav1.Status {
	return &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: code, Reason: reason, Message: message,
	}
}
