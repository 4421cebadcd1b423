package kube

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func accessReviews() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "authorization.k8s.io", Version: "v1", Resource: "selfsubjectaccessreviews"}
}

// Right is a verb on a kind of object, as a rule of a Role has them.
type Right struct {
	// Group is the API group; empty is the core group.
	Group string
	// Resource is the plural name; a subresource follows a slash.
	Resource string
	Verb     string
}

// String is "patch workflowtasksets/status".
func (r Right) String() string { return r.Verb + " " + r.Resource }

// Allowed asks the API server whether the client has right in namespace. Every
// account may ask that.
//
// Errors: those of the call, never ErrForbidden for the right itself.
func (c *Client) Allowed(ctx context.Context, namespace string, right Right) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resource, subresource, _ := strings.Cut(right.Resource, "/")
	review := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
		"spec": map[string]any{"resourceAttributes": map[string]any{
			"namespace": namespace, "group": right.Group, "resource": resource, "subresource": subresource, "verb": right.Verb,
		}},
	}}
	answered, err := c.dyn.Resource(accessReviews()).Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, classify(err, "ask for the right to %s", right)
	}
	allowed, _, err := unstructured.NestedBool(answered.Object, "status", "allowed")
	if err != nil {
		return false, fmt.Errorf("ask for the right to %s: %w", right, err)
	}
	return allowed, nil
}

// Skew returns by how much the API server's clock is ahead of this machine's,
// to about a second; half of the time the question took is taken off.
func (c *Client) Skew(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.JoinPath("version").String(), http.NoBody)
	if err != nil {
		return 0, fmt.Errorf("ask the API server for its time: %w", err)
	}
	asked := time.Now()
	resp, err := c.web.Do(req)
	if err != nil {
		return 0, fmt.Errorf("ask the API server for its time: %w", err)
	}
	took := time.Since(asked)
	_ = resp.Body.Close() // only the head is wanted
	told, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return 0, fmt.Errorf("ask the API server for its time: %w", err)
	}
	return told.Sub(asked.Add(took / 2)), nil
}
