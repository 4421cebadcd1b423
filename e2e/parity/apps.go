package parity

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aphex-pipeline/aphex/e2e/aws"
)

//go:embed all:apps all:modules all:python
var sources embed.FS

// appsDir is where the apps are, below a checkout.
const appsDir = "apps"

// Variant is a state of an app's source.
type Variant string

// The variants of every app.
const (
	One Variant = "one"
	Two Variant = "two"
	// Bad has a resource that the service refuses.
	Bad Variant = "bad"
)

// Apps returns the names of all apps, sorted.
func Apps() ([]string, error) {
	entries, err := fs.ReadDir(sources, appsDir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// settings is what parity.json beside an app says; a missing file says
// nothing.
type settings struct {
	// Environment is merged into the environment of aphex's configuration.
	Environment map[string]any `json:"environment"`
	// Arguments are more arguments of the command line.
	Arguments []string `json:"arguments"`
	// States are the prior states that apply; empty means all.
	States []State `json:"states"`
	// Fails are those in which the command line is expected to fail.
	Fails []State `json:"fails"`
}

func appSettings(app string) (settings, error) {
	var s settings
	data, err := fs.ReadFile(sources, path.Join(appsDir, app, "parity.json"))
	if os.IsNotExist(err) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return s, fmt.Errorf("settings of app %s: %w", app, err)
	}
	return s, nil
}

// installed are the folders that the apps run with.
type installed struct {
	// modules holds node_modules.
	modules string
	// venv is a virtual environment; empty where no app needs one.
	venv string
}

// isPython says whether an app is written in Python.
func isPython(app string) bool {
	_, err := fs.Stat(sources, path.Join(appsDir, app, "app.py"))
	return err == nil
}

// checkout writes the apps and what they run with into dir.
func checkout(dir string, with installed) error {
	apps, err := fs.Sub(sources, appsDir)
	if err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(dir, appsDir), apps); err != nil {
		return err
	}
	if err := os.Symlink(filepath.Join(with.modules, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		return err
	}
	if with.venv != "" {
		if err := os.Symlink(with.venv, filepath.Join(dir, "venv")); err != nil {
			return err
		}
	}
	// An embedded file has no permissions of its own.
	return filepath.WalkDir(filepath.Join(dir, appsDir), func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		mode := fs.FileMode(0o644)
		if strings.HasSuffix(name, ".sh") {
			mode = 0o755
		}
		return os.Chmod(name, mode)
	})
}

// fingerprint is a digest of everything that decides what the command line
// does with an app.
func fingerprint(app string) (string, error) {
	sum := sha256.New()
	_, _ = fmt.Fprintf(sum, "%d %s\n", recordVersion, aws.Fingerprint())
	shared := path.Join(appsDir, "kit.ts")
	if isPython(app) {
		shared = "python"
	}
	for _, root := range []string{path.Join(appsDir, app), shared, "modules"} {
		var names []string
		err := fs.WalkDir(sources, root, func(name string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				names = append(names, name)
			}
			return err
		})
		if err != nil {
			return "", err
		}
		slices.Sort(names)
		for _, name := range names {
			data, err := fs.ReadFile(sources, name)
			if err != nil {
				return "", err
			}
			_, _ = fmt.Fprintf(sum, "%s %d\n%s\n", name, len(data), data)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
