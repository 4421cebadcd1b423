package validate

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// cluster is what replacing a run needs of internal/kube.
type cluster interface {
	Workflow(ctx context.Context, namespace, name string) (*kube.Workflow, error)
	WorkflowTemplate(ctx context.Context, namespace, name string) (*unstructured.Unstructured, error)
	CreateWorkflow(ctx context.Context, namespace string, manifest map[string]any) (*kube.Workflow, error)
	AnnotateWorkflow(ctx context.Context, namespace, name, uid string, annotations map[string]string) (*kube.Workflow, error)
}

// Replacer starts replacements of runs whose topology is out of date.
//
// A Workflow keeps the template of the moment it was created, also while it
// waits for the pipeline's lock. If its predecessor changes the pipeline, the
// waiting run would deliver its commit through stages that no longer exist.
type Replacer struct{ cluster cluster }

// NewReplacer returns a Replacer working on c.
func NewReplacer(c cluster) *Replacer { return &Replacer{cluster: c} }

var _ Start = (*Replacer)(nil)

// Replace compares the run's topology with that of the pipeline's template. If
// they differ it creates the replacement, whose name depends only on the run
// and the topology, links both runs and returns the replacement's name.
// Calling it again finds the same replacement.
//
// Errors: KubernetesRejected; Cancelled.
func (r *Replacer) Replace(ctx context.Context, req task.Request) (string, error) {
	template, err := r.cluster.WorkflowTemplate(ctx, req.Run.Namespace, req.Pipeline)
	if errors.Is(err, kube.ErrNotFound) {
		return "", nil // nothing to compare with: a run made from a plain manifest
	}
	if err != nil {
		return "", rejected(ctx, "read the pipeline's template", err)
	}
	current := template.GetAnnotations()[pipeline.AnnotationTopology]
	if current == "" || current == req.Topology {
		return "", nil
	}
	run, err := r.cluster.Workflow(ctx, req.Run.Namespace, req.Run.Name)
	if err != nil {
		return "", rejected(ctx, "read the run", err)
	}
	name, manifest := pipeline.Replacement(pipeline.Replaced{
		Name: req.Run.Name, Namespace: req.Run.Namespace, UID: req.Run.UID,
		Pipeline: req.Pipeline, Topology: current, Arguments: run.Parameters,
	})
	if _, err := r.cluster.CreateWorkflow(ctx, req.Run.Namespace, manifest); err != nil && !errors.Is(err, kube.ErrExists) {
		return "", rejected(ctx, "start the replacement of the run", err)
	}
	if _, err := r.cluster.AnnotateWorkflow(ctx, req.Run.Namespace, req.Run.Name, req.Run.UID, map[string]string{pipeline.AnnotationReplacedBy: name}); err != nil {
		return "", rejected(ctx, "link the run to its replacement", err)
	}
	return name, nil
}

func rejected(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		return awserr.Ended(ctx, op)
	}
	if !errors.Is(err, kube.ErrForbidden) {
		err = fmt.Errorf("the API server refused: %w", err)
	}
	return kube.Fault(op, err, "Apply the manifests of this version: the plugin's service account needs get, patch and create on workflows and get on workflowtemplates",
		"Retry the run when the API server is back")
}
