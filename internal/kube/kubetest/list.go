package kubetest

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// list answers a page of the objects that the label selector fits, in the
// order of their names. Its continue token is the name of the last one.
func (s *Server) list(r *http.Request, c Call) (Object, *metav1.Status) {
	query := r.URL.Query()
	selector, err := labels.Parse(query.Get("labelSelector"))
	if err != nil {
		return nil, Status(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
	}
	limit, err := strconv.Atoi(query.Get("limit"))
	if err != nil || limit <= 0 {
		limit = len(s.objects) + 1
	}
	meta := Object{"resourceVersion": strconv.Itoa(s.version)}
	items, last := []any{}, ""
	for _, k := range slices.Sorted(maps.Keys(s.objects)) {
		name, ok := strings.CutPrefix(k, key(c.Resource, c.Namespace, ""))
		if !ok || name <= query.Get("continue") || !selector.Matches(labelsOf(s.objects[k].object)) {
			continue
		}
		if len(items) == limit {
			meta["continue"] = last
			break
		}
		last = name
		items = append(items, clone(s.objects[k].object))
	}
	return Object{"kind": "List", "apiVersion": "v1", "metadata": meta, "items": items}, nil
}

func labelsOf(o Object) labels.Set {
	set := labels.Set{}
	values, _ := metadata(o)["labels"].(map[string]any) // nil has none
	for name, value := range values {
		set[name] = text(value)
	}
	return set
}
