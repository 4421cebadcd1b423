package validate

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

// tools checks that the worker has every configured tool and the program the
// first build command starts with. Programs of later commands only warn: an
// earlier command may install them. They are sought as a build command would,
// with a PATH that build.env may set.
func (s *Stage) tools(ctx context.Context, cfg *pipeline.Config, out io.Writer) []error {
	required := slices.Clone(cfg.Tools)
	var optional []string
	for i, command := range commandsOf(cfg) {
		name, ok := s.cfg.FirstProgram(command)
		switch {
		case !ok:
		case i == 0 && len(cfg.Build.Commands) > 0:
			required = append(required, name)
		default:
			optional = append(optional, name)
		}
	}
	found, err := s.cfg.Programs.LookPath(ctx, slices.Concat(required, optional), cfg.Build.Env)
	if err != nil {
		return []error{err}
	}
	missing := func(names []string) []string {
		names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return found[n] != "" })
		slices.Sort(names)
		return slices.Compact(names)
	}
	var findings []error
	if names := missing(optional); len(names) > 0 {
		if _, err := fmt.Fprintf(out, "warning: the worker image has no %s; fine if an earlier command installs it\n", strings.Join(names, ", ")); err != nil {
			findings = append(findings, fmt.Errorf("write the log: %w", err))
		}
	}
	if names := missing(required); len(names) > 0 {
		findings = append(findings, fault.Newf(fault.User, fault.ToolMissing, "check the worker's tools",
			"Use a worker image that has it (worker.image), or install it in a build command and take it off tools",
			"the worker image has no %s", strings.Join(names, ", ")))
	}
	return findings
}

// commandsOf lists the build commands, then the test commands of every
// environment.
func commandsOf(cfg *pipeline.Config) []string {
	all := slices.Clone(cfg.Build.Commands)
	for _, e := range cfg.Environments {
		if e.Tests != nil {
			all = append(all, e.Tests.Commands...)
		}
	}
	return all
}
