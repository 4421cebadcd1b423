package toolcache

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// The versions that the build modules under hack/ pin, for image tags and
// version strings. TestVersions_AgreeWithBuildModules compares them.
const (
	KubernetesVersion = "v1.34.4"
	EtcdVersion       = "v3.6.16"
	ArgoVersion       = "v3.7.18"
)

// kubeNames are the parts of the Kubernetes binary, each called by its name.
func kubeNames() []string {
	return []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"}
}

// Tools returns the recipes of the test cluster's binaries, built from the
// modules below root/hack.
type Tools struct {
	root      string
	toolchain string
}

// NewTools returns the recipes for the checkout in root.
func NewTools(ctx context.Context, root string) (*Tools, error) {
	toolchain, err := Toolchain(ctx, root)
	if err != nil {
		return nil, err
	}
	return &Tools{root: root, toolchain: toolchain}, nil
}

// recipe fills in what all recipes share: module and inputs.
func (t *Tools) recipe(name string, flags []string) Recipe {
	return Recipe{
		Name:   name,
		Module: os.DirFS(filepath.Join(t.root, "hack", name)),
		Inputs: append([]string{t.toolchain, "CGO_ENABLED=0"}, flags...),
	}
}

// Kube is the recipe of Kubernetes: one binary and a link for each of its
// parts, kubectl among them.
func (t *Tools) Kube() Recipe {
	numbers := strings.SplitN(strings.TrimPrefix(KubernetesVersion, "v"), ".", 3)
	var vars []string
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		vars = append(vars, pkg+".gitVersion="+KubernetesVersion, pkg+".gitMajor="+numbers[0], pkg+".gitMinor="+numbers[1], pkg+".gitTreeState=clean")
	}
	flags := buildFlags(vars...)
	r := t.recipe("kube", append(flags, kubeNames()...))
	r.Build = func(ctx context.Context, module, out string, log io.Writer) error {
		if err := goBuild(ctx, module, filepath.Join(out, "kube"), log, flags, []string{"."}); err != nil {
			return err
		}
		for _, name := range kubeNames() {
			if err := os.Symlink("kube", filepath.Join(out, name)); err != nil {
				return err
			}
		}
		return nil
	}
	return r
}

// Etcd is the recipe of etcd: one binary of that name.
func (t *Tools) Etcd() Recipe { return t.single("etcd") }

// Pause is the recipe of the program in every pod's sandbox: "pause".
func (t *Tools) Pause() Recipe { return t.single("pause") }

// single is a recipe whose result is one binary with the module's name.
func (t *Tools) single(name string) Recipe {
	flags := buildFlags()
	r := t.recipe(name, flags)
	r.Build = func(ctx context.Context, module, out string, log io.Writer) error {
		return goBuild(ctx, module, filepath.Join(out, name), log, flags, []string{"."})
	}
	return r
}

// Argo is the recipe of Argo Workflows: the binaries workflow-controller,
// argoexec and argo, and the directory manifests of the same release.
func (t *Tools) Argo() Recipe {
	vars := []string{"version=" + ArgoVersion, "gitTag=" + ArgoVersion, "gitCommit=release", "gitTreeState=clean"}
	for i, v := range vars {
		vars[i] = argoModule + "." + v
	}
	flags := buildFlags(vars...)
	r := t.recipe("argo", append(flags, "source 1"))
	r.Module = withoutAgent{r.Module}
	r.Build = func(ctx context.Context, module, out string, log io.Writer) error {
		return buildArgo(ctx, module, out, log, flags)
	}
	return r
}

// Agent is the recipe of the program "agent" of hack/argo/agent: Argo's own
// agent with its API server, plugins and patience given by flags.
func (t *Tools) Agent() Recipe {
	flags := buildFlags()
	r := t.recipe("agent", flags)
	r.Module = os.DirFS(filepath.Join(t.root, "hack", "argo"))
	r.Build = func(ctx context.Context, module, out string, log io.Writer) error {
		return buildAgent(ctx, module, out, log, flags)
	}
	return r
}

// Root returns the root of the checkout that holds the directory dir: the
// nearest parent with a hack directory beside its go.mod.
func Root(dir string) (string, error) {
	start, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at := start; ; at = filepath.Dir(at) {
		if exists(filepath.Join(at, "go.mod")) && exists(filepath.Join(at, "hack", "kube", "go.mod")) {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s is in no checkout of aphex: no parent holds go.mod and hack/kube/go.mod; run from inside a checkout", start)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
