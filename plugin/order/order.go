// Package order keeps the stages of a run in their order where Argo does not.
//
// `argo resubmit --memoized` makes a run whose stages are all pending at once
// and hands every one of them to the plugin: a production environment would be
// deployed beside the build. The stages of aphex follow one another, so a stage
// that is asked for while another one has not ended well is refused.
//
// Where each stage has a pod, Argo keeps the order, but makes results of the
// other run those of the new one, whose snapshot, outputs and records do not
// exist: its stages are refused too.
package order

import (
	"context"
	"fmt"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// Workflows is what a guard needs of the cluster.
type Workflows interface {
	Workflow(ctx context.Context, namespace, name string) (*kube.Workflow, error)
}

var _ Workflows = (*kube.Client)(nil)

// Guard returns the registry with every stage of the chain guarded: all but
// finish, which is the exit handler, and noop.
//
// A guarded stage fails with OutOfOrder before it does anything. Where the
// Workflow cannot be read it is run: Argo is right then, as nearly always.
func Guard(registry task.Registry, client Workflows) task.Registry {
	return guardAll(registry, client, func(w *kube.Workflow, node string) string {
		other, phase := blocking(w, node)
		if other == "" {
			return ""
		}
		return fmt.Sprintf("it was started although %s is %s: a memoized resubmit starts all stages at once", other, phase)
	})
}

// GuardPods is Guard for stages that have a pod each. It does not ask for the
// phases of other stages: Argo creates a pod before it writes that the stage
// before it has ended.
func GuardPods(registry task.Registry, client Workflows) task.Registry {
	return guardAll(registry, client, func(w *kube.Workflow, _ string) string {
		other := borrowed(w)
		if other == "" {
			return ""
		}
		return "the result of " + other + " is that of another run, whose products this one does not have: a memoized resubmit takes results over"
	})
}

// guardAll guards the stages of the chain by what refuse says of the Workflow
// and the stage's node; empty is nothing.
func guardAll(registry task.Registry, client Workflows, refuse func(w *kube.Workflow, node string) string) task.Registry {
	guarded := task.Registry{}
	for stage, runner := range registry {
		guarded[stage] = runner
		if stage != task.StageFinish && stage != task.StageNoop {
			guarded[stage] = guard(client, runner, refuse)
		}
	}
	return guarded
}

func guard(client Workflows, runner task.Runner, refuse func(w *kube.Workflow, node string) string) task.RunnerFunc {
	return func(ctx context.Context, req task.Request, env task.Env) (task.Result, error) {
		w, err := client.Workflow(ctx, req.Run.Namespace, req.Run.Name)
		if err == nil {
			if why := refuse(w, req.Node); why != "" {
				return task.Result{}, fault.Newf(fault.User, fault.OutOfOrder, "run the stage",
					"Submit a new run of this commit, or resubmit without memoization", "%s", why)
			}
		}
		return runner.Run(ctx, req, env)
	}
}

// original begins the message of a node whose result a memoized resubmit took
// from a pod of another run.
//
// Source: workflow/util, FormulateResubmitWorkflow, Argo v3.7.18.
const original = "original pod: "

// borrowed returns a stage whose result is that of another run.
func borrowed(w *kube.Workflow) string {
	for _, n := range w.Nodes() {
		stage, ours := strings.CutPrefix(n.Name, w.Name+".")
		if ours && n.Phase == kube.PhaseSkipped && strings.HasPrefix(n.Message, original) {
			stage, _, _ = strings.Cut(stage, "(")
			return stage
		}
	}
	return ""
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
