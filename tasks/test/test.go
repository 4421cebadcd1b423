package test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"time"

	"github.com/aphex-pipeline/aphex/internal/artifacts"
	"github.com/aphex-pipeline/aphex/internal/count"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/outputs"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/internal/worker/commands"
	"github.com/aphex-pipeline/aphex/internal/workspace"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// DefaultTimeout ends the tests of an environment that does not say otherwise.
const DefaultTimeout = 30 * time.Minute

type checkout interface {
	Prepare(ctx context.Context, src workspace.Source, out io.Writer) error
	File(ctx context.Context, path string) ([]byte, error)
	Reset(ctx context.Context, key string, out io.Writer) error
}

type trees interface {
	List(ctx context.Context, dir string) ([]worker.Entry, error)
	ReadTree(ctx context.Context, dir string, paths []string) (io.ReadCloser, error)
	WriteTree(ctx context.Context, dir string, tree io.Reader, opts worker.WriteOptions) error
}

// verifier makes sure that the artifacts are the published ones.
type verifier interface {
	Verify(ctx context.Context, uid, folder string, out io.Writer) error
}

type executor interface {
	Exec(ctx context.Context, cmd worker.Command, output io.Writer) (worker.Exit, error)
}

type bucket interface {
	Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error)
	Get(ctx context.Context, key string) (io.ReadCloser, store.Object, error)
}

// Credentials returns short-lived credentials of the environment as
// environment variables, or says why there are none for commands.
type Credentials func(ctx context.Context, req task.Request, target pipeline.Environment) (vars map[string]string, missing string, err error)

// Config is what the stage is made of. All fields are required.
type Config struct {
	Workspace   checkout
	Worker      executor
	Trees       trees
	Store       bucket
	Artifacts   verifier
	Credentials Credentials
	// WorkerRoot is the worker's root folder as its commands see it:
	// "/workspace".
	WorkerRoot string
	// Redact hides secrets in what test reports say.
	Redact func(text string) string
}

// Stage is the test stage.
type Stage struct {
	cfg Config
	now func() time.Time
}

// New returns the test stage.
func New(cfg Config) *Stage { return &Stage{cfg: cfg, now: time.Now} }

var _ task.Runner = (*Stage)(nil)

// Run resets the checkout to commit and build products, writes the stack
// outputs of this environment and of those before it to the folder named by
// APHEX_OUTPUTS_DIR, and those of this one into one variable per output, runs
// the commands, reads the test reports that they wrote and stores the result.
//
// Errors: CommandFailed, TestsFailed, StageTimeout, and those of the workspace,
// the worker, the bucket and the credentials.
func (s *Stage) Run(ctx context.Context, req task.Request, env task.Env) (task.Result, error) {
	if err := s.cfg.Workspace.Prepare(ctx, workspace.Source{RepoURL: req.RepoURL, Commit: req.Commit, Branch: req.Branch}, env.Output); err != nil {
		return task.Result{}, err
	}
	cfg, err := pipeline.Read(ctx, s.cfg.Workspace, req.ConfigPath)
	if err != nil {
		return task.Result{}, err
	}
	target, ok := cfg.Environment(req.Environment)
	if !ok || target.Tests == nil || len(target.Tests.Commands) == 0 {
		return task.Result{
			Message: req.Environment + ": this commit has no tests for the environment",
			Outputs: map[string]string{task.OutputResult: "none"},
		}, nil
	}
	if err := s.cfg.Workspace.Reset(ctx, record.SnapshotKey(req.BuiltBy()), env.Output); err != nil {
		return task.Result{}, err
	}
	if err := s.cfg.Artifacts.Verify(ctx, req.BuiltBy(), cfg.Build.Artifacts, env.Output); err != nil {
		return task.Result{}, err
	}
	vars, err := s.variables(ctx, req, env, cfg, target)
	if err != nil {
		return task.Result{}, err
	}
	return s.test(ctx, req, env, target, vars)
}

func (s *Stage) test(ctx context.Context, req task.Request, env task.Env, target pipeline.Environment, vars map[string]string) (task.Result, error) {
	found, err := s.look(ctx, target.Tests.Reports)
	if err != nil {
		return task.Result{}, err
	}
	began := s.now()
	env.Progress(fmt.Sprintf("%s: running %s", target.Name, count.Of(len(target.Tests.Commands), "test command")))
	results, err := commands.Run(ctx, s.cfg.Worker, commands.List{
		Commands: target.Tests.Commands, Dir: worker.SourceDir, Env: vars,
		Timeout: cmp.Or(target.Tests.Timeout, DefaultTimeout), TimeoutLabel: "environments[].tests.timeout",
	}, env.Output)
	took := s.now().Sub(began).Round(100 * time.Millisecond)
	readErr := s.collect(ctx, target.Tests.Reports, found, interrupted(ctx, results))
	switch {
	case err == nil:
		err = cmp.Or(found.verdict(), readErr)
	case readErr != nil:
		found.warn("%s", readErr)
	}
	found.log(env.Output)
	if storeErr := s.keep(ctx, req, results, found, err); storeErr != nil {
		err = errors.Join(err, storeErr)
	}
	said := found.sentence()
	if err != nil {
		if said != "" {
			err = fmt.Errorf("%s: %s: %w", target.Name, said, err)
		}
		return task.Result{}, err
	}
	if said != "" {
		said += "; "
	}
	return task.Result{
		Message: fmt.Sprintf("%s: %s%s passed in %s", target.Name, said, count.Of(len(results), "test command"), took),
		Outputs: map[string]string{task.OutputResult: "passed"},
	}, nil
}

