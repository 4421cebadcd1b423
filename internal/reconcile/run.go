package reconcile

import (
	"context"
	"errors"
	"fmt"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
)

// run makes the record of a run that is over say how it ended, and the run's
// labels what the record says. Doing it again changes nothing.
func (r *Reconciler) run(ctx context.Context, w *kube.Workflow) error {
	with, err := r.open(ctx, w.Labels[pipeline.LabelPipeline])
	if with == nil || err != nil {
		return err
	}
	rec, err := with.records.run(ctx, w.UID)
	known := !errors.Is(err, store.ErrNotFound)
	switch {
	case err != nil && known:
		_, _, err = r.close(ctx, with, w, record.Run{}, known, err)
		return err
	case !known || !agrees(w, &rec):
		var closed bool
		if rec, closed, err = r.close(ctx, with, w, rec, known, nil); err != nil || !closed {
			return err
		}
	case !told(w, &rec):
		if over, err := r.catchUp(ctx, with, w, &rec); err != nil || !over {
			return err
		}
	}
	return r.label(ctx, w, &rec)
}

// catchUp tells of the end of a run that closed its record and came no further.
// over is false if the run is not to be touched now: its finish stage may still
// be telling.
func (r *Reconciler) catchUp(ctx context.Context, with *opened, w *kube.Workflow, rec *record.Run) (over bool, err error) {
	if over, err = r.over(ctx, w); err != nil || !over || r.cfg.DryRun {
		return over, err
	}
	before := rec.Metrics
	r.measure(ctx, with, w, rec)
	changed := rec.Metrics != before
	if len(rec.Notifications) == 0 {
		rec.Notifications = r.announce(ctx, with, w, *rec, nil)
		changed = changed || len(rec.Notifications) > 0
	}
	if !changed {
		return true, nil // it concerns nobody, or the record has it
	}
	if err := with.records.put(ctx, *rec); err != nil {
		return false, errors.Join(err, r.mark(ctx, w, rec))
	}
	return true, nil
}

// open returns what the runs of a pipeline are closed with, nil if it is not
// installed.
func (r *Reconciler) open(ctx context.Context, name string) (*opened, error) {
	if with, ok := r.opened[name]; ok {
		return with, nil
	}
	r.opened[name] = nil // whatever goes wrong is said once
	op := "read the installation of pipeline " + name
	cm, err := r.cfg.Cluster.ConfigMap(ctx, r.cfg.Namespace, pipeline.InstallationName(name))
	if errors.Is(err, kube.ErrNotFound) {
		_, _ = fmt.Fprintf(r.cfg.Output, "left the runs of pipeline %s alone: it is not installed here (no ConfigMap %s)\n", name, pipeline.InstallationName(name))
		return nil, nil //nolint:nilnil // nothing to close is an ordinary answer
	}
	if err != nil {
		return nil, rejected(err)
	}
	inst, err := pipeline.LoadInstallation(pipeline.InstallationKey, []byte(cm.Data[pipeline.InstallationKey]))
	if err == nil && (inst.Pipeline != name || inst.Namespace != r.cfg.Namespace) {
		err = fmt.Errorf("it describes pipeline %s in namespace %s", inst.Pipeline, inst.Namespace)
	}
	if err != nil {
		return nil, fault.Wrap(fault.User, fault.ConfigInvalid, op, "Mend the ConfigMap "+cm.Name, err)
	}
	all, err := r.cfg.Records(ctx, inst)
	if err != nil {
		return nil, err
	}
	with := &opened{records: &records{all: all, answer: r.cfg.Answer}}
	if r.cfg.News != nil {
		if with.news, err = r.cfg.News(ctx, inst); err != nil {
			return nil, err
		}
	}
	if r.cfg.Figures != nil {
		if with.figures, err = r.cfg.Figures(ctx, inst); err != nil {
			return nil, err
		}
	}
	r.opened[name] = with
	return with, nil
}

