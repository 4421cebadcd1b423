package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
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

// patience is how long after the end of a run its record may be unreadable or
// unwritable before its end is told without: buckets have bad minutes.
const patience = 10 * time.Minute

// onExit ends the name of a run's finish node.
const onExit = ".onExit"

// told reports whether the end of this try has been told of: by the run's
// finish stage, which does so whatever becomes of the record, or by a pass. It
// asks the Workflow alone, since a bucket that does not answer must not make
// every run of the namespace news again.
func told(w *kube.Workflow, rec *record.Run) bool {
	finish, _ := w.Node(kube.NodeID(w.Name, w.Name+onExit))
	return finish.Phase == kube.PhaseSucceeded || w.Labels[pipeline.LabelAnnounced] == endKey(w, rec)
}

// endKey is the key of the end's announcement.
func endKey(w *kube.Workflow, rec *record.Run) string { return event(w, *rec, "").Key }

// event is the end of a run as its finish stage would have told it.
func event(w *kube.Workflow, rec record.Run, argoURL string) notify.Event {
	return notify.NewEvent(rec, w.StartedAt.UTC().Format(time.RFC3339), argoURL, "")
}

// announce tells the channels of the run what its finish stage would have told
// them, but for those that the record says have heard of this very end, and
// returns what came of it. Nothing that goes wrong keeps the record from being
// closed. damage is why it will not be.
func (r *Reconciler) announce(ctx context.Context, with *opened, w *kube.Workflow, rec record.Run, damage error) []record.Notification {
	before := rec.Notifications
	plan, err := Plan(w.StoredTemplates)
	if err != nil {
		_, _ = fmt.Fprintf(r.cfg.Output, "told nobody of the end of run %s: %v\n", w.Name, err)
		return before
	}
	if with.news == nil || len(plan.Channels) == 0 {
		return before
	}
	e := event(w, rec, plan.ArgoURL)
	if damage == nil {
		e.RecordURL = with.records.all.RunURL(w.UID)
	} else {
		e.RecordError = fault.Message(damage)
	}
	heard := func(n int) bool {
		return slices.ContainsFunc(before, func(told record.Notification) bool {
			return told.Type == plan.Channels[n].Type && told.Target == plan.Channels[n].Target &&
				told.Status == record.NotificationSent && told.Key == e.Key
		})
	}
	results := with.news.Announce(ctx, plan.Channels, e, heard, func(n int) {
		r.say("told", "tell", "%s %s of the end of run %s", plan.Channels[n].Type, plan.Channels[n].Target, w.Name)
	})
	for _, result := range results {
		if result.Status == record.NotificationFailed {
			_, _ = fmt.Fprintf(r.cfg.Output, "could not tell %s %s of the end of run %s: %s\n", result.Type, result.Target, w.Name, result.Error)
		}
	}
	return results
}

// measure sends the figures of the end, unless the record says that those of
// this try were sent.
func (r *Reconciler) measure(ctx context.Context, with *opened, w *kube.Workflow, rec *record.Run) {
	since := rec.Measured()
	if with.figures == nil || !since.Before(w.StartedAt) {
		return
	}
	err := with.figures(ctx, *rec, since)
	if err != nil {
		_, _ = fmt.Fprintf(r.cfg.Output, "sent no figures of run %s: %s\n", w.Name, fault.Message(err))
		rec.Measure(fault.Message(err))
		return
	}
	rec.Measure("")
}
