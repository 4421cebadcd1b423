package synth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/archive"
	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/count"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/jsonlimit"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

// Bounds of an assembly. Bundled assets are large, but the sidecar's disk is
// no place for more.
const (
	maxAssemblyFiles = 500_000
	maxAssemblyBytes = 8 << 30
)

// maxShownProblems bounds how many problems one message lists.
const maxShownProblems = 10

const manifestFile = "manifest.json"

// fetch copies the assembly out of the worker into dir, which is replaced.
func (s *synthesis) fetch(ctx context.Context, output, dir string) error {
	op := s.request.op()
	entries, err := s.worker.Stat(ctx, []string{path.Join(output, manifestFile)})
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if len(entries) == 0 {
		return fault.Newf(fault.User, fault.AssemblyInvalid, op, "Let the app call synth() on its App, and give the App no outdir of its own",
			"the app ended well, but %w", errNoManifest)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fault.Newf(fault.System, fault.WorkspaceFailed, op, "", "remove an earlier assembly: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.Newf(fault.System, fault.WorkspaceFailed, op, "", "make a folder for the assembly: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fault.Newf(fault.System, fault.WorkspaceFailed, op, "", "open the assembly's folder: %w", err)
	}
	defer func() { _ = root.Close() }()
	stream, err := s.worker.ReadTree(ctx, output, nil)
	if err != nil {
		return fmt.Errorf("%s: read the assembly: %w", op, err)
	}
	_, err = archive.Extract(ctx, root, stream, archive.Limits{Entries: maxAssemblyFiles, Bytes: maxAssemblyBytes})
	err = errors.Join(err, stream.Close())
	switch {
	case errors.Is(err, archive.ErrLimit), errors.Is(err, archive.ErrUnsafe):
		return fault.Wrap(fault.User, fault.AssemblyInvalid, op, "Keep the app's assets small and plain files", err)
	case err != nil:
		return fmt.Errorf("%s: copy the assembly: %w", op, err)
	}
	if strings.HasPrefix(output, s.scratch) {
		if err := s.worker.Remove(ctx, path.Dir(s.scratch), []string{path.Base(s.scratch)}); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	return nil
}

// check refuses an assembly that must not be deployed although the app ended
// well, and returns the stacks that will be.
func (s *synthesis) check(dir string, loaded *assembly.Assembly) ([]*assembly.Stack, error) {
	for _, warning := range loaded.Warnings {
		if _, err := fmt.Fprintln(s.out, "warning: "+warning); err != nil {
			return nil, err
		}
	}
	if len(loaded.Missing) > 0 {
		return nil, s.missingContext(loaded.Missing)
	}
	selected, err := s.selected(loaded)
	if err != nil {
		return nil, err
	}
	var problems []string
	for _, stack := range selected {
		for _, message := range stack.AnnotatedWarnings() {
			if _, err := fmt.Fprintf(s.out, "warning: %s: %s\n", message.Path, message.Text); err != nil {
				return nil, err
			}
		}
		for _, message := range stack.Errors() {
			problems = append(problems, message.Path+": "+message.Text)
		}
	}
	violations, err := failedValidations(dir, selected)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.request.op(), err)
	}
	problems = append(problems, violations...)
	if len(problems) > 0 {
		return nil, fault.Newf(fault.User, fault.SynthAnnotation, s.request.op(), "Mend what the app reports; nothing was deployed",
			"the app reports %s: %s", count.Of(len(problems), "error"), enumerate(problems))
	}
	return selected, nil
}

// selected returns the stacks that will be deployed.
func (s *synthesis) selected(loaded *assembly.Assembly) ([]*assembly.Stack, error) {
	if len(s.request.Stacks) == 0 {
		return loaded.Stacks, nil
	}
	stacks, err := loaded.Resolve(s.request.Stacks)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.request.op(), err)
	}
	return stacks, nil
}

