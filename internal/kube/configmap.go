package kube

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// ConfigMap is a ConfigMap with what aphex uses of it.
type ConfigMap struct {
	Namespace, Name string
	// ResourceVersion is the version that was read. An update is refused with
	// ErrConflict if the object has another by then.
	ResourceVersion     string
	UID                 string
	Labels, Annotations map[string]string
	// Data is never nil in what was read, also where the object has none.
	Data map[string]string
	// Owner, if set, is the object whose deletion deletes this one.
	Owner *Owner
}

// Owner names an owning object of the same namespace.
type Owner struct {
	APIVersion, Kind, Name, UID string
}

// WorkflowOwner returns the Owner for an Argo Workflow.
func WorkflowOwner(name, uid string) *Owner {
	return &Owner{APIVersion: argoGroup + "/v1alpha1", Kind: "Workflow", Name: name, UID: uid}
}

// configMapWire is the object on the wire.
type configMapWire struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Data              map[string]string `json:"data,omitempty"`
}

// ConfigMap returns the ConfigMap of that name.
//
// Errors: ErrNotFound, ErrForbidden.
func (c *Client) ConfigMap(ctx context.Context, namespace, name string) (*ConfigMap, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	obj, err := c.dyn.Resource(configMaps()).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, classify(err, "get config map %s/%s", namespace, name)
	}
	return configMapView(obj)
}

// CreateConfigMap creates cm and returns it as stored.
//
// Errors: ErrExists, ErrForbidden.
func (c *Client) CreateConfigMap(ctx context.Context, cm *ConfigMap) (*ConfigMap, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	obj, err := cm.object()
	if err != nil {
		return nil, err
	}
	obj.SetResourceVersion("")
	stored, err := c.dyn.Resource(configMaps()).Namespace(cm.Namespace).Create(ctx, obj, metav1.CreateOptions{FieldManager: FieldManager})
	if err != nil {
		return nil, classify(err, "create config map %s/%s", cm.Namespace, cm.Name)
	}
	return configMapView(stored)
}

// UpdateConfigMap replaces the object by cm, whose ResourceVersion must be the
// one last read, and returns it as stored.
//
// Errors: ErrConflict if it has been written since, ErrNotFound, ErrForbidden.
func (c *Client) UpdateConfigMap(ctx context.Context, cm *ConfigMap) (*ConfigMap, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if cm.ResourceVersion == "" {
		return nil, fmt.Errorf("update config map %s/%s: without the version last read: %w", cm.Namespace, cm.Name, ErrConflict)
	}
	obj, err := cm.object()
	if err != nil {
		return nil, err
	}
	stored, err := c.dyn.Resource(configMaps()).Namespace(cm.Namespace).Update(ctx, obj, metav1.UpdateOptions{FieldManager: FieldManager})
	if err != nil {
		return nil, classify(err, "update config map %s/%s", cm.Namespace, cm.Name)
	}
	return configMapView(stored)
}

// DeleteConfigMap deletes the ConfigMap of that name.
//
// Errors: ErrNotFound, ErrForbidden.
func (c *Client) DeleteConfigMap(ctx context.Context, namespace, name string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := c.dyn.Resource(configMaps()).Namespace(namespace).Delete(ctx, name, metav1.DeleteOptions{})
	return classify(err, "delete config map %s/%s", namespace, name)
}

func (cm *ConfigMap) object() (*unstructured.Unstructured, error) {
	wire := configMapWire{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: cm.Namespace, Name: cm.Name, ResourceVersion: cm.ResourceVersion, UID: types.UID(cm.UID),
			Labels: cm.Labels, Annotations: cm.Annotations,
		},
		Data: cm.Data,
	}
	if o := cm.Owner; o != nil {
		wire.OwnerReferences = []metav1.OwnerReference{{APIVersion: o.APIVersion, Kind: o.Kind, Name: o.Name, UID: types.UID(o.UID)}}
	}
	raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&wire)
	if err != nil {
		return nil, fmt.Errorf("encode config map %s/%s: %w", cm.Namespace, cm.Name, err)
	}
	return &unstructured.Unstructured{Object: raw}, nil
}

func configMapView(obj *unstructured.Unstructured) (*ConfigMap, error) {
	var wire configMapWire
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &wire); err != nil {
		return nil, fmt.Errorf("read config map %s/%s: %w", obj.GetNamespace(), obj.GetName(), err)
	}
	cm := &ConfigMap{
		Namespace: wire.Namespace, Name: wire.Name, ResourceVersion: wire.ResourceVersion, UID: string(wire.UID),
		Labels: wire.Labels, Annotations: wire.Annotations, Data: wire.Data,
	}
	if len(wire.OwnerReferences) > 0 {
		o := wire.OwnerReferences[0]
		cm.Owner = &Owner{APIVersion: o.APIVersion, Kind: o.Kind, Name: o.Name, UID: string(o.UID)}
	}
	if cm.Data == nil {
		cm.Data = map[string]string{}
	}
	return cm, nil
}
