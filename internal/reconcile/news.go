package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/record"
)

// The finish step of a run has the channels that hear of its end: in the body
// of its plugin step, or in an argument of its container. A test of
// tasks/workflow holds this and the generator together.
const (
	templateFinish   = "finish"
	bodyChannels     = "notifications"
	argumentChannels = "--notifications="
)

// Plan returns the channels that hear of a run's end, as the template that the
// run was made from has them.
func Plan(templates []kube.StoredTemplate) (notify.Plan, error) {
	for _, t := range templates {
		if t.Name != templateFinish {
			continue
		}
		for _, body := range t.Plugin {
			values, _ := body.(map[string]any) // of another plugin
			if text, ok := values[bodyChannels].(string); ok {
				return notify.Decode(text)
			}
		}
		for _, argument := range t.Args {
			if text, ok := strings.CutPrefix(argument, argumentChannels); ok {
				return notify.Decode(text)
			}
		}
	}
	return notify.Plan{}, nil
}

// announce tells the channels of the run what its finish stage would have told
// them, but for those that heard of this very end before, and returns what
// came of it. Nothing that goes wrong keeps the record from being closed.
func (r *Reconciler) announce(ctx context.Context, with *opened, w *kube.Workflow, rec record.Run) []record.Notification {
	before := rec.Notifications
	plan, err := Plan(w.StoredTemplates)
	if err != nil {
		_, _ = fmt.Fprintf(r.cfg.Output, "told nobody of the end of run %s: %v\n", w.Name, err)
		return before
	}
	if with.news == nil || len(plan.Channels) == 0 {
		return before
	}
	event := notify.NewEvent(rec, w.StartedAt.UTC().Format(time.RFC3339), plan.ArgoURL, with.records.RunURL(w.UID))
	heard := func(n int) bool {
		return slices.ContainsFunc(before, func(told record.Notification) bool {
			return told.Type == plan.Channels[n].Type && told.Target == plan.Channels[n].Target &&
				told.Status == record.NotificationSent && told.Key == event.Key
		})
	}
	results := with.news.Announce(ctx, plan.Channels, event, heard, func(n int) {
		r.say("told", "tell", "%s %s of the end of run %s", plan.Channels[n].Type, plan.Channels[n].Target, w.Name)
	})
	for _, result := range results {
		if result.Status == record.NotificationFailed {
			_, _ = fmt.Fprintf(r.cfg.Output, "could not tell %s %s of the end of run %s: %s\n", result.Type, result.Target, w.Name, result.Error)
		}
	}
	return results
}