// missingContext lists what the app looked for. An assembly made without it
// holds dummy values.
func (s *synthesis) missingContext(missing []assembly.MissingContext) error {
	lines := make([]string, len(missing))
	for i, entry := range missing {
		lines[i] = fmt.Sprintf("%q (%s", entry.Key, entry.Provider)
		if account, ok := entry.Props["account"].(string); ok {
			lines[i] += ", account " + account
		}
		if region, ok := entry.Props["region"].(string); ok {
			lines[i] += ", region " + region
		}
		lines[i] += ")"
	}
	slices.Sort(lines)
	remedy := "Run `cdk synth` locally with credentials of the account, and commit cdk.context.json"
	if name := s.request.Environment.Name; name != pipeline.Own {
		remedy += "; or set the keys under context of environment " + name
	}
	return fault.Newf(fault.User, fault.ContextMissing, s.request.op(), remedy,
		"the app needs %s that is not in cdk.context.json, and holds dummy values without: %s%s", count.Of(len(missing), "context value"), enumerate(lines), s.lookedUp)
}

// validationReport is validation-report.json of an assembly.
type validationReport struct {
	PluginReports []struct {
		PluginName string `json:"pluginName"`
		Conclusion string `json:"conclusion"`
		Violations []struct {
			RuleName    string `json:"ruleName"`
			Description string `json:"description"`
			Constructs  []struct {
				Path string `json:"constructPath"`
			} `json:"violatingConstructs"`
		} `json:"violations"`
	} `json:"pluginReports"`
}

// failedValidations returns the violations of failed plugins that concern the
// selected stacks. One without a construct concerns every stack. Annotations,
// which the library reports there as well, are left to the stacks' messages.
func failedValidations(dir string, selected []*assembly.Stack) ([]string, error) {
	const name, annotations = "validation-report.json", "Construct Annotations"
	data, err := readInside(dir, name)
	if err != nil || data == nil {
		return nil, err
	}
	var report validationReport
	err = jsonlimit.Check(data, jsonlimit.Document)
	if err == nil {
		err = json.Unmarshal(data, &report)
	}
	if err != nil {
		return nil, fault.Newf(fault.User, fault.AssemblyInvalid, "read "+name, "Use a released version of aws-cdk-lib", "%w", err)
	}
	problems := map[string]bool{}
	for _, plugin := range report.PluginReports {
		if plugin.Conclusion != "failure" || plugin.PluginName == annotations {
			continue
		}
		for _, violation := range plugin.Violations {
			text := fmt.Sprintf("%s (%s, %s)", violation.Description, plugin.PluginName, violation.RuleName)
			if len(violation.Constructs) == 0 {
				problems[text] = true
			}
			for _, construct := range violation.Constructs {
				if construct.Path == "" {
					problems[text] = true
				} else if concerns(selected, construct.Path) {
					problems[construct.Path+": "+text] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(problems)), nil
}

// readInside returns a regular file of the assembly, nil if there is none. The
// app made it: a link may lead anywhere, and is not followed.
func readInside(dir, name string) ([]byte, error) {
	const maxBytes = 64 << 20
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxBytes {
		return nil, fault.Newf(fault.User, fault.AssemblyInvalid, "read "+name, "Let the app write an ordinary file",
			"it is not a regular file of at most %d bytes", maxBytes)
	}
	return root.ReadFile(name)
}

func concerns(selected []*assembly.Stack, construct string) bool {
	return slices.ContainsFunc(selected, func(stack *assembly.Stack) bool {
		return construct == stack.HierarchicalID || strings.HasPrefix(construct, stack.HierarchicalID+"/")
	})
}

// enumerate joins problems, up to a bound.
func enumerate(problems []string) string {
	if more := len(problems) - maxShownProblems; more > 0 {
		return fmt.Sprintf("%s; and %d more", strings.Join(problems[:maxShownProblems], "; "), more)
	}
	return strings.Join(problems, "; ")
}
