package kubetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// serve answers everything but watches.
func (s *Server) serve(r *http.Request, c Call) (Object, *metav1.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sent Object
	if len(c.Body) > 0 {
		unmarshal := func(raw []byte, into any) error { return yaml.Unmarshal(raw, into) }
		if c.Body[0] == '{' { // most are, and large ones are read a hundred times faster
			unmarshal = json.Unmarshal
		}
		if err := unmarshal(c.Body, &sent); err != nil {
			return nil, Status(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		}
	}
	switch c.Verb {
	case "create":
		return s.create(c, sent)
	case "list":
		return s.list(r, c)
	}
	k := key(c.Resource, c.Namespace, c.Name)
	o := s.objects[k]
	if c.ContentType == string(types.ApplyPatchType) {
		return s.apply(r, c, o, sent)
	}
	if o == nil {
		return nil, Status(http.StatusNotFound, metav1.StatusReasonNotFound, fmt.Sprintf("%s %q not found", c.Resource, c.Name))
	}
	switch c.Verb {
	case "get":
		return clone(o.object), nil
	case "delete":
		if st := precondition(c, o, sent); st != nil {
			return nil, st
		}
		s.remove(k, c.Resource)
		return Object{"kind": "Status", "apiVersion": "v1", "status": "Success"}, nil
	case "update":
		if v := metadata(sent)["resourceVersion"]; v != nil && v != metadata(o.object)["resourceVersion"] {
			return nil, conflict(c, "the object has been modified")
		}
		metadata(sent)["uid"] = metadata(o.object)["uid"]
		return s.store(k, c.Resource, "MODIFIED", sent), nil
	case "patch":
		return s.mergePatch(k, c, o, sent)
	}
	return nil, Status(http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, c.Verb)
}

// precondition compares what a deletion asks for with the object.
func precondition(c Call, o *stored, sent Object) *metav1.Status {
	wanted, _ := sent["preconditions"].(map[string]any) // nil asks for nothing
	for _, field := range []string{"uid", "resourceVersion"} {
		if v := wanted[field]; v != nil && v != metadata(o.object)[field] {
			return conflict(c, "Precondition failed: "+field+" in precondition")
		}
	}
	return nil
}

func conflict(c Call, message string) *metav1.Status {
	return Status(http.StatusConflict, metav1.StatusReasonConflict, fmt.Sprintf("Operation cannot be fulfilled on %s %q: %s", c.Resource, c.Name, message))
}

func (s *Server) create(c Call, sent Object) (Object, *metav1.Status) {
	if c.Resource == "selfsubjectaccessreviews" {
		return s.review(sent), nil
	}
	name := text(metadata(sent)["name"])
	if prefix := text(metadata(sent)["generateName"]); name == "" && prefix != "" {
		name = prefix + strconv.Itoa(s.version)
		metadata(sent)["name"] = name
	}
	k := key(c.Resource, c.Namespace, name)
	if s.objects[k] != nil {
		return nil, Status(http.StatusConflict, metav1.StatusReasonAlreadyExists, fmt.Sprintf("%s %q already exists", c.Resource, name))
	}
	metadata(sent)["namespace"] = c.Namespace
	return s.store(k, c.Resource, "ADDED", sent), nil
}

func (s *Server) mergePatch(k string, c Call, o *stored, sent Object) (Object, *metav1.Status) {
	if c.ContentType != string(types.MergePatchType) {
		return nil, Status(http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType, c.ContentType)
	}
	if uid := metadata(sent)["uid"]; uid != nil && uid != metadata(o.object)["uid"] {
		return nil, conflict(c, "Precondition failed: UID in precondition")
	}
	if v := metadata(sent)["resourceVersion"]; v != nil && v != metadata(o.object)["resourceVersion"] {
		return nil, conflict(c, "the object has been modified")
	}
	next := clone(o.object)
	if c.Subresource != "" { // writes that part only
		sent = Object{c.Subresource: sent[c.Subresource]}
	}
	merge(next, sent)
	return s.store(k, c.Resource, "MODIFIED", next), nil
}

// apply is server-side apply with ownership by leaf.
func (s *Server) apply(r *http.Request, c Call, o *stored, sent Object) (Object, *metav1.Status) {
	manager, force := r.URL.Query().Get("fieldManager"), r.URL.Query().Get("force") == "true"
	if manager == "" {
		return nil, Status(http.StatusBadRequest, metav1.StatusReasonBadRequest, "fieldManager is required for apply patch")
	}
	if metadata(sent)["managedFields"] != nil {
		return nil, Status(http.StatusBadRequest, metav1.StatusReasonBadRequest, "metadata.managedFields must be nil")
	}
	k := key(c.Resource, c.Namespace, c.Name)
	wanted, current := map[string]any{}, map[string]any{}
	leaves("", sent, wanted)
	next, owners := Object{}, map[string]string{}
	if o != nil {
		next, owners = clone(o.object), maps.Clone(o.owners)
		leaves("", o.object, current)
	}
	if causes := contested(manager, wanted, current, owners); len(causes) > 0 && !force {
		st := conflict(c, fmt.Sprintf("Apply failed with %d conflicts", len(causes)))
		st.Details = &metav1.StatusDetails{Name: c.Name, Kind: c.Resource, Causes: causes}
		return nil, st
	}
	merge(next, sent)
	for path := range wanted {
		owners[path] = manager
	}
	after := map[string]any{}
	leaves("", next, after)
	if o != nil && same(current, after) {
		return clone(o.object), nil
	}
	if r.URL.Query().Get("dryRun") != "" {
		return next, nil
	}
	stored := s.store(k, c.Resource, "MODIFIED", next)
	s.objects[k].owners = owners
	return stored, nil
}

func contested(manager string, wanted, current map[string]any, owners map[string]string) []metav1.StatusCause {
	var causes []metav1.StatusCause
	for path, v := range wanted {
		owner := owners[path]
		if owner != "" && owner != manager && encoded(current[path]) != encoded(v) {
			causes = append(causes, metav1.StatusCause{
				Type: metav1.CauseTypeFieldManagerConflict, Field: path, Message: fmt.Sprintf("conflict with %q using v1", owner),
			})
		}
	}
	slices.SortFunc(causes, func(a, b metav1.StatusCause) int { return len(a.Field) - len(b.Field) })
	return causes
}

func same(a, b map[string]any) bool { return encoded(a) == encoded(b) }

func encoded(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// watch streams what happened after the given version, or, without one, the
// objects as they are and what happens from then on.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, c Call) {
	flusher, ok := w.(http.Flusher)
	if !ok {
		http.Error(w, "cannot stream", http.StatusInternalServerError)
		return
	}
	version := r.URL.Query().Get("resourceVersion")
	from, err := strconv.Atoi(version)
	if err != nil && version != "" {
		writeStatus(w, Status(http.StatusBadRequest, metav1.StatusReasonBadRequest, "resourceVersion"))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	wanted := wantedBy(c)
	s.mu.Lock()
	rewatch := s.rewatch
	var first []event
	if version == "" {
		from, first = s.version, s.present(wanted)
	}
	s.mu.Unlock()
	for {
		s.mu.Lock()
		events, changed := append(first, s.events...), s.changed
		s.mu.Unlock()
		first = nil
		for _, e := range events {
			if !wanted(e) || (e.version <= from && e.kind != initial) {
				continue
			}
			from = max(from, e.version)
			if json.NewEncoder(w).Encode(Object{"type": strings.TrimPrefix(e.kind, "INITIAL-"), "object": e.object}) != nil {
				return
			}
		}
		flusher.Flush()
		select {
		case <-changed:
		case <-rewatch:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// wantedBy tells the events that the watch c is about.
func wantedBy(c Call) func(event) bool {
	k := key(c.Resource, c.Namespace, c.Name)
	return func(e event) bool { return e.resource == c.Resource && (c.Name == "" || e.key == k) }
}

// initial is the kind of the events a watch without a version begins with.
const initial = "INITIAL-ADDED"

// present returns the objects there are as events of the kind initial. It must
// be called with the lock held.
func (s *Server) present(wanted func(event) bool) []event {
	var events []event
	for k, o := range s.objects {
		resource, _, _ := strings.Cut(k, "/")
		if e := (event{key: k, kind: initial, resource: resource}); wanted(e) {
			e.object = clone(o.object)
			events = append(events, e)
		}
	}
	return events
}
