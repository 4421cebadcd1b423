package record

import (
	"context"
	"fmt"
)

// WithEvents returns the record of a deploy-env stage with where the events of
// its stacks are.
//
// Errors: those of the bucket.
func (r *Recorder) WithEvents(ctx context.Context, uid string, s Stage) (Stage, error) {
	listed, err := r.store.List(ctx, eventsPrefix(uid)+s.Environment+"/")
	if err != nil {
		return s, fmt.Errorf("list the events of %s: %w", s.StageName, err)
	}
	for _, object := range listed {
		s.EventURLs = append(s.EventURLs, r.store.URL(object.Key))
	}
	return s, nil
}
