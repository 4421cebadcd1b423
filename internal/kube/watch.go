package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// watchTimeout is how long one watch is kept before it is opened again, so
	// that a connection that died silently is noticed.
	watchTimeout = 5 * time.Minute
	// rewatchDelay and rewatchMax bound the pause before a failed watch is
	// opened again; it doubles from one to the other.
	rewatchDelay = 200 * time.Millisecond
	rewatchMax   = 10 * time.Second
)

// WatchWorkflow calls fn with the Workflow as it is now and after each change
// until fn returns true (then nil is returned), ctx ends or the object is gone.
// A watch that breaks is replaced and the object read anew; fn may therefore
// see the same state twice, and not every state in between.
//
// It needs the verbs get and watch.
//
// Errors: ErrNotFound when the Workflow is or becomes absent, ErrForbidden,
// context.Cause(ctx). Anything else is retried.
func (c *Client) WatchWorkflow(ctx context.Context, namespace, name string, fn func(*Workflow) (done bool)) error {
	return c.watch(ctx, workflows(), namespace, name, func(obj *unstructured.Unstructured) (bool, error) {
		w, err := workflowView(obj)
		if err != nil {
			return false, err
		}
		return fn(w), nil
	})
}

// TaskSet returns the task set of that name, which is its Workflow's name.
//
// Errors: ErrNotFound, ErrForbidden.
func (c *Client) TaskSet(ctx context.Context, namespace, name string) (*TaskSet, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	obj, err := c.dyn.Resource(taskSets()).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, classify(err, "get task set %s/%s", namespace, name)
	}
	return taskSetView(obj), nil
}

// PatchResults changes entries of the task set's status and nothing else: by
// node id, the result as the agent writes it, or nil to remove the entry.
// version is a precondition: a task set that was written since is not touched.
//
// Errors: ErrNotFound, ErrConflict if the version is another, ErrForbidden.
func (c *Client) PatchResults(ctx context.Context, namespace, name, version string, entries map[string]json.RawMessage) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": version},
		"status":   map[string]any{"nodes": entries},
	})
	if err != nil {
		return fmt.Errorf("encode results: %w", err)
	}
	_, err = c.dyn.Resource(taskSets()).Namespace(namespace).
		Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: FieldManager}, "status")
	return classify(err, "write results to task set %s/%s", namespace, name)
}

// WatchTaskSet is WatchWorkflow for a task set.
func (c *Client) WatchTaskSet(ctx context.Context, namespace, name string, fn func(*TaskSet) (done bool)) error {
	return c.watch(ctx, taskSets(), namespace, name, func(obj *unstructured.Unstructured) (bool, error) {
		return fn(taskSetView(obj)), nil
	})
}

// errRewatch ends one watch without ending the whole.
var errRewatch = errors.New("watch ended")

func (c *Client) watch(ctx context.Context, gvr schema.GroupVersionResource, namespace, name string, fn func(*unstructured.Unstructured) (bool, error)) error {
	delay := rewatchDelay
	for {
		started := time.Now()
		done, err := c.watchOnce(ctx, gvr, namespace, name, fn)
		switch {
		case done:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, ErrNotFound), errors.Is(err, ErrForbidden):
			return err
		}
		if time.Since(started) > rewatchMax {
			delay = rewatchDelay
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(delay):
		}
		delay = min(2*delay, rewatchMax)
	}
}

// watchOnce reads the object, delivers it and then every change until the
// server ends the watch.
func (c *Client) watchOnce(ctx context.Context, gvr schema.GroupVersionResource, namespace, name string, fn func(*unstructured.Unstructured) (bool, error)) (bool, error) {
	client := c.dyn.Resource(gvr).Namespace(namespace)
	getCtx, cancel := context.WithTimeout(ctx, requestTimeout)
	obj, err := client.Get(getCtx, name, metav1.GetOptions{})
	cancel()
	if err != nil {
		return false, classify(err, "get %s %s/%s", gvr.Resource, namespace, name)
	}
	if done, err := fn(obj); done || err != nil {
		return done, err
	}
	seconds := int64(watchTimeout / time.Second)
	w, err := client.Watch(ctx, metav1.ListOptions{
		FieldSelector:   "metadata.name=" + name,
		ResourceVersion: obj.GetResourceVersion(),
		TimeoutSeconds:  &seconds,
	})
	if err != nil {
		return false, classify(err, "watch %s %s/%s", gvr.Resource, namespace, name)
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case event, open := <-w.ResultChan():
			if !open {
				return false, errRewatch
			}
			if done, err := deliver(event, gvr.Resource, name, fn); done || err != nil {
				return done, err
			}
		}
	}
}

func deliver(event watch.Event, resource, name string, fn func(*unstructured.Unstructured) (bool, error)) (bool, error) {
	switch event.Type {
	case watch.Error:
		return false, classifyWatch(apierrors.FromObject(event.Object), resource, name)
	case watch.Bookmark:
		return false, nil
	case watch.Deleted:
		if obj, ok := event.Object.(*unstructured.Unstructured); ok && obj.GetName() == name {
			return false, fmt.Errorf("watch %s %s: deleted: %w", resource, name, ErrNotFound)
		}
		return false, nil
	case watch.Added, watch.Modified:
	}
	obj, ok := event.Object.(*unstructured.Unstructured)
	if !ok || obj.GetName() != name {
		return false, nil
	}
	return fn(obj)
}

// classifyWatch keeps an expired resource version (410) apart from an object
// that is gone: the former only means that the object must be read anew.
func classifyWatch(err error, resource, name string) error {
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return fmt.Errorf("watch %s %s: %w: %w", resource, name, errRewatch, err)
	}
	return classify(err, "watch %s %s", resource, name)
}
