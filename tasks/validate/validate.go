package validate

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/internal/workspace"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// checkout is what the stage needs of internal/workspace.
type checkout interface {
	Prepare(ctx context.Context, src workspace.Source, out io.Writer) error
	File(ctx context.Context, path string) ([]byte, error)
}

// programs looks programs up in the worker, and runs them.
type programs interface {
	Exec(ctx context.Context, cmd worker.Command, output io.Writer) (worker.Exit, error)
	LookPath(ctx context.Context, names []string, env map[string]string) (map[string]string, error)
}

// Identity proves the credentials of one environment: it assumes the role the
// environment is deployed with and compares the account. A warning says what is
// used instead of a role that is passed over.
type Identity func(ctx context.Context, req task.Request, target pipeline.Environment) (warning string, err error)

// Start decides whether a run may start with the topology it has. See
// Replacer.
type Start interface {
	// Replace starts a replacement of the run if its topology is no longer
	// that of the pipeline's template, and returns its name; empty if the run
	// is current.
	Replace(ctx context.Context, req task.Request) (string, error)
}

// Config is what the stage is made of. Workspace, Programs, FirstProgram and
// Identity are required.
type Config struct {
	Workspace checkout
	Programs  programs
	// FirstProgram returns the program a command starts with; ok is false if
	// that cannot be told (a shell builtin, a file of the checkout).
	FirstProgram func(command string) (name string, ok bool)
	Identity     Identity
	// Patience is the time the worker has to tell its versions of node and the
	// CDK; 0 means 10 s.
	Patience time.Duration
	// Start is nil where no cluster is (aphex task).
	Start Start
	// Labels gives the run the labels it is found by; nil where no cluster is.
	Labels func(ctx context.Context, req task.Request) error
}

// Stage is the validate stage.
type Stage struct{ cfg Config }

// New returns the validate stage.
func New(cfg Config) *Stage {
	if cfg.Patience <= 0 {
		cfg.Patience = defaultPatience
	}
	return &Stage{cfg: cfg}
}

var _ task.Runner = (*Stage)(nil)

// Run performs the checks in the order of their cost.
//
// Errors: CommitInvalid, the reasons of the clone, ConfigMissing, and
// ConfigInvalid, ToolMissing, ContextMissing or a credential reason with every
// finding in one message (the reason is that of the first).
func (s *Stage) Run(ctx context.Context, req task.Request, env task.Env) (task.Result, error) {
	if s.cfg.Labels != nil {
		if err := s.cfg.Labels(ctx, req); err != nil {
			env.Logger.WarnContext(ctx, "the run may lack its labels", "err", err)
		}
	}
	if s.cfg.Start != nil {
		name, err := s.cfg.Start.Replace(ctx, req)
		if err != nil {
			return task.Result{}, err
		}
		if name != "" {
			return task.Result{
				Message: fmt.Sprintf("the pipeline's topology changed while this run waited: run %s replaces it with the same arguments, nothing was done here", name),
				Reason:  string(fault.StaleTopology),
				Outputs: map[string]string{task.OutputProceed: "false"},
			}, nil
		}
	}
	if err := s.cfg.Workspace.Prepare(ctx, workspace.Source{RepoURL: req.RepoURL, Commit: req.Commit, Branch: req.Branch}, env.Output); err != nil {
		return task.Result{}, err
	}
	cfg, err := pipeline.Read(ctx, s.cfg.Workspace, req.ConfigPath)
	if err != nil {
		return task.Result{}, err
	}
	for _, allowed := range cfg.AllowedSecrets {
		if _, err := fmt.Fprintf(env.Output, "%s\n", allowed); err != nil {
			return task.Result{}, fmt.Errorf("write the log: %w", err)
		}
	}
	programs, err := s.check(ctx, req, cfg, env)
	if err != nil {
		return task.Result{}, err
	}
	names := make([]string, 0, len(cfg.Environments))
	for _, e := range cfg.Environments {
		names = append(names, e.Name)
	}
	message := fmt.Sprintf("commit %.12s: configuration, tools and credentials of %s are fine", req.Commit, strings.Join(names, ", "))
	if len(programs) > 0 {
		message += "; " + strings.Join(programs, ", ")
	}
	return task.Result{
		Message: message,
		Outputs: map[string]string{task.OutputProceed: "true"},
	}, nil
}

// check runs every check that needs the configuration and joins the findings.
// It returns the versions that the worker tells.
func (s *Stage) check(ctx context.Context, req task.Request, cfg *pipeline.Config, env task.Env) ([]string, error) {
	var findings []error
	env.Progress("checking tools")
	findings = append(findings, s.tools(ctx, cfg, env.Output)...)
	findings = append(findings, Context(ctx, s.cfg.Workspace, cfg)...)
	env.Progress("checking credentials")
	told := make(chan versions, 1)
	go func() { told <- s.versions(ctx, cfg) }() // meanwhile
	denied, err := Credentials(ctx, cfg.Environments, func(ctx context.Context, target pipeline.Environment) (string, error) {
		return s.cfg.Identity(ctx, req, target)
	}, env.Output)
	answer := <-told
	if err != nil {
		return nil, err
	}
	for _, line := range answer.lines {
		if _, err := fmt.Fprintln(env.Output, line); err != nil {
			return nil, fmt.Errorf("write the log: %w", err)
		}
	}
	return answer.programs, fault.Join(opValidate, "Mend all of them, then push again or retry the run", append(findings, denied...)...)
}

// opValidate is what the stage does, in messages about all of it.
const opValidate = "validate the run"
