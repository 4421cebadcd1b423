package validate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/jsonlimit"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

// context checks that every required context key of every environment has a
// value: in the environment's context, or in cdk.json or cdk.context.json of
// the folder its stacks' app lives in, as they are in the commit.
func (s *Stage) context(ctx context.Context, cfg *pipeline.Config) []error {
	var findings []error
	for _, target := range cfg.Environments {
		if len(target.RequiredContext) == 0 {
			continue
		}
		known := map[string]any{}
		addValues(known, target.Context)
		for _, stack := range target.Stacks {
			if err := s.appContext(ctx, stack.Path, known); err != nil {
				findings = append(findings, err)
			}
		}
		missing := slices.DeleteFunc(slices.Clone(target.RequiredContext), func(key string) bool { return known[key] != nil })
		if len(missing) > 0 {
			findings = append(findings, fault.Newf(fault.User, fault.ContextMissing, "check the context of "+target.Name,
				fmt.Sprintf("Set it under context of environment %s, or in cdk.json or cdk.context.json", target.Name),
				"required context %s has no value", strings.Join(missing, ", ")))
		}
	}
	return findings
}

// appContext adds the context of the nearest cdk.json at or above file.
func (s *Stage) appContext(ctx context.Context, file string, known map[string]any) error {
	for dir := path.Clean(file); ; dir = path.Dir(dir) {
		var app struct {
			Context map[string]any `json:"context"`
		}
		found, err := s.readJSON(ctx, path.Join(dir, "cdk.json"), &app)
		if err != nil {
			return err
		}
		if found {
			addValues(known, app.Context)
			var looked map[string]any
			_, err = s.readJSON(ctx, path.Join(dir, "cdk.context.json"), &looked)
			addValues(known, looked)
			return err
		}
		if dir == "." || dir == "/" {
			return nil
		}
	}
}

// addValues adds what has a value: null takes none away that is given elsewhere.
func addValues(known, more map[string]any) {
	for key, value := range more {
		if value != nil {
			known[key] = value
		}
	}
}

// readJSON decodes a file of the commit; found is false if there is none.
func (s *Stage) readJSON(ctx context.Context, file string, into any) (found bool, err error) {
	data, err := s.cfg.Workspace.File(ctx, file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = jsonlimit.Check(data, jsonlimit.Document)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return false, fault.Newf(fault.User, fault.ConfigInvalid, "read "+file, "Mend the JSON", "it is not valid JSON: %w", err)
	}
	return true, nil
}
