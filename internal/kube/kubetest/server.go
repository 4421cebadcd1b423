package kubetest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/aphex-pipeline/aphex/internal/kube"
)

// Object is an object as it is on the wire.
type Object = map[string]any

// Call is one request the server got.
type Call struct {
	Verb, Resource, Namespace, Name string
	// Subresource is "status", or empty.
	Subresource string
	// ContentType, Query and Body are as sent.
	ContentType, Query string
	Body               []byte
}

// Server is the API server.
type Server struct {
	http *httptest.Server

	mu      sync.Mutex
	version int
	objects map[string]*stored // by resource/namespace/name
	events  []event
	changed chan struct{} // closed and replaced at every event
	rewatch chan struct{} // closed and replaced to end all watches
	calls   []Call
	deny    func(Call) *metav1.Status
	offset  time.Duration
	lose    func(Call) bool
}

type stored struct {
	object Object
	owners map[string]string // leaf path → field manager
}

type event struct {
	version  int
	key      string
	kind     string
	resource string
	object   Object
}

// New starts a server that ends with the test.
func New(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{objects: map[string]*stored{}, changed: make(chan struct{}), rewatch: make(chan struct{}), version: 100}
	s.http = httptest.NewServer(s)
	tb.Cleanup(func() {
		s.http.CloseClientConnections()
		s.http.Close()
	})
	return s
}

// Client returns a client of the server.
func (s *Server) Client(tb testing.TB) *kube.Client {
	tb.Helper()
	c, err := kube.FromConfig(&rest.Config{Host: s.http.URL})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// Deny makes the server answer calls with the status fn returns, if any.
// Without a Reason it is a bare HTTP error.
func (s *Server) Deny(fn func(Call) *metav1.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deny = fn
}

// Lose makes the server break the connection instead of answering calls that fn
// picks; they have taken effect by then.
func (s *Server) Lose(fn func(Call) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose = fn
}

// Forbid refuses the verbs (get, list, watch, create, update, patch, delete) on
// resource ("workflowtasksets" or "workflowtasksets/status"), like missing
// RBAC.
func (s *Server) Forbid(resource string, verbs ...string) {
	s.Deny(func(c Call) *metav1.Status {
		for _, v := range verbs {
			if c.resource() == resource && c.Verb == v {
				return Status(http.StatusForbidden, metav1.StatusReasonForbidden, fmt.Sprintf("%s cannot %s %s", "the test", v, resource))
			}
		}
		return nil
	})
}

func (c Call) resource() string {
	if c.Subresource != "" {
		return c.Resource + "/" + c.Subresource
	}
	return c.Resource
}

// Calls returns the calls made so far.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call(nil), s.calls...)
}

// Get returns a copy of an object, or nil.
func (s *Server) Get(resource, namespace, name string) Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.objects[key(resource, namespace, name)]; ok {
		return clone(o.object)
	}
	return nil
}

// Put stores an object as somebody else would: unconditionally.
func (s *Server) Put(resource string, object Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	meta := metadata(object)
	k := key(resource, text(meta["namespace"]), text(meta["name"]))
	kind := "MODIFIED"
	if s.objects[k] == nil {
		kind = "ADDED"
	}
	s.store(k, resource, kind, clone(object))
}

// Change edits an object as somebody else would.
func (s *Server) Change(resource, namespace, name string, fn func(Object)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := key(resource, namespace, name)
	o := clone(s.objects[k].object)
	fn(o)
	s.store(k, resource, "MODIFIED", o)
}

// Delete removes an object.
func (s *Server) Delete(resource, namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(key(resource, namespace, name), resource)
}

// DropWatches breaks all connections, those of open watches among them.
func (s *Server) DropWatches() {
	s.http.CloseClientConnections()
}

// EndWatches ends all open watches in order, as a server does now and then.
func (s *Server) EndWatches() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.rewatch)
	s.rewatch = make(chan struct{})
}

// URL is where the server is, for clients other than ours.
func (s *Server) URL() string { return s.http.URL }

// Status returns an error the way the API server gives it.
func Status(code int32, reason metav1.StatusReason, message string) *metav1.Status {
	return &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: code, Reason: reason, Message: message,
	}
}

