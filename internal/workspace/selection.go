package workspace

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/worker"
)

// Selection says what of a build's changes goes into the snapshot. The zero
// value leaves out what other tools keep about versions, and what looks like a
// secret.
//
// Patterns are slash-separated and relative to the root of the repository; *
// and ? stand for parts of a name, ** for any number of folders. One without a
// slash fits a name anywhere. A pattern that fits a folder fits all below it.
type Selection struct {
	// Exclude are patterns of what is left out as well.
	Exclude []string
	// Include are patterns of what is kept although it looks like a secret.
	Include []string
	// Secrets are values that no file of the snapshot may have. Short ones do
	// not count: see redact.MinFound.
	Secrets []string
}

// Why a path is left out.
const (
	excludedBy   = "build.snapshot.exclude"
	versionData  = "data of a version control system"
	looksSecret  = "looks like a secret"
	maxNamedLeft = 20
	// inspectLimit is how much of a file is looked at.
	inspectLimit = 64 << 10
)

// versionDirs are folders that hold histories and credentials of clones.
func versionDirs() []string { return []string{".git", ".hg", ".svn", ".bzr"} }

// secretNames are files that hold secrets whatever is in them.
func secretNames() []string {
	return []string{
		".env", ".env.*", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", ".netrc", ".git-credentials",
		"**/.aws/credentials", "**/.kube/config", "*.p12", "*.pfx", "*.jks", "*.keystore",
	}
}

// harmlessNames are samples that secretNames would catch.
func harmlessNames() []string {
	return []string{".env.example", ".env.sample", ".env.template", ".env.dist"}
}

// secretContents are files that hold secrets if they contain one of the marks.
func secretContents() map[string][]string {
	key := []string{"PRIVATE KEY-----"}
	return map[string][]string{
		"*.pem": key, "*.key": key,
		".npmrc": {"_authToken", "_password", "_auth"}, ".yarnrc.yml": {"npmAuthToken", "npmAuthIdent"},
		".pypirc": {"password"}, "**/.docker/config.json": {`"auth"`},
	}
}

// leftOut returns the paths of changed that are left out, and why.
func (w *Workspace) leftOut(ctx context.Context, selection Selection, changed []string) (map[string]string, error) {
	left := map[string]string{}
	var inspect []string
	for _, name := range changed {
		switch {
		case fitsAny(selection.Exclude, name):
			left[name] = excludedBy
		case fitsAny(versionDirs(), name):
			left[name] = versionData
		case fitsAny(selection.Include, name) || fitsAny(harmlessNames(), name):
		case fitsAny(secretNames(), name):
			left[name] = looksSecret
		case fitsAny(slices.Collect(maps.Keys(secretContents())), name):
			inspect = append(inspect, name)
		}
	}
	for _, paths := range batches(inspect) {
		if err := w.inspect(ctx, paths, left); err != nil {
			return nil, err
		}
	}
	return left, nil
}

// inspect adds those of paths to left whose content is a secret.
func (w *Workspace) inspect(ctx context.Context, paths []string, left map[string]string) error {
	stream, err := w.cfg.Worker.ReadTree(ctx, worker.SourceDir, paths)
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	for in := tar.NewReader(stream); ; {
		entry, err := in.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, stream) // to its end, where an error may wait
			return err
		}
		if err != nil {
			return err
		}
		content, err := io.ReadAll(io.LimitReader(in, inspectLimit))
		if err != nil {
			return err
		}
		for pattern, marks := range secretContents() {
			holds := func(mark string) bool { return bytes.Contains(content, []byte(mark)) }
			if entry.Typeflag == tar.TypeReg && Fits(pattern, entry.Name) && slices.ContainsFunc(marks, holds) {
				left[entry.Name] = looksSecret
			}
		}
	}
}

// without returns changed without what is left out, and the index that says so:
// such a path is as the commit has it, or not there.
func without(left map[string]string, changed []string, target, base []indexed) ([]string, []indexed) {
	kept := slices.DeleteFunc(slices.Clone(changed), func(name string) bool { return left[name] != "" })
	committed := map[string]indexed{}
	for i := range base {
		committed[base[i].Entry.Path] = base[i]
	}
	var entries []indexed
	for i := range target {
		if name := target[i].Entry.Path; target[i].From == fromSnapshot && left[name] != "" {
			if was, ok := committed[name]; ok {
				entries = append(entries, was)
			}
			continue
		}
		entries = append(entries, target[i])
	}
	return kept, entries
}

// sayLeftOut names what is left out, as far as people want to read it.
func sayLeftOut(out io.Writer, left map[string]string) {
	names := slices.Sorted(maps.Keys(left))
	named := 0
	for _, name := range names {
		if _, inside := left[path.Dir(name)]; inside {
			continue // its folder has been named
		}
		if named++; named > maxNamedLeft {
			say(out, "workspace: and more, %d paths in all, are not in the snapshot", len(names))
			return
		}
		advice := ""
		if left[name] == looksSecret {
			advice = "; build.snapshot.include keeps it"
		}
		say(out, "workspace: %s", fmt.Sprintf("%q is not in the snapshot, and later stages do not see it: %s%s", name, left[name], advice))
	}
}

func fitsAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return Fits(p, name) })
}

// Fits reports whether pattern, as Selection explains it, fits the path or one
// of the folders it is in.
func Fits(pattern, name string) bool {
	pattern = strings.TrimSuffix(pattern, "/")
	if below, ok := strings.CutPrefix(pattern, "./"); ok {
		pattern = "/" + below
	}
	if !strings.Contains(pattern, "/") {
		pattern = "**/" + pattern
	}
	parts, names := strings.Split(strings.TrimPrefix(pattern, "/"), "/"), strings.Split(name, "/")
	for n := 1; n <= len(names); n++ {
		if fitsParts(parts, names[:n]) {
			return true
		}
	}
	return false
}

// fitsParts takes as few names as possible for each **. If that does not work
// out, only the last ** need take more: what stands before it has been found as
// early as can be.
func fitsParts(parts, names []string) bool {
	part, name := 0, 0
	after, taken := -1, 0 // the part after the last **, and the names up to it
	for name < len(names) {
		switch {
		case part < len(parts) && parts[part] == "**":
			part++
			after, taken = part, name
		case part < len(parts) && fitsName(parts[part], names[name]):
			part++
			name++
		case after >= 0:
			taken++
			part, name = after, taken
		default:
			return false
		}
	}
	for part < len(parts) && parts[part] == "**" {
		part++
	}
	return part == len(parts)
}

func fitsName(part, name string) bool {
	ok, err := path.Match(part, name)
	return err == nil && ok
}
