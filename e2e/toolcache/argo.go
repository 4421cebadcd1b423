package toolcache

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// argoModule is the path of Argo's Go module.
const argoModule = "github.com/argoproj/argo-workflows/v3"

// argoManifests are the directories of Argo's manifests that an installation
// uses.
func argoManifests() []string {
	return []string{"manifests/base/workflow-controller", "manifests/base/crds/minimal", "manifests/cluster-install-no-crds/workflow-controller-rbac"}
}

// buildArgo builds Argo from a mended copy of its published module.
//
// Source: module zips hold no symbolic links, so v3.7.18 lacks
// workflow/executor/osspecific/signal_linux.go (a link to signal_darwin.go),
// and its server embeds ui/dist/app, which only the user interface's own
// build makes. Files beneath the module cache cannot be laid over, hence the
// copy.
func buildArgo(ctx context.Context, module, out string, log io.Writer, flags []string) error {
	published, err := moduleDir(ctx, module, argoModule)
	if err != nil {
		return err
	}
	src := filepath.Join(filepath.Dir(module), "argo")
	if err := copyArgo(src, published); err != nil {
		return fmt.Errorf("copy the published module: %w", err)
	}
	if err := runGo(ctx, module, log, "mod", "edit", "-replace", argoModule+"="+src); err != nil {
		return err
	}
	packages := []string{argoModule + "/cmd/argo", argoModule + "/cmd/argoexec", argoModule + "/cmd/workflow-controller"}
	if err := goBuild(ctx, module, out+string(filepath.Separator), log, flags, packages); err != nil {
		return err
	}
	for _, dir := range argoManifests() {
		if err := os.CopyFS(filepath.Join(out, dir), os.DirFS(filepath.Join(published, dir))); err != nil {
			return err
		}
	}
	return nil
}

// withoutAgent is the build module of Argo without the program that is built
// in the same module for tests, so that a change of that one builds no Argo.
type withoutAgent struct{ fs.FS }

// agentDir is that program's directory in hack/argo.
const agentDir = "agent"

// ReadDir implements fs.ReadDirFS.
func (w withoutAgent) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(w.FS, name)
	if name == "." {
		entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return e.Name() == agentDir })
	}
	return entries, err
}

// buildAgent builds hack/argo/agent against a copy of the published module in
// which the package workflow/executor is its file agent.go alone, unchanged:
// the agent needs none of the others, and they bring the clients of every kind
// of artifact store with them (and, see buildArgo, do not compile).
func buildAgent(ctx context.Context, module, out string, log io.Writer, flags []string) error {
	published, err := moduleDir(ctx, module, argoModule)
	if err != nil {
		return err
	}
	src := filepath.Join(filepath.Dir(module), "argo")
	if err := copyArgo(src, published); err != nil {
		return fmt.Errorf("copy the published module: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(src, "workflow", "executor", "*.go"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if filepath.Base(file) != "agent.go" {
			if err := os.Remove(file); err != nil {
				return err
			}
		}
	}
	if err := runGo(ctx, module, log, "mod", "edit", "-replace", argoModule+"="+src); err != nil {
		return err
	}
	return goBuild(ctx, module, filepath.Join(out, agentDir), log, flags, []string{"./" + agentDir})
}

// copyArgo copies the module's code from published to src, adds what is
// missing and leaves out what no Go package of it needs.
func copyArgo(src, published string) error {
	if err := copyTree(src, published, []string{"docs", "examples", "manifests", "sdks", "test", "ui"}); err != nil {
		return err
	}
	signals := filepath.Join(src, "workflow", "executor", "osspecific")
	if err := copyFile(filepath.Join(signals, "signal_linux.go"), filepath.Join(signals, "signal_darwin.go")); err != nil {
		return err
	}
	app := filepath.Join(src, "ui", "dist", "app")
	if err := os.MkdirAll(app, 0o755); err != nil {
		return err
	}
	if err := copyFile(filepath.Join(src, "ui", "embed.go"), filepath.Join(published, "ui", "embed.go")); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(app, "index.html"), []byte("The user interface is not part of this build.\n"), 0o644)
}

// copyTree copies src, without the named directories at its top, to dst.
// Everything in dst can be written, unlike in the module cache.
func copyTree(dst, src string, without []string) error {
	left := map[string]bool{}
	for _, name := range without {
		left[name] = true
	}
	return filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if left[rel] {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(dst, rel), 0o755)
		}
		return copyFile(filepath.Join(dst, rel), path)
	})
}

func copyFile(dst, src string) error {
	data, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	return os.WriteFile(dst, data, 0o644)
}

// moduleDir returns the directory of the module cache that holds path in the
// version that the module in dir selects, and downloads it if need be.
func moduleDir(ctx context.Context, dir, path string) (string, error) {
	var out bytes.Buffer
	if err := runGo(ctx, dir, &out, "mod", "download", "-json", path); err != nil {
		return "", err
	}
	var info struct {
		Dir string `json:"Dir"`
	}
	if err := json.Unmarshal(out.Bytes(), &info); err != nil {
		return "", fmt.Errorf("go mod download -json %s: %w", path, err)
	}
	if info.Dir == "" {
		return "", fmt.Errorf("go mod download -json %s named no directory", path)
	}
	return info.Dir, nil
}
