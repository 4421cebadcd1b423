package validate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/jsonlimit"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

// Context checks that every required context key of every environment has a
// value for each app of the environment, as the synthesis of the app will: in
// the environment's context, or in cdk.json or cdk.context.json of the app's
// folder, as files has them. Of an app whose cdk.json is not among them nothing
// can be said before the build.
//
// Errors: ContextMissing, one for each environment and app; ConfigInvalid, one
// for each file that cannot be understood; those of files.
func Context(ctx context.Context, files pipeline.Files, cfg *pipeline.Config) []error {
	c := &contexts{files: files, apps: map[string]*app{}}
	for _, target := range cfg.Environments {
		if len(target.RequiredContext) > 0 {
			c.check(ctx, target)
		}
	}
	return c.findings
}

// The files that configure an app.
const (
	projectFile = "cdk.json"
	contextFile = "cdk.context.json"
)

// place is a folder of the repository in messages.
func place(folder string) string {
	if folder == "." {
		return "the root of the repository"
	}
	return folder
}

// app is the folder of a cdk.json.
type app struct {
	folder string
	// context is that of the app's files. A key may be null.
	context map[string]any
	// broken is set if a file cannot be read.
	broken bool
}

// missing returns the required keys that have no value. As in the synthesis,
// the strongest source that has a key decides, even with null.
func (a *app) missing(target pipeline.Environment) []string {
	known := maps.Clone(a.context)
	maps.Copy(known, target.Context)
	var missing []string
	for _, key := range target.RequiredContext {
		if known[key] == nil {
			missing = append(missing, key)
		}
	}
	return missing
}

// contexts checks environments, and reads each app once.
type contexts struct {
	files    pipeline.Files
	apps     map[string]*app // by folder; nil where there is no cdk.json
	findings []error
}

// check checks the apps of an environment.
func (c *contexts) check(ctx context.Context, target pipeline.Environment) {
	seen := map[*app]bool{nil: true} // of no app nothing is said
	for _, stack := range target.Stacks {
		app := c.of(ctx, stack.Path)
		if seen[app] {
			continue
		}
		seen[app] = true
		if missing := app.missing(target); len(missing) > 0 && !app.broken {
			c.findings = append(c.findings, fault.Newf(fault.User, fault.ContextMissing, "check the context of "+target.Name,
				fmt.Sprintf("Set it under context of environment %s, or in %s or %s", target.Name, path.Join(app.folder, projectFile), path.Join(app.folder, contextFile)),
				"required context %s has no value for the app in %s", strings.Join(missing, ", "), place(app.folder)))
		}
	}
}

// of returns the app of the nearest cdk.json at or above file; nil if there is
// none.
func (c *contexts) of(ctx context.Context, file string) *app {
	for dir := path.Clean(file); ; dir = path.Dir(dir) {
		found, known := c.apps[dir]
		if !known {
			found = c.read(ctx, dir)
			c.apps[dir] = found
		}
		if found != nil || dir == "." || dir == "/" {
			return found
		}
	}
}

// read reads the app in a folder; nil if there is no cdk.json.
func (c *contexts) read(ctx context.Context, folder string) *app {
	project, found, err := readJSON(ctx, c.files, path.Join(folder, projectFile))
	if !found && err == nil {
		return nil
	}
	saved, _, savedErr := readJSON(ctx, c.files, path.Join(folder, contextFile))
	result := &app{folder: folder, context: map[string]any{}}
	for _, err := range []error{err, savedErr} {
		if err != nil {
			result.broken = true
			c.findings = append(c.findings, err)
		}
	}
	maps.Copy(result.context, saved)
	if own, ok := project["context"].(map[string]any); ok { // the weaker first
		maps.Copy(result.context, own)
	}
	return result
}

// readJSON decodes a file with a JSON object, with or without a byte order mark
// as the CLI reads it; found is false if there is none.
func readJSON(ctx context.Context, files pipeline.Files, file string) (object map[string]any, found bool, err error) {
	data, err := files.File(ctx, file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	err = jsonlimit.Check(data, jsonlimit.Document)
	if err == nil {
		err = json.Unmarshal(bytes.TrimPrefix(data, []byte("\uFEFF")), &object)
	}
	if err != nil {
		return nil, false, fault.Newf(fault.User, fault.ConfigInvalid, "read "+file, "Mend the JSON", "it is not valid JSON: %w", err)
	}
	return object, true, nil
}