// interrupted reports whether the last command did not end by itself, or the
// stage is to end.
func interrupted(ctx context.Context, results []commands.Result) bool {
	return ctx.Err() != nil || len(results) > 0 && results[len(results)-1].Err != nil
}

// variables are the environment of the test commands.
func (s *Stage) variables(ctx context.Context, req task.Request, env task.Env, cfg *pipeline.Config, target pipeline.Environment) (map[string]string, error) {
	dir := path.Join(worker.OutDir, "test-"+target.Name)
	own, err := s.outputs(ctx, req, append(outputs.Before(cfg, target.Name), target.Name), dir)
	if err != nil {
		return nil, err
	}
	credentials, missing, err := s.cfg.Credentials(ctx, req, target)
	if err != nil {
		return nil, err
	}
	vars, left := outputVariables(own)
	var warnings []string
	for _, reason := range left {
		warnings = append(warnings, reason+"; see the file in $"+outputs.FileVariable)
	}
	if missing != "" {
		warnings = append(warnings, "the commands have no AWS credentials: "+missing)
	}
	for _, warning := range warnings {
		if _, err := fmt.Fprintf(env.Output, "warning: %s\n", warning); err != nil {
			return nil, fmt.Errorf("write the log: %w", err)
		}
	}
	maps.Copy(vars, credentials)
	vars[outputs.DirVariable] = outputs.Folder(s.cfg.WorkerRoot, dir)
	vars[outputs.FileVariable] = path.Join(vars[outputs.DirVariable], outputs.FileName(target.Name))
	vars[artifacts.Variable] = artifacts.Folder(s.cfg.WorkerRoot, cfg.Build.Artifacts)
	vars["APHEX_ENVIRONMENT"] = target.Name
	vars["APHEX_PIPELINE"] = req.Pipeline
	vars["APHEX_COMMIT"] = req.Commit
	vars["AWS_REGION"], vars["AWS_DEFAULT_REGION"] = target.Region, target.Region
	vars["AWS_ACCOUNT"] = target.Account
	return vars, nil
}

// outputs writes the stack outputs of environments to a folder and returns
// those of the request's own, which the deployment before has stored.
func (s *Stage) outputs(ctx context.Context, req task.Request, environments []string, dir string) (map[string]map[string]string, error) {
	op := "read the stack outputs of " + req.Environment
	documents, err := outputs.NewWriter(s.cfg.Store, s.cfg.Trees).Write(ctx, req.Run.UID, environments, dir)
	if err != nil {
		return nil, err
	}
	document, ok := documents[req.Environment]
	if !ok {
		return nil, fault.Newf(fault.System, fault.StoreFailed, op, "Start a new run", "%w: %s", store.ErrNotFound, record.OutputsKey(req.Run.UID, req.Environment))
	}
	var own map[string]map[string]string
	if err := json.Unmarshal(document, &own); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return own, nil
}

// keep stores the result, whatever it is, also when the stage was cancelled.
func (s *Stage) keep(ctx context.Context, req task.Request, results []commands.Result, found *reports, failure error) error {
	const storeTimeout = 25 * time.Second // with hurriedTimeout and a command's grace, less than the 45 s that a cancelled stage has
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	result := record.TestResult{
		SchemaVersion: record.SchemaVersion, WorkflowID: req.Run.UID, Environment: req.Environment, CommitSHA: req.Commit,
		Attempt: req.Attempt, Epoch: req.Run.Epoch, Status: record.ResultPassed, CompletedAt: s.now().UTC(),
		Commands: make([]record.TestCommand, 0, len(results)),
		Tests:    found.tests(), Suites: found.suites, Reports: found.read, Warnings: found.warnings,
	}
	if failure != nil {
		result.Status = record.ResultFailed
	}
	for _, r := range results {
		result.Commands = append(result.Commands, record.TestCommand{
			Command: r.Command, ExitCode: r.Exit.Code, Seconds: r.Exit.Duration.Seconds(), Passed: r.Err == nil && r.Exit.Code == 0,
		})
	}
	body, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the test result: %w", err)
	}
	for _, key := range result.Keys() {
		_, putErr := s.cfg.Store.Put(ctx, key, bytes.NewReader(body), store.PutOptions{ContentType: "application/json"})
		err = errors.Join(err, putErr)
	}
	return err
}
