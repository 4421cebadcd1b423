// Package order keeps the stages of a run in their order where Argo does not.
//
// `argo resubmit --memoized` makes a run whose stages are all pending at once
// and hands every one of them to the plugin: a production environment would be
// deployed beside the build. The stages of aphex follow one another, so a stage
// that is asked for while another one has not ended well is refused.
package order

import (
	"context"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// workflows is what the guard needs of the cluster.
type workflows interface {
	Workflow(ctx context.Context, namespace, name string) (*kube.Workflow, error)
}

var _ workflows = (*kube.Client)(nil)

// Guard returns the registry with every stage of the chain guarded: all but
// finish, which is the exit handler, and noop.
//
// A guarded stage fails with OutOfOrder before it does anything. Where the
// Workflow cannot be read it is run: Argo is right then, as nearly always.
func Guard(registry task.Registry, client workflows) task.Registry {
	guarded := task.Registry{}
	for stage, runner := range registry {
		guarded[stage] = runner
		if stage != task.StageFinish && stage != task.StageNoop {
			guarded[stage] = guard(client, runner)
		}
	}
	return guarded
}

func guard(client workflows, runner task.Runner) task.RunnerFunc {
	return func(ctx context.Context, req task.Request, env task.Env) (task.Result, error) {
		w, err := client.Workflow(ctx, req.Run.Namespace, req.Run.Name)
		if err == nil {
			if other, phase := blocking(w, req.Node); other != "" {
				return task.Result{}, fault.Newf(fault.User, fault.OutOfOrder, "run the stage",
					"Submit a new run of this commit, or resubmit without memoization",
					"it was started although %s is %s: a memoized resubmit starts all stages at once", other, phase)
			}
		}
		return runner.Run(ctx, req, env)
	}
}

// attempt reports whether a node's name is that of one of several attempts,
// such as "build(0)". The node named "build" has the stage's phase then.
func attempt(name string) bool {
	return strings.HasSuffix(name, ")") && strings.Contains(name, "(")
}

// blocking returns a stage that must have ended well before node, and has not.
func blocking(w *kube.Workflow, node string) (name, phase string) {
	for _, n := range w.Nodes() {
		stage, ours := strings.CutPrefix(n.Name, w.Name+".")
		if !ours || n.Name == node || stage == "onExit" || strings.HasPrefix(stage, "onExit.") || attempt(stage) {
			continue
		}
		switch n.Phase {
		case kube.PhaseSucceeded, kube.PhaseSkipped, kube.PhaseOmitted:
			continue
		case kube.PhaseFailed, kube.PhaseError:
			if stage == task.StageDeployPipeline { // is allowed to fail
				continue
			}
		}
		return stage, strings.ToLower(n.Phase)
	}
	return "", ""
}
