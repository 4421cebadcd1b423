package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// controllerStart bounds the start of Argo's controller, image pull included.
const controllerStart = 3 * time.Minute

type object = map[string]any

// argoObjects returns the objects of a stock, cluster-wide installation of
// Argo's controller, from the manifests of its own release: what
// "cluster-install" makes, less the server, with executor plugins switched
// on.
func argoObjects(argo string) ([]object, error) {
	objects := []object{namespaceObject(ControllerNamespace)}
	for _, dir := range []string{"base/crds/minimal", "cluster-install-no-crds/workflow-controller-rbac", "base/workflow-controller"} {
		found, err := readManifests(filepath.Join(argo, "manifests", filepath.FromSlash(dir)))
		if err != nil {
			return nil, err
		}
		objects = append(objects, found...)
	}
	for _, o := range objects {
		if err := adapt(o); err != nil {
			return nil, fmt.Errorf("adapt %v %s: %w", o["kind"], nameOf(o), err)
		}
	}
	return objects, nil
}

func namespaceObject(name string) object {
	return object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": name}}
}

func nameOf(o object) string {
	metadata, _ := o["metadata"].(object)
	name, _ := metadata["name"].(string)
	return name
}

// readManifests returns the objects of a directory that its kustomization
// lists.
func readManifests(dir string) ([]object, error) {
	data, err := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
	if err != nil {
		return nil, err
	}
	var kustomization struct{ Resources []string }
	if err := yaml.Unmarshal(data, &kustomization); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, "kustomization.yaml"), err)
	}
	var objects []object
	for _, resource := range kustomization.Resources {
		file := filepath.Join(dir, resource)
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		documents := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
		for {
			var o object
			err := documents.Decode(&o)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", file, err)
			}
			if len(o) > 0 {
				objects = append(objects, o)
			}
		}
	}
	return objects, nil
}

// clusterScoped are the kinds among Argo's objects that are in no namespace.
func clusterScoped() []string {
	return []string{"Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "PriorityClass"}
}

// adapt puts one object into the controller's namespace and completes the
// controller's deployment.
func adapt(o object) error {
	kind, _ := o["kind"].(string)
	metadata, ok := o["metadata"].(object)
	if !ok {
		return errors.New("it has no metadata")
	}
	if !slices.Contains(clusterScoped(), kind) {
		metadata["namespace"] = ControllerNamespace
	}
	subjects, _ := o["subjects"].([]any)
	for _, s := range subjects {
		if subject, ok := s.(object); ok && subject["kind"] == "ServiceAccount" {
			subject["namespace"] = ControllerNamespace
		}
	}
	if kind != "Deployment" {
		return nil
	}
	container, err := firstContainer(o)
	if err != nil {
		return err
	}
	container["image"] = controllerImage
	env, _ := container["env"].([]any)
	container["env"] = append(env, object{"name": "ARGO_EXECUTOR_PLUGINS", "value": "true"})
	return nil
}

// firstContainer returns the first container of a deployment.
func firstContainer(deployment object) (object, error) {
	at := deployment
	for _, key := range []string{"spec", "template", "spec"} {
		next, ok := at[key].(object)
		if !ok {
			return nil, fmt.Errorf("it has no %s", key)
		}
		at = next
	}
	containers, _ := at["containers"].([]any)
	if len(containers) == 0 {
		return nil, errors.New("it has no container")
	}
	container, ok := containers[0].(object)
	if !ok {
		return nil, errors.New("its container is no object")
	}
	return container, nil
}

// kubectl runs kubectl as the cluster's administrator.
func (s *state) kubectl(ctx context.Context, input []byte, args ...string) (string, error) {
	return output(ctx, input, append([]string{s.Tools.Kubectl, "--kubeconfig", s.Kubeconfig}, args...)...)
}

// apply applies objects on the server's side, in their order.
func (s *state) apply(ctx context.Context, objects []object) error {
	var input bytes.Buffer
	encoder := json.NewEncoder(&input)
	for _, o := range objects {
		if err := encoder.Encode(o); err != nil {
			return err
		}
	}
	_, err := s.kubectl(ctx, input.Bytes(), "apply", "--server-side", "--force-conflicts", "--field-manager=aphex-cluster", "-f", "-")
	return err
}

// installController applies the controller's objects and the tenant namespace
// and waits until the controller runs.
func (s *state) installController(ctx context.Context, argo string) error {
	objects, err := argoObjects(argo)
	if err != nil {
		return err
	}
	if err := s.apply(ctx, append(objects, namespaceObject(s.Namespace))); err != nil {
		return err
	}
	return s.awaitController(ctx)
}

// awaitController waits until the controller runs.
func (s *state) awaitController(ctx context.Context) error {
	_, err := s.kubectl(ctx, nil, "--namespace", ControllerNamespace, "rollout", "status", "deployment/workflow-controller", "--timeout="+controllerStart.String())
	if err == nil || ctx.Err() != nil {
		return err
	}
	pods, _ := s.kubectl(ctx, nil, "--namespace", ControllerNamespace, "describe", "pods")
	return fmt.Errorf("%w; its pods:\n%s", err, pods)
}

// installArgo installs the controller once the node is ready.
func (l *local) installArgo(ctx context.Context) error {
	err := l.await(ctx, time.Minute, "the node's becoming ready", func(ctx context.Context) (bool, error) {
		ready, err := l.state.kubectl(ctx, nil, "get", "node", nodeName, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		return ready == "True", err
	})
	if err != nil {
		return err
	}
	return l.state.installController(ctx, l.argo)
}
