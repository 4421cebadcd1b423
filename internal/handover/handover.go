package handover

import (
	"context"
	"errors"
	"fmt"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

// cluster is what handing over needs of internal/kube.
type cluster interface {
	Workflow(ctx context.Context, namespace, name string) (*kube.Workflow, error)
	CreateWorkflow(ctx context.Context, namespace string, manifest map[string]any) (*kube.Workflow, error)
	AnnotateWorkflow(ctx context.Context, namespace, name, uid string, annotations map[string]string) (*kube.Workflow, error)
}

var _ cluster = (*kube.Client)(nil)

// Run is a run that may be handed over.
type Run struct {
	Namespace, Name, UID, Pipeline string
}

// Handover hands runs over. It is safe for concurrent use.
type Handover struct{ cluster cluster }

// New returns a Handover working on c.
func New(c cluster) *Handover { return &Handover{cluster: c} }

// Begin hands run over and returns its successor's name. The pipeline's
// template must have the new topology by now. Calling it again finds the same
// successor.
//
// Errors: KubernetesRejected; Cancelled. After an error the run may have been
// marked: Successor tells.
func (h *Handover) Begin(ctx context.Context, run Run) (string, error) {
	w, err := h.read(ctx, run)
	if err != nil {
		return "", err
	}
	name, _ := pipeline.Successor(handedOver(run, w))
	if w.Annotations[pipeline.AnnotationHandedOver] != name {
		mark := map[string]string{pipeline.AnnotationHandedOver: name}
		if _, err := h.cluster.AnnotateWorkflow(ctx, run.Namespace, run.Name, run.UID, mark); err != nil {
			return "", rejected(ctx, "mark the run as handed over", err)
		}
	}
	return name, h.create(ctx, run, w)
}

// Successor returns the name of the successor that run has been handed over
// to, and sees that it is there; empty if the run has not been.
//
// Errors: KubernetesRejected; Cancelled.
func (h *Handover) Successor(ctx context.Context, run Run) (string, error) {
	w, err := h.read(ctx, run)
	if err != nil {
		return "", err
	}
	name := w.Annotations[pipeline.AnnotationHandedOver]
	if name == "" {
		return "", nil
	}
	return name, h.create(ctx, run, w)
}

func (h *Handover) read(ctx context.Context, run Run) (*kube.Workflow, error) {
	const op = "read the run"
	w, err := h.cluster.Workflow(ctx, run.Namespace, run.Name)
	if err == nil && w.UID != run.UID {
		err = fmt.Errorf("run %s has UID %s, not %s: %w", run.Name, w.UID, run.UID, kube.ErrConflict)
	}
	if err != nil {
		return nil, rejected(ctx, op, err)
	}
	return w, nil
}

// create creates the successor unless it is there: the API server, not a look
// before, decides that.
func (h *Handover) create(ctx context.Context, run Run, w *kube.Workflow) error {
	_, manifest := pipeline.Successor(handedOver(run, w))
	if _, err := h.cluster.CreateWorkflow(ctx, run.Namespace, manifest); err != nil && !errors.Is(err, kube.ErrExists) {
		return rejected(ctx, "start the successor of the run", err)
	}
	return nil
}

func handedOver(run Run, w *kube.Workflow) pipeline.HandedOver {
	return pipeline.HandedOver{Name: run.Name, Namespace: run.Namespace, UID: run.UID, Pipeline: run.Pipeline, Arguments: w.Parameters}
}

func rejected(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		return awserr.Ended(ctx, op)
	}
	if !errors.Is(err, kube.ErrForbidden) {
		err = fmt.Errorf("the API server refused: %w", err)
	}
	return kube.Fault(op, err, "Apply the manifests of this version: the plugin's service account needs get, patch and create on workflows",
		"Retry the run when the API server is back")
}
