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
}

var _ workflows = (*kube.Client)(nil)

// KubeRuns answers from the Workflow objects. It needs get on them, and watch
// to notice stop requests at once.
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
