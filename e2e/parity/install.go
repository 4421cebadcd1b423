package parity

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/toolcache"
)

// install returns the folders that the apps of some cells run with.
func install(ctx context.Context, cells []Cell, log io.Writer) (with installed, err error) {
	with.modules, err = installModules(ctx, log)
	if err == nil && slices.ContainsFunc(cells, func(c Cell) bool { return isPython(c.App) }) {
		with.venv, err = installPython(ctx, log)
	}
	return with, err
}

// installModules returns a folder with the node_modules of the apps.
func installModules(ctx context.Context, log io.Writer) (string, error) {
	return kept(ctx, log, "modules", toolcache.Recipe{
		Name: "modules of the conformance apps",
		Build: func(ctx context.Context, module, out string, log io.Writer) error {
			if err := os.CopyFS(out, os.DirFS(module)); err != nil {
				return err
			}
			return execute(ctx, log, out, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		},
	})
}

// installPython returns a virtual environment with the library for Python.
func installPython(ctx context.Context, log io.Writer) (string, error) {
	python, err := exec.LookPath("python3")
	if err != nil {
		return "", fmt.Errorf("find Python for the conformance app: %w; install python3 (3.10 or later) with its venv module", err)
	}
	version, err := exec.CommandContext(ctx, python, "-c", "import sys; print(sys.version, sys.base_prefix)").Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", python, err)
	}
	return kept(ctx, log, "python", toolcache.Recipe{
		Name:   "Python library of the conformance app",
		Inputs: []string{string(version)},
		Build: func(ctx context.Context, module, out string, log io.Writer) error {
			if err := execute(ctx, log, out, python, "-m", "venv", out); err != nil {
				return err
			}
			return execute(ctx, log, out, filepath.Join(out, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
				"--only-binary=:all:", "--no-deps", "--require-hashes", "-r", filepath.Join(module, "requirements.txt"))
		},
	})
}

// kept returns the cache's entry for what is installed from an embedded
// folder.
func kept(ctx context.Context, log io.Writer, folder string, recipe toolcache.Recipe) (string, error) {
	cache, err := aws.DefaultCacheDir()
	if err != nil {
		return "", err
	}
	if recipe.Module, err = fs.Sub(sources, folder); err != nil {
		return "", err
	}
	return toolcache.New(filepath.Join(cache, "parity"), log).Get(ctx, recipe)
}

func execute(ctx context.Context, log io.Writer, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	return cmd.Run()
}
