package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

// FieldManager is the name under which aphex owns fields of objects.
const FieldManager = "aphex"

// Change is what an apply did to an object.
type Change string

// The changes.
const (
	Created    Change = "created"
	Configured Change = "configured"
	Unchanged  Change = "unchanged"
)

// ApplyOptions qualify an apply. The zero value is the usual one.
type ApplyOptions struct {
	// Owned lists further field managers whose fields may be taken over, for
	// example "kubectl-client-side-apply" for objects first applied by hand.
	// Fields of any other manager are never taken.
	Owned []string
	// DryRun asks the server for its verdict without storing anything.
	DryRun bool
}

// ConflictError lists the fields that an apply would have to take from
// another field manager. It is an ErrConflict.
type ConflictError struct {
	// Object is "Kind namespace/name".
	Object string
	// Fields maps each contested field to its manager.
	Fields map[string]string
}

// Error names every contested field and its manager, in order.
func (e *ConflictError) Error() string {
	var parts []string
	for field, manager := range e.Fields {
		parts = append(parts, fmt.Sprintf("%s is owned by %q", field, manager))
	}
	slices.Sort(parts)
	return "apply " + e.Object + ": " + strings.Join(parts, "; ")
}

// Is reports whether target is ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// ParseManifest reads one YAML or JSON document.
func ParseManifest(manifest []byte) (*unstructured.Unstructured, error) {
	var raw map[string]any
	if err := yaml.UnmarshalStrict(manifest, &raw); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	obj := &unstructured.Unstructured{Object: raw}
	if obj.GetKind() == "" || obj.GetAPIVersion() == "" || obj.GetName() == "" {
		return nil, fmt.Errorf("read manifest: apiVersion %q, kind %q, name %q: all three are needed", obj.GetAPIVersion(), obj.GetKind(), obj.GetName())
	}
	return obj, nil
}

// Apply makes the cluster's object have the fields of obj by server-side
// apply as FieldManager, and says what that changed. Fields set by others stay
// theirs: see ApplyOptions.Owned. Objects with a namespace are namespaced,
// others are not.
//
// Errors: *ConflictError (an ErrConflict), ErrForbidden, ErrNotFound if the
// namespace or the kind does not exist.
func (c *Client) Apply(ctx context.Context, obj *unstructured.Unstructured, opts ApplyOptions) (Change, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	name := strings.TrimPrefix(obj.GetNamespace()+"/"+obj.GetName(), "/")
	op := fmt.Sprintf("apply %s %s", obj.GetKind(), name)
	client := c.resource(obj)

	before := ""
	current, err := client.Get(ctx, obj.GetName(), metav1.GetOptions{})
	switch {
	case err == nil:
		before = current.GetResourceVersion()
	case !apierrors.IsNotFound(err):
		return "", classify(err, "%s", op)
	}
	body, err := applyBody(obj)
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	patch := metav1.PatchOptions{FieldManager: FieldManager}
	if opts.DryRun {
		patch.DryRun = []string{metav1.DryRunAll}
	}
	after, err := client.Patch(ctx, obj.GetName(), types.ApplyPatchType, body, patch)
	if apierrors.IsConflict(err) {
		conflict := fieldConflict(err, obj.GetKind()+" "+name)
		if !conflict.ownedBy(append([]string{FieldManager}, opts.Owned...)) {
			return "", conflict.orClassified(err, op)
		}
		patch.Force = new(true)
		after, err = client.Patch(ctx, obj.GetName(), types.ApplyPatchType, body, patch)
	}
	switch {
	case err != nil:
		return "", classify(err, "%s", op)
	case before == "":
		return Created, nil
	case after.GetResourceVersion() == before:
		return Unchanged, nil
	}
	return Configured, nil
}

func (c *Client) resource(obj *unstructured.Unstructured) dynamic.ResourceInterface { //nolint:ireturn // client-go has no other type
	gvr, _ := meta.UnsafeGuessKindToResource(obj.GroupVersionKind())
	if ns := obj.GetNamespace(); ns != "" {
		return c.dyn.Resource(gvr).Namespace(ns)
	}
	return c.dyn.Resource(gvr)
}

// applyBody is obj without what the server owns and refuses in an apply.
func applyBody(obj *unstructured.Unstructured) ([]byte, error) {
	clean, err := plain(obj.Object)
	if err != nil {
		return nil, err
	}
	for _, field := range []string{"managedFields", "resourceVersion", "uid", "creationTimestamp", "generation"} {
		unstructured.RemoveNestedField(clean.Object, "metadata", field)
	}
	return json.Marshal(clean.Object)
}

// conflictManager finds the manager in the server's text: the status has the
// field in a slot of its own, but the manager only in the message.
//
// Source: apimachinery managedfields, `conflict with "<manager>" using v1 …`.
var conflictManager = regexp.MustCompile(`conflict with "([^"]*)"`)

func fieldConflict(err error, object string) *ConflictError {
	conflict := &ConflictError{Object: object, Fields: map[string]string{}}
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok || status.ErrStatus.Details == nil {
		return conflict
	}
	for _, cause := range status.ErrStatus.Details.Causes {
		if cause.Type != metav1.CauseTypeFieldManagerConflict {
			continue
		}
		manager := "unknown"
		if m := conflictManager.FindStringSubmatch(cause.Message); m != nil {
			manager = m[1]
		}
		conflict.Fields[cause.Field] = manager
	}
	return conflict
}

// ownedBy reports whether every contested field belongs to one of managers.
func (e *ConflictError) ownedBy(managers []string) bool {
	for _, manager := range e.Fields {
		if !slices.Contains(managers, manager) {
			return false
		}
	}
	return len(e.Fields) > 0
}

// orClassified is e, or the classified err if the server named no field.
func (e *ConflictError) orClassified(err error, op string) error {
	if len(e.Fields) == 0 {
		return classify(err, "%s", op)
	}
	return e
}
