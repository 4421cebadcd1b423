package assembly

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/jsonlimit"
)

// KnownMajor is the newest major version of the assembly schema this package
// knows every property of. Newer assemblies are accepted as long as their
// stacks and assets have no property we do not know.
const KnownMajor = 55

const (
	manifestFile = "manifest.json"
	// maxFileSize bounds one JSON document of an assembly: CloudFormation
	// accepts templates of 1 MB, the largest manifest seen was 4 MB.
	maxFileSize = 64 << 20
	// maxNesting bounds stages within stages.
	maxNesting = 16
	op         = "read the cloud assembly"
	remedy     = "Run `cdk synth` locally with the library version of this commit and compare its output folder"
)

// Assembly is everything a CDK app described, nested assemblies included.
// It is immutable after Load and safe for concurrent use.
type Assembly struct {
	// Dir is the absolute folder that holds manifest.json.
	Dir string
	// Version is the schema version of the root manifest, such as "55.0.0".
	Version string
	// Stacks are all stacks in manifest order, dependencies first.
	Stacks []*Stack
	// Missing is the context the app asked for and did not get. An assembly
	// with missing context holds dummy values and must not be deployed.
	Missing []MissingContext
	// Warnings are remarks about the assembly itself, such as a schema newer
	// than we know.
	Warnings []string
}

// MissingContext is one context value the app could not find.
type MissingContext struct {
	// Key is the context key.
	Key string `json:"key"`
	// Provider names the kind of look-up, such as "availability-zones".
	Provider string `json:"provider"`
	// Props are the look-up's arguments as the app wrote them.
	Props map[string]any `json:"props"`
}

// Load reads the assembly in dir.
//
// Errors: AssemblyInvalid with the file and the offending value.
func Load(dir string) (*Assembly, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, invalid("%w", err)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, invalid("%w", err)
	}
	defer func() { _ = root.Close() }()
	a := &Assembly{Dir: abs}
	l := &loader{root: root, assembly: a, seen: map[string]bool{}}
	if err := l.load(".", 0); err != nil {
		return nil, err
	}
	return a, nil
}

// ReadFile returns a file of the assembly; name is slash-separated and
// relative to Dir. A path that leads outside Dir, also through a symbolic
// link, is an error.
func (a *Assembly) ReadFile(name string) ([]byte, error) {
	root, err := os.OpenRoot(a.Dir)
	if err != nil {
		return nil, invalid("%w", err)
	}
	defer func() { _ = root.Close() }()
	return readFile(root, name)
}

// Stack returns the stack with the given hierarchical id.
func (a *Assembly) Stack(hierarchicalID string) (*Stack, bool) {
	for _, s := range a.Stacks {
		if s.HierarchicalID == hierarchicalID {
			return s, true
		}
	}
	return nil, false
}

func invalid(format string, args ...any) error {
	return fault.Newf(fault.User, fault.AssemblyInvalid, op, remedy, format, args...)
}

func readFile(root *os.Root, name string) ([]byte, error) {
	local, err := filepath.Localize(name)
	if err != nil {
		return nil, invalid("path %q leads outside the assembly", name)
	}
	f, err := root.Open(local)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, invalid("file %s does not exist", name)
	}
	if err != nil {
		return nil, invalid("file %s: %w", name, err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, invalid("file %s: %w", name, err)
	}
	if !info.Mode().IsRegular() {
		return nil, invalid("%s is not a regular file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, invalid("file %s: %w", name, err)
	}
	if len(data) > maxFileSize {
		return nil, invalid("file %s is larger than %d bytes", name, maxFileSize)
	}
	return data, nil
}

type loader struct {
	root     *os.Root
	assembly *Assembly
	seen     map[string]bool // folders read so far
}

// load reads the manifest in dir (slash-separated, relative to the root) and
// appends its stacks.
func (l *loader) load(dir string, depth int) error {
	if depth > maxNesting {
		return invalid("%s: assemblies are nested more than %d deep", dir, maxNesting)
	}
	if l.seen[dir] { // also what would never end: an assembly that holds itself
		return invalid("folder %s: its assembly is part of the app twice", dir)
	}
	l.seen[dir] = true
	name := path.Join(dir, manifestFile)
	var m manifestJSON
	if err := l.decode(name, &m); err != nil {
		return err
	}
	strict, err := l.checkVersion(name, m.Version)
	if err != nil {
		return err
	}
	if depth == 0 {
		l.assembly.Version = m.Version
		l.assembly.Missing = m.Missing
	}
	order, err := sortArtifacts(name, m)
	if err != nil {
		return err
	}
	u := &unit{loader: l, dir: dir, manifest: name, strict: strict, artifacts: m.Artifacts, stacks: map[string]*Stack{}, assets: map[string]*AssetManifest{}}
	for _, id := range order {
		if err := u.add(id, depth); err != nil {
			return err
		}
	}
	return nil
}

func (l *loader) decode(name string, v any) error {
	data, err := readFile(l.root, name)
	if err != nil {
		return err
	}
	if err := jsonlimit.Check(data, jsonlimit.Document); err != nil {
		return invalid("file %s: %w", name, err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return invalid("file %s: %w", name, err)
	}
	return nil
}

func (l *loader) checkVersion(name, version string) (strict bool, err error) {
	head, _, _ := strings.Cut(version, ".")
	major, err := strconv.Atoi(head)
	if err != nil || major < 0 {
		return false, invalid("file %s: version %q is not of the form <major>.<minor>.<patch>", name, version)
	}
	if major <= KnownMajor {
		return false, nil
	}
	warning := fmt.Sprintf("%s has schema version %s, newer than %d, the newest known; it is used because its stacks and assets have no unknown property", name, version, KnownMajor)
	l.assembly.Warnings = append(l.assembly.Warnings, warning)
	return true, nil
}
