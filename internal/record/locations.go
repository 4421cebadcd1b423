package record

import (
	"context"
	"fmt"
	"strings"
)

// WithEvents returns the record of a deploy-env stage with where the events of
// its stacks are.
//
// Errors: those of the bucket.
func (r *Recorder) WithEvents(ctx context.Context, uid string, s Stage) (Stage, error) {
	prefix := eventsPrefix(uid) + s.Environment + "/"
	listed, err := r.store.List(ctx, prefix)
	if err != nil {
		return s, fmt.Errorf("list the events of %s: %w", s.StageName, err)
	}
	for _, object := range listed {
		if !strings.Contains(strings.TrimPrefix(object.Key, prefix), "/") { // what is below is no stack
			s.EventURLs = append(s.EventURLs, r.store.URL(object.Key))
		}
	}
	return s, nil
}
