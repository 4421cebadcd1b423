package synth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/aphex-pipeline/aphex/internal/archive"
	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/count"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// lookUp lets the project's own CDK command line find the context that the app
// misses, once, and adds it to the context of the next run. The command line
// has all providers and the project's plugins; only its results are used, not
// its assembly, so that this one is made like every other. cdk.context.json is
// left as it was.
func (s *synthesis) lookUp(ctx context.Context, incomplete *assembly.Assembly) error {
	source := path.Join(worker.SourceDir, s.request.App)
	program, err := s.commandLine(ctx)
	if err != nil {
		return err
	}
	if program == "" {
		s.lookedUp = "; it was not looked up because the project has no CDK command line (aws-cdk in its package.json)"
		return nil
	}
	selected, err := s.selected(incomplete)
	if err != nil {
		return err
	}
	credentials, err := s.config.Lookups(ctx, s.request.Environment, lookupRole(incomplete.Missing))
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.out, "looking up %s with %s\n", count.Of(len(incomplete.Missing), "context value"), program); err != nil {
		return err
	}
	before, err := s.savedContext(ctx, source)
	if err != nil {
		return err
	}
	ended := s.runCommandLine(ctx, source, program, credentials, selected)
	after, err := s.savedContext(ctx, source)
	if err != nil {
		return errors.Join(ended, err)
	}
	if err := s.restoreContext(ctx, source, before); err != nil {
		return errors.Join(ended, err)
	}
	if ctx.Err() != nil {
		return ended
	}
	if ended != nil { // it may have found some of the values all the same
		s.lookedUp = "; `cdk synth` could not look it up: " + ended.Error()
	}
	if after == nil {
		return nil
	}
	saved, err := decodeObject(after)
	if err != nil {
		return fault.Newf(fault.User, fault.ConfigInvalid, s.request.op(), "Run `cdk synth` locally", "%s as the command line wrote it: %w", contextFile, err)
	}
	s.project.layers.saved = saved
	s.project.context = s.project.layers.merged()
	return nil
}

// lookupRole is the role that the app names for its look-ups.
func lookupRole(missing []assembly.MissingContext) string {
	for _, m := range missing {
		if role, ok := m.Props["lookupRoleArn"].(string); ok && role != "" {
			return role
		}
	}
	return ""
}

// commandLine returns the path, from the app's folder, of the nearest
// installed CDK command line; empty if there is none.
func (s *synthesis) commandLine(ctx context.Context) (string, error) {
	up := ""
	for folder := path.Clean(s.request.App); ; folder, up = path.Dir(folder), path.Join("..", up) {
		name := path.Join("node_modules", ".bin", "cdk")
		entries, err := s.worker.Stat(ctx, []string{path.Join(worker.SourceDir, folder, "node_modules", "aws-cdk", "package.json")})
		// A link out of the workspace is not followed here, but may well be
		// where the modules are.
		elsewhere := err != nil && fault.From(err).Reason == fault.PathRefused
		if err != nil && !elsewhere {
			return "", fmt.Errorf("%s: %w", s.request.op(), err)
		}
		if len(entries) > 0 || elsewhere {
			return "./" + path.Join(up, name), nil
		}
		if folder == "." {
			return "", nil
		}
	}
}

// runCommandLine runs `cdk synth` for the stacks. The command line runs the
// app as often as it takes.
func (s *synthesis) runCommandLine(ctx context.Context, source, program string, credentials map[string]string, selected []*assembly.Stack) error {
	limited, stop := context.WithTimeoutCause(ctx, s.config.Timeout, errTimeout)
	defer stop()
	argv := []string{program, "--no-notices", "--no-color", "synth", "--quiet", "--output", path.Join(s.root, s.scratch, "lookup")}
	for _, key := range slices.Sorted(maps.Keys(s.request.Environment.Context)) {
		if text := fmt.Sprint(s.request.Environment.Context[key]); isPlain(s.request.Environment.Context[key]) {
			argv = append(argv, "--context", key+"="+text)
		}
	}
	for _, stack := range selected {
		argv = append(argv, stack.HierarchicalID)
	}
	env := s.baseEnv()
	maps.Copy(env, credentials)
	maps.Copy(env, map[string]string{"CI": "true", "CDK_DISABLE_CLI_TELEMETRY": "true", "CDK_VALIDATION": "false"})
	exit, err := s.worker.Exec(limited, worker.Command{Argv: argv, Dir: source, Env: env, Grace: s.config.Grace}, s.out)
	if err == nil && exit.Code != 0 {
		err = fmt.Errorf("it ended with %s; %s", outcome(exit), exit.LastLines())
	}
	return errors.Join(err, s.worker.Remove(context.WithoutCancel(ctx), path.Dir(s.scratch), []string{path.Base(s.scratch)}))
}

// isPlain says whether a context value can be given on a command line.
func isPlain(value any) bool {
	switch value.(type) {
	case string, bool, int, float64:
		return true
	}
	return false
}

// savedContext returns the bytes of the app's cdk.context.json; nil if there
// is none.
func (s *synthesis) savedContext(ctx context.Context, source string) ([]byte, error) {
	entries, err := s.worker.Stat(ctx, []string{path.Join(source, contextFile)})
	if err != nil || len(entries) == 0 {
		return nil, err
	}
	data, err := s.readFile(ctx, source, contextFile)
	if err == nil && data == nil {
		data = []byte{}
	}
	return data, err
}

// restoreContext puts cdk.context.json back as it was.
func (s *synthesis) restoreContext(ctx context.Context, source string, before []byte) error {
	if before == nil {
		return s.worker.Remove(ctx, source, []string{contextFile})
	}
	tree, err := archive.Files(map[string][]byte{contextFile: before})
	if err != nil {
		return err
	}
	return s.worker.WriteTree(ctx, source, tree, worker.WriteOptions{})
}