// close writes what is missing of the records: the stages' first, so that a
// run's closed record is never ahead of them. The end is announced before the
// last write, so that a pass after one that died tells of it, with the same
// key. closed is false if the run is not to be touched now.
//
// damage is why the run's record cannot be read, if it cannot, see write. Then
// the run has begun if one of its stages has.
func (r *Reconciler) close(ctx context.Context, with *opened, w *kube.Workflow, old record.Run, known bool, damage error) (rec record.Run, closed bool, err error) {
	stages, err := with.records.stages(ctx, w.UID)
	if damage == nil {
		damage = err
	}
	if over, err := r.over(ctx, w); err != nil || !over {
		return record.Run{}, false, err
	}
	recorded := known && old.WorkflowID == w.UID
	if damage != nil {
		stages = WithNodes(w, stages)
		known = known && (recorded || len(stages) > 0)
	}
	v := judge(w, known, stages)
	rec = record.Run{
		SchemaVersion: record.SchemaVersion, WorkflowID: w.UID, WorkflowName: w.Name, Namespace: w.Namespace,
		Pipeline: w.Labels[pipeline.LabelPipeline], CommitSHA: w.Parameters[pipeline.ArgumentCommit],
		Branch: w.Parameters[pipeline.ArgumentBranch], RepoURL: w.Parameters[pipeline.ArgumentRepoURL],
		Predecessor: w.Parameters[pipeline.ArgumentPredecessor],
		TriggeredAt: w.CreatedAt, CompletedAt: &w.FinishedAt,
		Status: v.status, Reason: v.reason, Stages: v.stages,
	}
	if recorded { // what the run itself said of its arguments, defaults included
		old.CompletedAt, old.Status, old.Reason, old.Stages = rec.CompletedAt, rec.Status, rec.Reason, rec.Stages
		rec = old
	}
	if damage != nil && r.cfg.DryRun {
		return record.Run{}, false, damage
	}
	if !r.cfg.DryRun {
		if err := r.write(ctx, with, w, &rec, v.ended, damage); err != nil {
			return record.Run{}, false, err
		}
	}
	ending := string(rec.Status)
	if rec.Reason != "" {
		ending += ", " + rec.Reason
	}
	r.say("closed", "close", "the record of run %s (%s): %s", w.Name, w.UID, ending)
	return rec, true, nil
}

// write tells of the end and makes the records say so: those of the stages at
// the indexes ended, and the run's. Where a record is damaged or cannot be
// written, it waits for patience to be over, tells of the end by what is known
// and marks the run, so that the next pass tells nobody again.
func (r *Reconciler) write(ctx context.Context, with *opened, w *kube.Workflow, rec *record.Run, ended []int, damage error) error {
	for _, i := range ended {
		if damage == nil {
			damage = with.records.putStage(ctx, w.UID, rec.Stages[i])
		}
	}
	if damage != nil && r.cfg.Now().Sub(w.FinishedAt) < patience {
		return damage
	}
	if !told(w, rec) {
		r.measure(ctx, with, w, rec)
		rec.Notifications = r.announce(ctx, with, w, *rec, damage)
	}
	if damage == nil {
		damage = with.records.put(ctx, *rec)
	}
	if damage != nil {
		return errors.Join(damage, r.mark(ctx, w, rec))
	}
	return nil
}

// mark notes at the run that its end has been told of, unless that shows
// anyway.
func (r *Reconciler) mark(ctx context.Context, w *kube.Workflow, rec *record.Run) error {
	if told(w, rec) {
		return nil
	}
	_, err := r.cfg.Cluster.LabelWorkflow(ctx, w.Namespace, w.Name, w.UID, map[string]string{pipeline.LabelAnnounced: endKey(w, rec)})
	if err == nil || errors.Is(err, kube.ErrNotFound) || errors.Is(err, kube.ErrConflict) {
		return nil // done; gone, or another run of its name
	}
	return rejected(err)
}

// over looks once more, right before the first write: somebody may have
// retried the run, and its pod may still be writing.
func (r *Reconciler) over(ctx context.Context, w *kube.Workflow) (bool, error) {
	pod, err := r.cfg.Cluster.Pod(ctx, w.Namespace, kube.AgentPodName(w.Name))
	if err != nil && !errors.Is(err, kube.ErrNotFound) {
		return false, rejected(err)
	}
	if err == nil && !pod.Over() {
		return false, nil
	}
	now, err := r.cfg.Cluster.Workflow(ctx, w.Namespace, w.Name)
	if errors.Is(err, kube.ErrNotFound) {
		return true, nil // deleted after it ended: what was read of it stands
	}
	if err != nil {
		return false, rejected(err)
	}
	return now.UID == w.UID && now.Finished() && now.StartedAt.Equal(w.StartedAt), nil
}

// label makes the run's labels what its record says.
func (r *Reconciler) label(ctx context.Context, w *kube.Workflow, rec *record.Run) error {
	wanted := map[string]string{pipeline.LabelReason: rec.Reason, pipeline.LabelRecorded: ""}
	if w.Phase == kube.PhaseSucceeded {
		wanted[pipeline.LabelRecorded] = "true"
	}
	if !told(w, rec) { // until now
		wanted[pipeline.LabelAnnounced] = endKey(w, rec)
	}
	differs := false
	for label, value := range wanted {
		differs = differs || w.Labels[label] != value
	}
	if !differs {
		return nil
	}
	if !r.cfg.DryRun {
		_, err := r.cfg.Cluster.LabelWorkflow(ctx, w.Namespace, w.Name, w.UID, wanted)
		if errors.Is(err, kube.ErrNotFound) || errors.Is(err, kube.ErrConflict) {
			return nil // gone, or another run of its name
		}
		if err != nil {
			return rejected(err)
		}
	}
	what := "as recorded"
	if rec.Reason != "" {
		what = pipeline.LabelReason + "=" + rec.Reason
	}
	r.say("labelled", "label", "run %s %s", w.Name, what)
	return nil
}
