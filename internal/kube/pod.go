package kube

import (
	"context"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// Labels that Argo gives to agent pods.
//
// Source: workflow/controller/agent.go, createAgentPod, Argo v3.7.18.
const (
	labelWorkflow = "workflows.argoproj.io/workflow"
	// SelectAgentPods is the label selector of agent pods.
	SelectAgentPods = "workflows.argoproj.io/component=agent"
)

// Pod is what aphex reads of a pod.
type Pod struct {
	Name, Namespace, UID string
	// ResourceVersion changes with every write to the object.
	ResourceVersion string
	// Workflow is the name of the Workflow an agent pod belongs to.
	Workflow string
	// Phase is "Pending", "Running", "Succeeded", "Failed" or "Unknown".
	Phase string
	// Cause says why a pod that failed did, as far as its status tells; it may
	// be empty.
	Cause string
	// Deleting says that the pod is being deleted: its containers may run on
	// for its grace period.
	Deleting bool
}

// Over reports whether none of the pod's containers runs or will run again.
func (p *Pod) Over() bool { return p.Phase == "Failed" || p.Phase == "Succeeded" }

// AgentPodName is the name of a Workflow's agent pod.
func AgentPodName(workflow string) string { return NodeID(workflow, "agent") + "-agent" }

type podWire struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
	Status   struct {
		Phase             string      `json:"phase"`
		Reason            string      `json:"reason"`
		Message           string      `json:"message"`
		ContainerStatuses []stateWire `json:"containerStatuses"`
	} `json:"status"`
}

type stateWire struct {
	Name  string `json:"name"`
	State struct {
		Terminated *struct {
			ExitCode int    `json:"exitCode"`
			Reason   string `json:"reason"`
		} `json:"terminated"`
	} `json:"state"`
}

// Pod returns the pod of that name.
//
// Errors: ErrNotFound, ErrForbidden.
func (c *Client) Pod(ctx context.Context, namespace, name string) (*Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	obj, err := c.dyn.Resource(pods()).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, classify(err, "get pod %s/%s", namespace, name)
	}
	return podView(obj)
}

// Pods returns the pods of the namespace that the label selector fits.
//
// Errors: ErrForbidden.
func (c *Client) Pods(ctx context.Context, namespace, selector string) ([]*Pod, error) {
	var found []*Pod
	err := c.each(ctx, pods(), namespace, selector, func(obj *unstructured.Unstructured) error {
		pod, err := podView(obj)
		found = append(found, pod)
		return err
	})
	return found, err
}

// DeletePod deletes exactly the pod that was read, as it was read: one that
// has changed since, or another one of its name, stays.
//
// Errors: ErrNotFound, ErrConflict if it is not as it was read, ErrForbidden.
func (c *Client) DeletePod(ctx context.Context, pod *Pod) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	uid := types.UID(pod.UID)
	err := c.dyn.Resource(pods()).Namespace(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &pod.ResourceVersion},
	})
	return classify(err, "delete pod %s/%s", pod.Namespace, pod.Name)
}

func podView(obj *unstructured.Unstructured) (*Pod, error) {
	var wire podWire
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &wire); err != nil {
		return nil, fmt.Errorf("read pod %s/%s: %w", obj.GetNamespace(), obj.GetName(), err)
	}
	meta := wire.Metadata
	return &Pod{
		Name: meta.Name, Namespace: meta.Namespace, UID: string(meta.UID), ResourceVersion: meta.ResourceVersion,
		Workflow: meta.Labels[labelWorkflow], Phase: wire.Status.Phase, Cause: wire.cause(), Deleting: meta.DeletionTimestamp != nil,
	}, nil
}

// cause is the status's own words, and how each container ended that did not
// end well.
func (w *podWire) cause() string {
	var parts []string
	for _, text := range []string{w.Status.Reason, w.Status.Message} {
		if text != "" {
			parts = append(parts, text)
		}
	}
	for _, c := range w.Status.ContainerStatuses {
		if t := c.State.Terminated; t != nil && t.ExitCode != 0 {
			parts = append(parts, strings.TrimSpace(fmt.Sprintf("container %s ended with exit code %d %s", c.Name, t.ExitCode, t.Reason)))
		}
	}
	return strings.Join(parts, ", ")
}
