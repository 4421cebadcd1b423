package execution

import (
	"context"
	"errors"
	"time"

	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// workflows is what KubeRuns needs of the cluster.
type workflows interface {
	Workflow(ctx context.Context, namespace, name string) (*kube.Workflow, error)
	WatchWorkflow(ctx context.Context, namespace, name string, fn func(*kube.Workflow) (done bool)) error
	TaskSet(ctx context.Context, namespace, name string) (*kube.TaskSet, error)
}

var _ workflows = (*kube.Client)(nil)

// KubeRuns answers from the Workflow objects and their task sets. It needs get
// on both, and watch on Workflows to notice stop requests at once.
type KubeRuns struct{ client workflows }

// NewKubeRuns returns a KubeRuns on top of client.
func NewKubeRuns(client workflows) *KubeRuns { return &KubeRuns{client: client} }

// State implements Runs.
func (k *KubeRuns) State(ctx context.Context, run task.Run) (RunState, error) {
	w, err := k.client.Workflow(ctx, run.Namespace, run.Name)
	switch {
	case errors.Is(err, kube.ErrNotFound):
		return RunState{Finished: true}, nil
	case errors.Is(err, kube.ErrForbidden):
		return RunState{}, errors.Join(ErrNoAccess, err)
	case err != nil:
		return RunState{}, err
	}
	return stateOf(w, run), nil
}

// Watch implements Runs.
func (k *KubeRuns) Watch(ctx context.Context, run task.Run, fn func(RunState)) error {
	err := k.client.WatchWorkflow(ctx, run.Namespace, run.Name, func(w *kube.Workflow) bool {
		state := stateOf(w, run)
		fn(state)
		return w.UID != run.UID
	})
	if errors.Is(err, kube.ErrNotFound) {
		fn(RunState{Finished: true})
		return nil
	}
	return err
}

// Wanted implements Runs. A Workflow whose nodes cannot be seen wants them all.
func (k *KubeRuns) Wanted(ctx context.Context, run task.Run, node string) (bool, error) {
	id := kube.NodeID(run.Name, node)
	tasks, err := k.client.TaskSet(ctx, run.Namespace, run.Name)
	switch {
	case errors.Is(err, kube.ErrForbidden):
		return true, errors.Join(ErrNoAccess, err)
	case err == nil && tasks.Tasks[id]:
		return true, nil
	case err != nil && !errors.Is(err, kube.ErrNotFound):
		return true, err
	}
	w, err := k.client.Workflow(ctx, run.Namespace, run.Name)
	switch {
	case errors.Is(err, kube.ErrNotFound):
		return false, nil
	case err != nil:
		return true, err
	case w.UID != run.UID:
		return false, nil
	}
	known, _ := w.Progress()
	n, ok := w.Node(id)
	return known == 0 || (ok && !kube.Fulfilled(n.Phase)), nil
}

// stateOf is what w says about run; another Workflow of the same name says
// that run is gone.
func stateOf(w *kube.Workflow, run task.Run) RunState {
	if w.UID != run.UID {
		return RunState{Finished: true}
	}
	state := RunState{Shutdown: w.Shutdown, Finished: w.Finished()}
	if !w.StartedAt.IsZero() {
		state.Epoch = w.StartedAt.UTC().Format(time.RFC3339)
	}
	return state
}
