package synth

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// The files that configure an app, and the user's own in HOME.
const (
	projectFile = "cdk.json"
	contextFile = "cdk.context.json"
	userFile    = ".cdk.json"
)

// maxProjectBytes bounds one of these files. Looked-up context of many
// accounts is some hundred kilobytes.
const maxProjectBytes = 16 << 20

// project is what the files of an app say, merged with the environment's
// context.
type project struct {
	command string // the shell command that runs the app, or a folder
	build   string // a shell command to run before, empty for none
	context object
	layers  contextLayers
	notes   []string // remarks for the log
}

// contextLayers are the sources of context, the weakest first.
type contextLayers struct{ user, saved, project, environment, settings object }

// merged is what the app is given.
func (l contextLayers) merged() object {
	return mergeObjects(l.user, l.saved, l.project, l.environment, l.settings)
}

// readProject reads the app's files from the worker's tree and merges them as
// the CLI does.
func (s *synthesis) readProject(ctx context.Context) error {
	project, err := s.readJSON(ctx, path.Join(worker.SourceDir, s.request.App), projectFile)
	if err != nil {
		return err
	}
	if project.values == nil {
		return fault.Newf(fault.User, fault.AppMissing, s.request.op(), "Point stacks[].path at the CDK app", "there is no %s in %q", projectFile, s.request.App)
	}
	saved, err := s.readJSON(ctx, path.Join(worker.SourceDir, s.request.App), contextFile)
	if err != nil {
		return err
	}
	user, err := s.readJSON(ctx, worker.HomeDir, userFile)
	if err != nil {
		return err
	}
	s.project, err = s.merge(project, saved, user)
	return err
}

// merge applies the CLI's order: the environment's context, cdk.json,
// cdk.context.json, the user's ~/.cdk.json. The first that has a key wins;
// objects are merged.
func (s *synthesis) merge(projectJSON, saved, user object) (*project, error) {
	op := s.request.op()
	if user.has("build") {
		return nil, fault.Newf(fault.User, fault.ConfigInvalid, op, "Move build into the app's cdk.json", "~/%s holds the key build, which is allowed in cdk.json only", userFile)
	}
	environment, _ := sorted(s.request.Environment.Context).(object) // an empty one is none
	layers := contextLayers{user: user.child("context"), saved: saved, project: projectJSON.child("context"), environment: environment}
	for name, layer := range map[string]object{projectFile: layers.project, contextFile: saved, "~/" + userFile: layers.user, "the environment's context": environment} {
		for _, key := range []string{"default-account", "default-region"} {
			if layer.has(key) {
				return nil, fault.Newf(fault.User, fault.ConfigInvalid, op, "Remove the key; account and region come from the environment",
					"the context key %q in %s is not allowed", key, name)
			}
		}
	}
	for _, key := range environment.keys {
		if strings.HasPrefix(key, "aws:") {
			return nil, fault.Newf(fault.User, fault.ConfigInvalid, op, "Remove the key from the environment's context", "context keys that begin with \"aws:\" are reserved: %q", key)
		}
	}
	settings := mergeObjects(user, projectJSON)
	command, err := appCommand(settings.values["app"])
	if err != nil {
		return nil, fault.Wrap(fault.User, fault.ConfigInvalid, op, "Set app in the app's cdk.json, such as \"node bin/app.js\"", err)
	}
	build, ok := settings.values["build"].(string)
	if !ok && settings.values["build"] != nil {
		return nil, fault.Newf(fault.User, fault.ConfigInvalid, op, "Write build as one shell command", "build in cdk.json is not text")
	}
	layers.settings = settingsContext(settings)
	result := &project{command: command, build: build, context: layers.merged(), layers: layers}
	if settings.values["staging"] == false {
		result.notes = append(result.notes, "staging: false in cdk.json is ignored: assets are copied into the assembly, since it is deployed elsewhere")
	}
	return result, nil
}