// store must be called with the lock held.
func (s *Server) store(k, resource, kind string, object Object) Object {
	s.version++
	meta := metadata(object)
	meta["resourceVersion"] = strconv.Itoa(s.version)
	if meta["uid"] == nil {
		meta["uid"] = fmt.Sprintf("uid-%d", s.version)
	}
	o := s.objects[k]
	if o == nil {
		o = &stored{owners: map[string]string{}}
		s.objects[k] = o
	}
	o.object = object
	s.emit(event{version: s.version, key: k, kind: kind, resource: resource, object: clone(object)})
	return clone(object)
}

func (s *Server) remove(k, resource string) {
	o := s.objects[k]
	delete(s.objects, k)
	s.version++
	s.emit(event{version: s.version, key: k, kind: "DELETED", resource: resource, object: o.object})
}

func (s *Server) emit(e event) {
	s.events = append(s.events, e)
	close(s.changed)
	s.changed = make(chan struct{})
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if r.URL.Path == "/version" {
		s.tell(w)
		return
	}
	call := parse(r)
	call.Body = body
	s.mu.Lock()
	s.calls = append(s.calls, call)
	deny, lose := s.deny, s.lose
	s.mu.Unlock()
	if deny != nil {
		if st := deny(call); st != nil {
			writeStatus(w, st)
			return
		}
	}
	if call.Verb == "watch" {
		s.watch(w, r, call)
		return
	}
	object, st := s.serve(r, call)
	if lose != nil && lose(call) {
		panic(http.ErrAbortHandler)
	}
	if st != nil {
		writeStatus(w, st)
		return
	}
	write(w, http.StatusOK, object)
}

// parse reads /api/v1/… and /apis/<group>/<version>/… paths.
func parse(r *http.Request) Call {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if parts[0] == "api" {
		parts = parts[2:]
	} else {
		parts = parts[3:]
	}
	c := Call{ContentType: r.Header.Get("Content-Type"), Query: r.URL.RawQuery}
	if parts[0] == "namespaces" && len(parts) > 2 {
		c.Namespace, parts = parts[1], parts[2:]
	}
	c.Resource = parts[0]
	if len(parts) > 1 {
		c.Name = parts[1]
	}
	if len(parts) > 2 {
		c.Subresource = parts[2]
	}
	switch {
	case r.URL.Query().Get("watch") == "true":
		c.Verb = "watch"
		c.Name = strings.TrimPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	case r.Method == http.MethodGet && c.Name == "":
		c.Verb = "list"
	case r.Method == http.MethodGet:
		c.Verb = "get"
	case r.Method == http.MethodPost:
		c.Verb = "create"
	case r.Method == http.MethodPut:
		c.Verb = "update"
	default:
		c.Verb = strings.ToLower(r.Method)
	}
	return c
}

func key(resource, namespace, name string) string { return resource + "/" + namespace + "/" + name }

func text(v any) string {
	s, _ := v.(string)
	return s
}

func metadata(o Object) map[string]any {
	meta, ok := o["metadata"].(map[string]any)
	if !ok {
		meta = map[string]any{}
		o["metadata"] = meta
	}
	return meta
}

func clone(o Object) Object {
	raw, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	var c Object
	if err := json.Unmarshal(raw, &c); err != nil {
		panic(err)
	}
	return c
}

func merge(target, patch Object) {
	for k, v := range patch {
		sub, isMap := v.(map[string]any)
		old, hasMap := target[k].(map[string]any)
		switch {
		case v == nil:
			delete(target, k)
		case isMap && hasMap:
			merge(old, sub)
		default:
			target[k] = v
		}
	}
}

func leaves(prefix string, v any, into map[string]any) {
	m, ok := v.(map[string]any)
	if !ok {
		into[prefix] = v
		return
	}
	for k, sub := range m {
		leaves(prefix+"."+k, sub, into)
	}
}

func writeStatus(w http.ResponseWriter, st *metav1.Status) {
	if st.Reason == "" {
		http.Error(w, st.Message, int(st.Code))
		return
	}
	write(w, int(st.Code), st)
}

func write(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

// Own makes manager the owner of a field ("." and its path) of an object.
func (s *Server) Own(resource, namespace, name, manager, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[key(resource, namespace, name)].owners[path] = manager
}
