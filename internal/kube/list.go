package kube

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// pageSize is how many objects one list call returns: a Workflow weighs up to
// 1 MiB, most a tenth of that.
const pageSize = 100

// EachWorkflow calls fn with every Workflow of the namespace that the label
// selector fits, page by page, until fn returns an error, which it returns.
//
// Errors: ErrForbidden; fn's.
func (c *Client) EachWorkflow(ctx context.Context, namespace, selector string, fn func(*Workflow) error) error {
	return c.each(ctx, workflows(), namespace, selector, func(obj *unstructured.Unstructured) error {
		w, err := workflowView(obj)
		if err != nil {
			return err
		}
		return fn(w)
	})
}

// ConfigMaps returns the ConfigMaps of the namespace that the label selector
// fits.
//
// Errors: ErrForbidden.
func (c *Client) ConfigMaps(ctx context.Context, namespace, selector string) ([]*ConfigMap, error) {
	var found []*ConfigMap
	err := c.each(ctx, configMaps(), namespace, selector, func(obj *unstructured.Unstructured) error {
		cm, err := configMapView(obj)
		found = append(found, cm)
		return err
	})
	return found, err
}

func (c *Client) each(ctx context.Context, gvr schema.GroupVersionResource, namespace, selector string, fn func(*unstructured.Unstructured) error) error {
	opts := metav1.ListOptions{LabelSelector: selector, Limit: pageSize}
	for {
		page, err := c.page(ctx, gvr, namespace, opts)
		if err != nil {
			return err
		}
		for i := range page.Items {
			if err := fn(&page.Items[i]); err != nil {
				return err
			}
		}
		if opts.Continue = page.GetContinue(); opts.Continue == "" {
			return nil
		}
	}
}

func (c *Client) page(ctx context.Context, gvr schema.GroupVersionResource, namespace string, opts metav1.ListOptions) (*unstructured.UnstructuredList, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	page, err := c.dyn.Resource(gvr).Namespace(namespace).List(ctx, opts)
	if err != nil {
		return nil, classify(err, "list %s of %s", gvr.Resource, namespace)
	}
	return page, nil
}
