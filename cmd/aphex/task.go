package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/git"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/secretref"
	"github.com/aphex-pipeline/aphex/internal/stagelog"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/version"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/plugin/execution"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// taskFlags are the flags of `aphex task`.
type taskFlags struct {
	dir, repo, commit, branch, config, pipeline, environment, run, region, endpoint, gitCredentials string
	// buildSecrets are what build.secrets may refer to.
	buildSecrets []string
	// pod is set in a pod of a Workflow.
	pod podFlags
}

// localStages can run without a cluster.
func localStages() []string {
	return []string{task.StageValidate, task.StageBuild, task.StageDeployEnv, task.StageTest, task.StageFinish}
}

func newTask() *cobra.Command {
	f := taskFlags{}
	cmd := &cobra.Command{
		Use:   "task STAGE",
		Short: "Run one stage of a pipeline in the foreground",
		Long: `Runs one stage (` + strings.Join(localStages(), ", ") + `) on this machine: a worker
is started for the user's commands, a folder stands for the bucket, and AWS
credentials are those of the environment. Stages of one --run share their
workspace, so build, deploy-env and test can follow one another.

The user's commands run as you do, on this machine: run only what you trust.

With --workflow the stage is run in a pod of that Workflow instead, beside a
worker, with the settings that ` + "`aphex plugin`" + ` has: what a pipeline
with runner: container does.`,
		Args: exactArgs(1, "one argument: the stage"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.pod.workflow != "" {
				return runInPod(cmd, args[0], f)
			}
			if !slices.Contains(localStages(), args[0]) {
				return usageError{fmt.Errorf("stage %q cannot be run here; allowed are %s", args[0], strings.Join(localStages(), ", "))}
			}
			return runTask(cmd, args[0], f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dir", ".aphex", "folder for the workspace and what stands for the bucket")
	flags.StringVar(&f.repo, "repo", "", "repository URL; file:// works too (required)")
	flags.StringVar(&f.commit, "commit", "", "commit to work on, 40 hexadecimal digits (required)")
	flags.StringVar(&f.branch, "branch", pipeline.DefaultBranch, "branch of the commit")
	flags.StringVar(&f.config, "config", pipeline.DefaultFile, "path of the configuration inside the repository")
	flags.StringVar(&f.pipeline, "pipeline", "local", "name of the pipeline")
	flags.StringVar(&f.environment, "environment", "", "environment, for deploy-env and test")
	flags.StringVar(&f.run, "run", "local", "name of the run; stages of one run share their workspace")
	flags.StringVar(&f.region, "region", "", "AWS region of the base credentials")
	flags.StringVar(&f.endpoint, "endpoint-url", "", "AWS endpoint, for emulators")
	flags.StringArrayVar(&f.buildSecrets, "build-secret", nil, "reference, without a field, that build.secrets of the configuration may use; may be given several times")
	f.pod.add(flags)
	flags.StringVar(&f.gitCredentials, "git-credentials", "", "folder with files username and password")
	return cmd
}

// runTask starts a worker, runs the stage and prints its result as JSON.
func runTask(cmd *cobra.Command, stage string, f taskFlags) error {
	if f.repo == "" || f.commit == "" {
		return usageError{errors.New("--repo and --commit are required")}
	}
	if f.environment == "" && (stage == task.StageDeployEnv || stage == task.StageTest) {
		return usageError{fmt.Errorf("--environment is required for stage %s", stage)}
	}
	dir, err := filepath.Abs(filepath.Join(f.dir, f.run))
	if err != nil {
		return err
	}
	redactor := redact.New()
	p, err := localParts(dir, f, redactor)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	var wg sync.WaitGroup
	logger := slog.New(slog.NewTextHandler(redactor.Records(cmd.ErrOrStderr()), &slog.HandlerOptions{Level: slog.LevelWarn}))
	var workerErr error
	wg.Go(func() {
		workerErr = worker.Serve(ctx, worker.ServerConfig{
			Socket: p.socket, Root: p.workerRoot, Environ: os.Environ(), Version: version.Get().Version, Logger: logger,
		})
	})
	// Every call is a try of its own; only inside a cluster is one resumed.
	epoch := time.Now().UTC().Format(time.RFC3339Nano)
	req := task.Request{
		Run:   task.Run{Namespace: "local", Name: f.run, UID: f.run, Epoch: epoch},
		Stage: stage, Node: f.run + "." + record.StageName(stage, f.environment), Pipeline: f.pipeline, Environment: f.environment,
		ConfigPath: f.config, RepoURL: f.repo, Commit: f.commit, Branch: f.branch, WorkflowStatus: "Succeeded",
	}
	result, err := localStage(ctx, p.parts, dir, req, cmd, logger, redactor)
	cancel()
	wg.Wait()
	if err := errors.Join(err, workerErr); err != nil {
		return redactedError{err, redactor}
	}
	for name, value := range result.Outputs {
		result.Outputs[name] = redactor.String(value)
	}
	out := json.NewEncoder(cmd.OutOrStdout())
	out.SetIndent("", "  ")
	return out.Encode(map[string]any{"stage": stage, "message": redactor.String(result.Message), "reason": result.Reason, "outputs": result.Outputs})
}

// redactedError hides secrets in the text of an error and keeps its chain.
type redactedError struct {
	err      error
	redactor *redact.Redactor
}

func (e redactedError) Error() string { return e.redactor.String(e.err.Error()) }
func (e redactedError) Unwrap() error { return e.err }

// localStage runs the stage with a journal in a folder and its log on stderr.
func localStage(ctx context.Context, p parts, dir string, req task.Request, cmd *cobra.Command, logger *slog.Logger, redactor *redact.Redactor) (task.Result, error) {
	book, err := journal.NewFiles(filepath.Join(dir, "journal"), "local").Open(ctx, req.Run)
	if err != nil {
		return task.Result{}, err
	}
	if _, err := book.Begin(ctx, journal.Entry{Key: req.Key(), Stage: req.Stage, StartedAt: time.Now().UTC()}); err != nil {
		return task.Result{}, err
	}
	recorder := stageRecorder{p.records}
	began := time.Now()
	if err := recorder.StageStarted(ctx, req, began); err != nil {
		return task.Result{}, err
	}
	log := stagelog.Open(ctx, stagelog.Config{Dir: p.privateDir, Store: p.store, Logger: logger}, execution.LogID(&req), 1)
	lines := &stagelog.Lines{Line: log.Append}
	output := redact.NewWriter(io.MultiWriter(cmd.ErrOrStderr(), lines), redactor)
	result, err := p.stages()[req.Stage].Run(ctx, req, task.Env{
		Output: output, Logger: logger, Progress: func(string) {}, Effects: journal.Own{Book: book, Key: req.Key()},
	})
	phase, message, reason := "Succeeded", redactor.String(result.Message), result.Reason
	if err != nil {
		phase, message, reason = "Failed", redactor.String(fault.Message(err)), string(fault.From(err).Reason)
	}
	flushErr := output.Flush()
	if err != nil { // standard error has it from the command's end
		lines.Flush("")
		_, _ = fmt.Fprintln(lines, "aphex: "+redactor.String(fault.Text(err))) // writing lines never fails
	}
	lines.Flush("aphex: " + req.Stage + " " + phase)
	kept, logErr := log.Finish(context.WithoutCancel(ctx))
	return result, errors.Join(err, flushErr, logErr, recorder.StageEnded(context.WithoutCancel(ctx), req, began, time.Now(), phase, message, reason, kept.URL))
}

// local is the parts of a run on this machine.
type local struct {
	parts
	socket string
}

func localParts(dir string, f taskFlags, redactor *redact.Redactor) (local, error) {
	private, root := filepath.Join(dir, "private"), filepath.Join(dir, "worker")
	for _, d := range []string{private, root} {
		if err := os.MkdirAll(d, 0o750); err != nil {
			return local{}, fmt.Errorf("make the run's folders: %w", err)
		}
	}
	access := git.Config{Home: filepath.Join(private, "git-home"), SecretName: "folder (--git-credentials)", AllowFile: true} //nolint:gosec // G101: what messages call it
	if f.gitCredentials != "" {
		var err error // git runs in another folder
		if access.Credentials, err = filepath.Abs(f.gitCredentials); err != nil {
			return local{}, fmt.Errorf("find the git credentials: %w", err)
		}
	}
	repositories, err := gitClient(access, redactor)
	if err != nil {
		return local{}, err
	}
	socket := filepath.Join(dir, "worker.sock")
	bucket := store.NewDir(filepath.Join(dir, "bucket"))
	id := &identity{options: awsauth.Options{Region: f.region, EndpointURL: f.endpoint}, redactor: redactor, personal: true}
	return local{socket: socket, parts: parts{
		privateDir: private, worker: worker.NewClient(socket), workerRoot: root, git: repositories,
		store: bucket, records: record.New(bucket), pipeline: f.pipeline,
		identity: id, secrets: secretref.New(secretref.Config{Base: id.base, Hide: redactor.Add}), allowedSecrets: f.buildSecrets,
	}}, nil
}
