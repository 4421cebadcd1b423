package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// Phases of a Workflow and of its nodes, as Argo writes them. An empty phase
// is a Workflow the controller has not seen yet.
const (
	PhasePending   = "Pending"
	PhaseRunning   = "Running"
	PhaseSucceeded = "Succeeded"
	PhaseFailed    = "Failed"
	PhaseError     = "Error"
	PhaseSkipped   = "Skipped"
	PhaseOmitted   = "Omitted"
)

// Fulfilled reports whether phase is one that a node or Workflow stays in.
func Fulfilled(phase string) bool {
	switch phase {
	case PhaseSucceeded, PhaseFailed, PhaseError, PhaseSkipped, PhaseOmitted:
		return true
	}
	return false
}

// Workflow is what aphex reads of an Argo Workflow.
type Workflow struct {
	Name, Namespace, UID string
	// ResourceVersion changes with every write to the object.
	ResourceVersion string
	CreatedAt       time.Time
	// StartedAt is when the controller started (or, after a retry, restarted)
	// the run; zero before that. In whole seconds, UTC.
	StartedAt time.Time
	// FinishedAt is when the run came to its end; zero before that.
	FinishedAt time.Time
	// Phase is empty until the controller has seen the Workflow.
	Phase   string
	Message string
	// Shutdown is "Stop" or "Terminate" once somebody asked for it.
	Shutdown    string
	Labels      map[string]string
	Annotations map[string]string
	// Parameters are the Workflow's arguments that have a plain value.
	Parameters map[string]string
	// TemplateName is the WorkflowTemplate the Workflow was made from, if any.
	TemplateName string
	// StoredTemplates are the templates the run was made of, as the controller
	// has kept them.
	StoredTemplates []StoredTemplate

	nodes map[string]Node
}

// StoredTemplate is what aphex reads of a template: the body of its plugin
// step, or the arguments of its container.
type StoredTemplate struct {
	Name   string
	Plugin map[string]any
	Args   []string
}

// Node is what aphex reads of a Workflow's node.
type Node struct {
	ID, Name, Phase, Message string
}

// Finished reports whether the run has come to its end.
func (w *Workflow) Finished() bool { return Fulfilled(w.Phase) }

// NodePhase returns the phase of the node of that name, such as
// "shop-x7k2p.deploy-dev", or "" if there is none or the Workflow's nodes are
// kept in a database.
func (w *Workflow) NodePhase(name string) string {
	return w.nodes[NodeID(w.Name, name)].Phase
}

// Progress returns how many nodes the Workflow has and how many of them are
// fulfilled: both grow as the run goes on.
func (w *Workflow) Progress() (nodes, fulfilled int) {
	for _, n := range w.nodes {
		if Fulfilled(n.Phase) {
			fulfilled++
		}
	}
	return len(w.nodes), fulfilled
}

// Node returns the node with the given id.
func (w *Workflow) Node(id string) (Node, bool) {
	n, ok := w.nodes[id]
	return n, ok
}

// Nodes returns all nodes, in the order of their ids.
func (w *Workflow) Nodes() []Node {
	nodes := make([]Node, 0, len(w.nodes))
	for _, id := range slices.Sorted(maps.Keys(w.nodes)) {
		nodes = append(nodes, w.nodes[id])
	}
	return nodes
}

// NodeID returns the id Argo gives to the node called node in the Workflow
// called workflow. A retry's n-th attempt has the name "<node>(<n>)".
//
// Source: pkg/apis/workflow/v1alpha1, Workflow.NodeID, Argo v3.7.18.
func NodeID(workflow, node string) string {
	if workflow == node {
		return workflow
	}
	h := fnv.New32a()
	h.Write([]byte(node))
	return fmt.Sprintf("%s-%d", workflow, h.Sum32())
}

// Workflow returns the Workflow of that name.
//
// Errors: ErrNotFound, ErrForbidden.
func (c *Client) Workflow(ctx context.Context, namespace, name string) (*Workflow, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	obj, err := c.dyn.Resource(workflows()).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, classify(err, "get workflow %s/%s", namespace, name)
	}
	return workflowView(obj)
}

// CreateWorkflow creates the Workflow in manifest, whose namespace is set to
// namespace. apiVersion and kind may be left out.
//
// Errors: ErrExists, ErrForbidden.
func (c *Client) CreateWorkflow(ctx context.Context, namespace string, manifest map[string]any) (*Workflow, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	obj, err := plain(manifest)
	if err != nil {
		return nil, fmt.Errorf("create workflow in %s: %w", namespace, err)
	}
	obj.SetAPIVersion(argoGroup + "/v1alpha1")
	obj.SetKind("Workflow")
	obj.SetNamespace(namespace)
	created, err := c.dyn.Resource(workflows()).Namespace(namespace).Create(ctx, obj, metav1.CreateOptions{})
	if err != nil {
		return nil, classify(err, "create workflow %s/%s", namespace, obj.GetName())
	}
	return workflowView(created)
}

// plain returns a copy of manifest made of what JSON is made of: callers may
// use any types.
func plain(manifest map[string]any) (*unstructured.Unstructured, error) {
	raw, err := json.Marshal(manifest)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	var object map[string]any
	if err := json.Unmarshal(raw, &object); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return &unstructured.Unstructured{Object: object}, nil
}

// AnnotateWorkflow sets annotations on the Workflow and nothing else. An empty
// value is stored as such; a UID, if given, is a precondition: another
// Workflow of the same name is not touched.
//
// Errors: ErrNotFound, ErrConflict if the UID is another, ErrForbidden.
func (c *Client) AnnotateWorkflow(ctx context.Context, namespace, name, uid string, annotations map[string]string) (*Workflow, error) {
	return c.patchWorkflow(ctx, "annotate", namespace, name, uid, map[string]any{"annotations": annotations})
}

// LabelWorkflow sets labels on the Workflow and nothing else; one whose value
// is empty is removed. The UID is a precondition as for AnnotateWorkflow.
//
// Errors: ErrNotFound, ErrConflict if the UID is another, ErrForbidden.
func (c *Client) LabelWorkflow(ctx context.Context, namespace, name, uid string, labels map[string]string) (*Workflow, error) {
	values := make(map[string]any, len(labels))
	for label, value := range labels {
		values[label] = value
		if value == "" {
			values[label] = nil
		}
	}
	return c.patchWorkflow(ctx, "label", namespace, name, uid, map[string]any{"labels": values})
}

func (c *Client) patchWorkflow(ctx context.Context, verb, namespace, name, uid string, meta map[string]any) (*Workflow, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if uid != "" {
		meta["uid"] = uid
	}
	patch, err := json.Marshal(map[string]any{"metadata": meta})
	if err != nil {
		return nil, fmt.Errorf("encode metadata: %w", err)
	}
	obj, err := c.dyn.Resource(workflows()).Namespace(namespace).
		Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: FieldManager})
	if err != nil {
		return nil, classify(err, "%s workflow %s/%s", verb, namespace, name)
	}
	return workflowView(obj)
}

// WorkflowTemplate returns the WorkflowTemplate of that name as it stands in
// the cluster.
//
// Errors: ErrNotFound, ErrForbidden.
func (c *Client) WorkflowTemplate(ctx context.Context, namespace, name string) (*unstructured.Unstructured, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	obj, err := c.dyn.Resource(workflowTemplates()).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	return obj, classify(err, "get workflow template %s/%s", namespace, name)
}
