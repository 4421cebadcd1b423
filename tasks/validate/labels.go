package validate

import (
	"context"

	"github.com/aphex-pipeline/aphex/internal/git"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// labeled is what labelling a run needs of internal/kube.
type labeled interface {
	Workflow(ctx context.Context, namespace, name string) (*kube.Workflow, error)
	LabelWorkflow(ctx context.Context, namespace, name, uid string, labels map[string]string) (*kube.Workflow, error)
}

// Labels returns what gives a run the labels it is found by, should it lack
// them. They stand in the template, but Argo v3.7.18 leaves them out of a
// Workflow whose processing it postpones at first: with a limit to parallel
// Workflows, and now and then without one.
func Labels(cluster labeled) func(ctx context.Context, req task.Request) error {
	return func(ctx context.Context, req task.Request) error {
		const op = "look at the run's labels"
		run, err := cluster.Workflow(ctx, req.Run.Namespace, req.Run.Name)
		if err != nil {
			return rejected(ctx, op, err)
		}
		if run.UID != req.Run.UID || run.Labels[pipeline.LabelPipeline] != "" {
			return nil
		}
		labels := map[string]string{pipeline.LabelPipeline: req.Pipeline}
		if git.CheckCommit(req.Commit) == nil {
			labels[pipeline.LabelCommit] = req.Commit
		}
		if _, err := cluster.LabelWorkflow(ctx, req.Run.Namespace, req.Run.Name, req.Run.UID, labels); err != nil {
			return rejected(ctx, op, err)
		}
		return nil
	}
}
