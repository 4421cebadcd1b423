package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/aphex-pipeline/aphex/plugin/journal"
)

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

// Journal reads what the run's journal has about its stages, in the order they
// began. Its times are those of the process that ran them.
func (r *Run) Journal(ctx context.Context, uid string) ([]journal.Entry, error) {
	obj, err := r.lab.Dynamic.Resource(configMaps).Namespace(r.Namespace).Get(ctx, journal.Name(uid), metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the journal of %s: %w", r.Name, err)
	}
	data, _, err := unstructured.NestedStringMap(obj.Object, "data")
	if err != nil {
		return nil, fmt.Errorf("read the journal of %s: %w", r.Name, err)
	}
	var entries []journal.Entry
	for key, text := range data {
		if !strings.HasPrefix(key, "execution.") {
			continue
		}
		var e journal.Entry
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			return nil, fmt.Errorf("decode %s of the journal of %s: %w", key, r.Name, err)
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b journal.Entry) int { return a.StartedAt.Compare(b.StartedAt) })
	return entries, nil
}
