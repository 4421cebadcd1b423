package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aphex-pipeline/aphex/e2e/toolcache"
)

// kind is the provider that runs a node in a container of a Docker engine.
type kind struct {
	config Config
	state  *state
}

// name is the cluster's name for the kind command.
func (k *kind) name() string { return "aphex-" + k.state.ID }

func (k *kind) up(ctx context.Context) error {
	for _, program := range []string{"kind", "docker"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("the kind provider needs %s: install it, or set APHEX_CLUSTER to local or existing", program)
		}
	}
	argo, err := commonTools(ctx, k.config, k.state)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(k.state.logs(), 0o755); err != nil {
		return err
	}
	if err := k.state.save(); err != nil {
		return err
	}
	logf(k.config.Log, "cluster %s: kind create cluster", k.state.ID)
	if _, err := output(ctx, nil, "kind", "create", "cluster", "--name", k.name(), "--kubeconfig", k.state.Kubeconfig, "--wait", "3m"); err != nil {
		return err
	}
	gateways, err := output(ctx, nil, "docker", "network", "inspect", "kind", "--format", "{{range .IPAM.Config}}{{println .Gateway}}{{end}}")
	if err != nil {
		return err
	}
	if k.state.HostAddress, err = firstIPv4(gateways); err != nil {
		return err
	}
	if err := packAndLoad(ctx, k.state.path("images"), argoImages(argo), k.load); err != nil {
		return err
	}
	return k.state.installController(ctx, argo)
}

func (k *kind) load(ctx context.Context, tarFile string) error {
	_, err := output(ctx, nil, "kind", "load", "image-archive", "--name", k.name(), tarFile)
	return err
}

func (k *kind) down(ctx context.Context) error {
	if _, err := os.Stat(k.state.path(stateFile)); errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was made
	}
	clusters, err := output(ctx, nil, "kind", "get", "clusters")
	if err != nil {
		return err
	}
	if slices.Contains(strings.Fields(clusters), k.name()) {
		if _, err := output(ctx, nil, "kind", "export", "logs", "--name", k.name(), k.state.logs()); err != nil {
			logf(k.config.Log, "cluster %s: its logs could not be saved: %v", k.state.ID, err)
		}
		if _, err := output(ctx, nil, "kind", "delete", "cluster", "--name", k.name(), "--kubeconfig", k.state.Kubeconfig); err != nil {
			return err
		}
	}
	return errors.Join(os.RemoveAll(k.state.Kubeconfig), os.RemoveAll(k.state.path("images")), k.state.forget())
}

// firstIPv4 returns the first IPv4 address among words.
func firstIPv4(words string) (string, error) {
	for word := range strings.FieldsSeq(words) {
		if ip := net.ParseIP(word); ip != nil && ip.To4() != nil {
			return word, nil
		}
	}
	return "", fmt.Errorf("docker network kind has no IPv4 gateway (it said %q), so pods could not reach this machine; enable IPv4 for it", strings.TrimSpace(words))
}

// commonTools builds Argo and finds kubectl, on PATH or built. It returns the
// cache entry of Argo.
func commonTools(ctx context.Context, c Config, s *state) (string, error) {
	tools, cache, err := openCache(ctx, c)
	if err != nil {
		return "", err
	}
	argo, err := cache.Get(ctx, tools.Argo())
	if err != nil {
		return "", err
	}
	s.Tools.Argo = filepath.Join(argo, "argo")
	s.Tools.Kubectl, err = findKubectl(ctx, tools, cache)
	return argo, err
}

func findKubectl(ctx context.Context, tools *toolcache.Tools, cache *toolcache.Cache) (string, error) {
	if path, err := exec.LookPath("kubectl"); err == nil {
		return path, nil
	}
	kube, err := cache.Get(ctx, tools.Kube())
	return filepath.Join(kube, "kubectl"), err
}
