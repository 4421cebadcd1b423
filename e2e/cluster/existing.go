package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// existing is the provider for a cluster that somebody else runs.
type existing struct {
	config Config
	state  *state
}

// existingState is what the provider made in the cluster, so that it removes
// nothing else.
type existingState struct {
	// Installed says that Argo's controller was installed.
	Installed bool `json:"installed"`
	// MadeNamespace says that the tenant namespace was made.
	MadeNamespace bool `json:"madeNamespace"`
	// LoadCommand is Config.LoadCommand.
	LoadCommand string `json:"loadCommand"`
	// Argo is the cache entry whose manifests were applied.
	Argo string `json:"argo"`
}

func (e *existing) up(ctx context.Context) error {
	if e.config.KubeconfigFile == "" {
		return errors.New("the existing provider needs a kubeconfig: set APHEX_KUBECONFIG to its path")
	}
	if e.config.HostAddress == "" {
		return errors.New("pods have to reach servers of this machine: set APHEX_HOST_ADDRESS to its address as seen from the cluster")
	}
	argo, err := commonTools(ctx, e.config, e.state)
	if err != nil {
		return err
	}
	e.state.HostAddress = e.config.HostAddress
	e.state.Existing = &existingState{LoadCommand: e.config.LoadCommand, Argo: argo}
	kubeconfig, err := os.ReadFile(e.config.KubeconfigFile)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(e.state.logs(), 0o755); err != nil {
		return err
	}
	if err := writeFile(e.state.Kubeconfig, kubeconfig, 0o600); err != nil {
		return err
	}
	if e.state.Existing.MadeNamespace, err = e.missing(ctx, "namespace", e.state.Namespace); err != nil {
		return err
	}
	if e.state.Existing.Installed, err = e.missing(ctx, "deployment", "workflow-controller", "--namespace", ControllerNamespace); err != nil {
		return err
	}
	if err := e.state.save(); err != nil {
		return err
	}
	if e.state.Existing.Installed {
		return e.state.installController(ctx, argo)
	}
	return e.adopt(ctx)
}

// adopt checks that the controller that is there runs plugins.
func (e *existing) adopt(ctx context.Context) error {
	found, err := e.state.kubectl(ctx, nil, "--namespace", ControllerNamespace, "get", "deployment", "workflow-controller", "-o", "json")
	if err != nil {
		return err
	}
	var deployment object
	if err := json.Unmarshal([]byte(found), &deployment); err != nil {
		return err
	}
	container, err := firstContainer(deployment)
	if err != nil {
		return err
	}
	if !pluginsEnabled(container) {
		return fmt.Errorf("the controller in namespace %s does not run executor plugins: set ARGO_EXECUTOR_PLUGINS=true in deployment workflow-controller", ControllerNamespace)
	}
	if err := e.state.apply(ctx, []object{namespaceObject(e.state.Namespace)}); err != nil {
		return err
	}
	return e.state.awaitController(ctx)
}

// pluginsEnabled reports whether a controller's container has executor
// plugins switched on.
func pluginsEnabled(container object) bool {
	env, _ := container["env"].([]any)
	for _, v := range env {
		if variable, ok := v.(object); ok && variable["name"] == "ARGO_EXECUTOR_PLUGINS" && variable["value"] == "true" {
			return true
		}
	}
	return false
}

// missing reports whether an object is not in the cluster.
func (e *existing) missing(ctx context.Context, args ...string) (bool, error) {
	found, err := e.state.kubectl(ctx, nil, append([]string{"get", "--ignore-not-found", "-o", "name"}, args...)...)
	return strings.TrimSpace(found) == "", err
}

func (e *existing) load(ctx context.Context, tarFile string) error {
	if e.state.Existing.LoadCommand == "" {
		return errors.New("an existing cluster needs a command that makes an image archive known to it: set APHEX_LOAD_IMAGE, for example to 'crane push \"$1\" registry.example/name'")
	}
	_, err := output(ctx, nil, "sh", "-c", e.state.Existing.LoadCommand, "sh", tarFile)
	return err
}

func (e *existing) down(ctx context.Context) error {
	made := e.state.Existing
	if made == nil {
		return e.state.forget()
	}
	var problems []error
	remove := func(args ...string) {
		_, err := e.state.kubectl(ctx, nil, append([]string{"delete", "--ignore-not-found"}, args...)...)
		problems = append(problems, err)
	}
	if made.MadeNamespace {
		remove("namespace", e.state.Namespace)
	}
	if made.Installed {
		objects, err := argoObjects(made.Argo)
		if err != nil {
			return err
		}
		data, err := json.Marshal(object{"apiVersion": "v1", "kind": "List", "items": objects})
		if err != nil {
			return err
		}
		_, err = e.state.kubectl(ctx, data, "delete", "--ignore-not-found", "-f", "-")
		problems = append(problems, err)
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	return errors.Join(os.Remove(e.state.Kubeconfig), e.state.forget())
}