// appCommand joins the app setting as the CLI does.
func appCommand(app any) (string, error) {
	switch value := app.(type) {
	case string:
		if strings.TrimSpace(value) != "" {
			return value, nil
		}
	case []any:
		words := make([]string, len(value))
		for i, word := range value {
			text, ok := word.(string)
			if !ok {
				return "", errors.New("app in cdk.json is a list with an entry that is not text")
			}
			words[i] = text
		}
		if command := strings.Join(words, " "); strings.TrimSpace(command) != "" {
			return command, nil
		}
	case nil:
	default:
		return "", errors.New("app in cdk.json is neither text nor a list of texts")
	}
	return "", errors.New("cdk.json has no app")
}

// settingsContext returns the context keys that the CLI always adds; several
// of them change templates. aws:cdk:disable-asset-staging is never set: the
// assembly is deployed from another place, so it must hold its assets.
func settingsContext(settings object) object {
	var context object
	if settings.values["pathMetadata"] != false {
		context.set("aws:cdk:enable-path-metadata", true)
	}
	if settings.values["assetMetadata"] != false {
		context.set("aws:cdk:enable-asset-metadata", true)
	}
	if settings.values["versionReporting"] != false {
		context.set("aws:cdk:version-reporting", true)
	} else {
		context.set("aws:cdk:disable-version-reporting", true)
	}
	context.set("aws:cdk:bundling-stacks", []any{"**"})
	context.set("@aws-cdk/core:failSynthOnValidationErrors", false)
	return context
}

// missingRequired returns the required context keys without a value, sorted.
func (s *synthesis) missingRequired() []string {
	var missing []string
	for _, key := range s.request.Environment.RequiredContext {
		if s.project.context.values[key] == nil {
			missing = append(missing, key)
		}
	}
	slices.Sort(missing)
	return missing
}

func missingRequired(req *Request, keys []string) error {
	return fault.Newf(fault.User, fault.ContextMissing, req.op(),
		fmt.Sprintf("Set it under context of environment %s, or in cdk.json or cdk.context.json", req.Environment.Name),
		"required context has no value: %s", strings.Join(keys, ", "))
}

// readJSON reads a JSON object of the worker's tree; the zero object if there
// is no such file.
func (s *synthesis) readJSON(ctx context.Context, dir, name string) (object, error) {
	full := path.Join(dir, name)
	entries, err := s.worker.Stat(ctx, []string{full})
	if err != nil {
		return object{}, fmt.Errorf("%s: %w", s.request.op(), err)
	}
	if len(entries) == 0 {
		return object{}, nil
	}
	shown := strings.TrimPrefix(full, worker.SourceDir+"/")
	if !entries[0].Mode.IsRegular() {
		return object{}, fault.Newf(fault.User, fault.ConfigInvalid, s.request.op(), "Make it a regular file", "%s is not a regular file", shown)
	}
	data, err := s.readFile(ctx, dir, name)
	if err != nil {
		return object{}, fmt.Errorf("%s: read %s: %w", s.request.op(), shown, err)
	}
	value, err := decodeObject(data)
	if err != nil {
		return object{}, fault.Newf(fault.User, fault.ConfigInvalid, s.request.op(), "Correct the file; it must hold one JSON object", "%s: %w", shown, err)
	}
	return value, nil
}

// readFile returns a regular file of the worker's tree.
func (s *synthesis) readFile(ctx context.Context, dir, name string) ([]byte, error) {
	stream, err := s.worker.ReadTree(ctx, dir, []string{name})
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.Close() }()
	reader := tar.NewReader(stream)
	for {
		header, err := reader.Next()
		if err != nil {
			return nil, err
		}
		if path.Clean(header.Name) != name || header.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(io.LimitReader(reader, maxProjectBytes+1))
		if err == nil && len(data) > maxProjectBytes {
			err = fmt.Errorf("the file is larger than %d bytes", maxProjectBytes)
		}
		return data, err
	}
}
