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
	rec, err := with.records.Run(ctx, w.UID)
	known := !errors.Is(err, store.ErrNotFound)
	if err != nil && known {
		return err
	}
	if !known || !agrees(w, &rec) {
		var closed bool
		if rec, closed, err = r.close(ctx, with, w, rec, known); err != nil || !closed {
			return err
		}
	}
	return r.label(ctx, w, &rec)
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
	with := &opened{}
	if with.records, err = r.cfg.Records(ctx, inst); err != nil {
		return nil, err
	}
	if r.cfg.News != nil {
		if with.news, err = r.cfg.News(ctx, inst); err != nil {
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
func (r *Reconciler) close(ctx context.Context, with *opened, w *kube.Workflow, old record.Run, known bool) (rec record.Run, closed bool, err error) {
	records := with.records
	stages, err := records.Stages(ctx, w.UID)
	if err != nil {
		return record.Run{}, false, err
	}
	if over, err := r.over(ctx, w); err != nil || !over {
		return record.Run{}, false, err
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
	if known { // what the run itself said of its arguments, defaults included
		old.CompletedAt, old.Status, old.Reason, old.Stages = rec.CompletedAt, rec.Status, rec.Reason, rec.Stages
		rec = old
	}
	if !r.cfg.DryRun {
		for _, i := range v.ended {
			if err := records.PutStage(ctx, w.UID, v.stages[i]); err != nil {
				return record.Run{}, false, err
			}
		}
		rec.Notifications = r.announce(ctx, with, w, rec)
		if err := records.Put(ctx, rec); err != nil {
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
