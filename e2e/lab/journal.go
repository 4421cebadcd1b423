package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

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

// Gaps are the times from the end of each of the run's stages to the start of
// the next. It is an error if the journal has not exactly that many stages,
// each begun once and ended well.
func (r *Run) Gaps(ctx context.Context, uid string, stages int) ([]time.Duration, error) {
	entries, err := r.Journal(ctx, uid)
	if err != nil {
		return nil, err
	}
	if len(entries) != stages {
		return nil, fmt.Errorf("the journal of %s has %d stages, not %d", r.Name, len(entries), stages)
	}
	var gaps []time.Duration
	for i, e := range entries {
		if e.Starts != 1 || e.EndedAt == nil || e.Phase != "Succeeded" {
			return nil, fmt.Errorf("stage %s of %s was begun %d times and ended %q", e.Node, r.Name, e.Starts, e.Phase)
		}
		if i > 0 {
			gaps = append(gaps, e.StartedAt.Sub(*entries[i-1].EndedAt))
		}
	}
	return gaps, nil
}

// Quantile is the smallest of the values that at least the share q of them
// does not exceed; zero of none.
func Quantile(values []time.Duration, q float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, max(0, int(math.Ceil(q*float64(len(sorted))))-1))]
}
