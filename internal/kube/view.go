package kube

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// maxNodes bounds the decompressed node map of a Workflow.
const maxNodes = 64 << 20

// workflowWire is the part of the object that a view is made from.
type workflowWire struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
	Spec     struct {
		Shutdown            string `json:"shutdown"`
		WorkflowTemplateRef struct {
			Name string `json:"name"`
		} `json:"workflowTemplateRef"`
		Arguments struct {
			Parameters []struct {
				Name  string `json:"name"`
				Value any    `json:"value"`
			} `json:"parameters"`
		} `json:"arguments"`
	} `json:"spec"`
	Status struct {
		Phase           string              `json:"phase"`
		Message         string              `json:"message"`
		StartedAt       *metav1.Time        `json:"startedAt"`
		FinishedAt      *metav1.Time        `json:"finishedAt"`
		Nodes           map[string]nodeWire `json:"nodes"`
		CompressedNodes string              `json:"compressedNodes"`
		StoredTemplate  struct {
			Templates []struct {
				Name      string         `json:"name"`
				Plugin    map[string]any `json:"plugin"`
				Container struct {
					Args []string `json:"args"`
				} `json:"container"`
			} `json:"templates"`
		} `json:"storedWorkflowTemplateSpec"`
	} `json:"status"`
}

type nodeWire struct {
	Name    string `json:"name"`
	Phase   string `json:"phase"`
	Message string `json:"message"`
}

func workflowView(obj *unstructured.Unstructured) (*Workflow, error) {
	var wire workflowWire
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &wire); err != nil {
		return nil, fmt.Errorf("read workflow %s/%s: %w", obj.GetNamespace(), obj.GetName(), err)
	}
	meta := wire.Metadata
	w := &Workflow{
		Name: meta.Name, Namespace: meta.Namespace, UID: string(meta.UID), ResourceVersion: meta.ResourceVersion,
		CreatedAt: meta.CreationTimestamp.UTC(),
		Phase:     wire.Status.Phase, Message: wire.Status.Message, Shutdown: wire.Spec.Shutdown,
		Labels: meta.Labels, Annotations: meta.Annotations,
		Parameters:   map[string]string{},
		TemplateName: wire.Spec.WorkflowTemplateRef.Name,
		nodes:        map[string]Node{},
	}
	if at := wire.Status.StartedAt; at != nil && !at.IsZero() {
		w.StartedAt = at.UTC().Truncate(time.Second)
	}
	if at := wire.Status.FinishedAt; at != nil && !at.IsZero() {
		w.FinishedAt = at.UTC().Truncate(time.Second)
	}
	for _, t := range wire.Status.StoredTemplate.Templates {
		w.StoredTemplates = append(w.StoredTemplates, StoredTemplate{Name: t.Name, Plugin: t.Plugin, Args: t.Container.Args})
	}
	for _, p := range wire.Spec.Arguments.Parameters {
		if p.Value != nil {
			w.Parameters[p.Name] = fmt.Sprint(p.Value)
		}
	}
	nodes := wire.Status.Nodes
	if packed := wire.Status.CompressedNodes; packed != "" {
		var err error
		if nodes, err = unpackNodes(packed); err != nil {
			return nil, fmt.Errorf("read nodes of workflow %s/%s: %w", w.Namespace, w.Name, err)
		}
	}
	for id, n := range nodes {
		w.nodes[id] = Node{ID: id, Name: n.Name, Phase: n.Phase, Message: n.Message}
	}
	return w, nil
}

// unpackNodes reads status.compressedNodes, which the controller uses for
// Workflows above 1 MiB: gzip of JSON, in base64.
func unpackNodes(packed string) (map[string]nodeWire, error) {
	raw, err := base64.StdEncoding.DecodeString(packed)
	if err != nil {
		return nil, err
	}
	zr, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(zr, maxNodes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxNodes {
		return nil, fmt.Errorf("they have more than %d bytes", maxNodes)
	}
	var nodes map[string]nodeWire
	if err := json.Unmarshal(text, &nodes); err != nil {
		return nil, err
	}
	return nodes, nil
}

// TaskSet is what aphex reads of a WorkflowTaskSet, the object through which
// the controller and the agent of one Workflow talk.
type TaskSet struct {
	Name, Namespace, ResourceVersion string
	// OwnerUID is the UID of the Workflow it belongs to.
	OwnerUID string
	// Completed is the controller's mark that no more tasks will come.
	Completed bool
	// Tasks holds the node ids the agent is to run.
	Tasks map[string]bool
	// Results holds what the agent has reported, by node id.
	Results map[string]NodeResult
}

// NodeResult is one entry of a task set's status.
type NodeResult struct {
	Phase, Message string
}

func taskSetView(obj *unstructured.Unstructured) *TaskSet {
	ts := &TaskSet{
		Name: obj.GetName(), Namespace: obj.GetNamespace(), ResourceVersion: obj.GetResourceVersion(),
		Completed: obj.GetLabels()["workflows.argoproj.io/completed"] == "true",
		Tasks:     map[string]bool{}, Results: map[string]NodeResult{},
	}
	if owners := obj.GetOwnerReferences(); len(owners) > 0 {
		ts.OwnerUID = string(owners[0].UID)
	}
	tasks, _, _ := unstructured.NestedMap(obj.Object, "spec", "tasks")
	for id := range tasks {
		ts.Tasks[id] = true
	}
	nodes, _, _ := unstructured.NestedMap(obj.Object, "status", "nodes")
	for id, raw := range nodes {
		entry, ok := raw.(map[string]any)
		if !ok {
			continue
		}
		phase, _, _ := unstructured.NestedString(entry, "phase")
		message, _, _ := unstructured.NestedString(entry, "message")
		ts.Results[id] = NodeResult{Phase: phase, Message: message}
	}
	return ts
}
