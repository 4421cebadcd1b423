package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
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
	// Installed says that Argo was installed: controller, roles and custom
	// resource definitions.
	Installed bool `json:"installed"`
	// MadeControllerNamespace says that the controller's namespace was made.
	MadeControllerNamespace bool `json:"madeControllerNamespace"`
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
	if err := e.look(ctx); err != nil {
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

// look finds out what is to be made and what is there.
func (e *existing) look(ctx context.Context) error {
	made := e.state.Existing
	var definitions bool
	for _, question := range []struct {
		answer *bool
		args   []string
	}{
		{&made.MadeNamespace, []string{"namespace", e.state.Namespace}},
		{&made.MadeControllerNamespace, []string{"namespace", ControllerNamespace}},
		{&made.Installed, []string{"deployment", "workflow-controller", "--namespace", ControllerNamespace}},
		{&definitions, []string{"customresourcedefinition", "workflows.argoproj.io"}},
	} {
		found, err := e.state.kubectl(ctx, nil, append([]string{"get", "--ignore-not-found", "-o", "name"}, question.args...)...)
		if err != nil {
			return err
		}
		*question.answer = strings.TrimSpace(found) == ""
	}
	if made.Installed && !definitions {
		made.Installed, made.MadeControllerNamespace, made.MadeNamespace = false, false, false
		return fmt.Errorf("the cluster has Argo's custom resource definitions but no deployment workflow-controller in namespace %s, "+
			"so another installation may be using them: remove it, or use a cluster without Argo", ControllerNamespace)
	}
	return nil
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
		objects = slices.DeleteFunc(objects, func(o object) bool { return o["kind"] == "Namespace" && !made.MadeControllerNamespace })
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
	return errors.Join(os.RemoveAll(e.state.Kubeconfig), e.state.forget())
}
