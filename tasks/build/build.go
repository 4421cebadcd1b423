package build

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/aphex-pipeline/aphex/internal/artifacts"
	"github.com/aphex-pipeline/aphex/internal/bytesize"
	"github.com/aphex-pipeline/aphex/internal/cache"
	"github.com/aphex-pipeline/aphex/internal/count"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/internal/worker/commands"
	"github.com/aphex-pipeline/aphex/internal/workspace"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// DefaultTimeout ends a build whose configuration does not say otherwise.
const DefaultTimeout = time.Hour

// checkout is what the stage needs of internal/workspace.
type checkout interface {
	Prepare(ctx context.Context, src workspace.Source, out io.Writer) error
	File(ctx context.Context, path string) ([]byte, error)
	Materialize(ctx context.Context, out io.Writer) error
	Snapshot(ctx context.Context, key string, selection workspace.Selection, out io.Writer) (store.Object, error)
	Reset(ctx context.Context, key string, out io.Writer) error
}

// trees reads files the build left in the worker.
type trees interface {
	ReadTree(ctx context.Context, dir string, paths []string) (io.ReadCloser, error)
	Stat(ctx context.Context, paths []string) ([]worker.Entry, error)
}

// executor runs commands in the worker.
type executor interface {
	Exec(ctx context.Context, cmd worker.Command, output io.Writer) (worker.Exit, error)
}

// bucket is what the stage needs of internal/store.
type bucket interface {
	Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error)
	Get(ctx context.Context, key string) (io.ReadCloser, store.Object, error)
	Head(ctx context.Context, key string) (store.Object, error)
	List(ctx context.Context, prefix string) ([]store.Object, error)
	Tags(ctx context.Context, key string) (map[string]string, error)
	URL(key string) string
}

// Credentials returns short-lived AWS credentials as environment variables for
// builds that ask for them.
type Credentials func(ctx context.Context, req task.Request) (map[string]string, error)

// Secrets reads what a reference of build.secrets leads to, and hides it in
// logs and messages.
type Secrets interface {
	Read(ctx context.Context, ref string) (string, error)
}

// Config is what the stage is made of. All fields are required but
// AllowedSecrets.
type Config struct {
	Workspace   checkout
	Worker      executor
	Trees       trees
	Store       bucket
	Credentials Credentials
	Secrets     Secrets
	// AllowedSecrets are the references, without fields, that the installation
	// lets build commands have.
	AllowedSecrets []string
	// Caches is what builds keep for each other.
	Caches *cache.Keeper
	// WorkerRoot is the worker's root folder as its commands see it:
	// "/workspace".
	WorkerRoot string
}

// Stage is the build stage.
type Stage struct {
	cfg     Config
	records *record.Recorder
	now     func() time.Time
}

// New returns the build stage.
func New(cfg Config) *Stage {
	return &Stage{cfg: cfg, records: record.New(cfg.Store), now: time.Now}
}

var _ task.Runner = (*Stage)(nil)

// Run checks the commit out afresh, runs the commands, publishes the artifacts
// and saves the snapshot; it returns after all of that is durable. A successor
// runs nothing: it takes over what its predecessor built.
//
// Errors: CommandFailed names the command, its exit code and its last lines;
// StageTimeout if build.timeout passed; those of the secrets, the workspace and
// the bucket; SecretLeaked for a file with a secret where it would be kept.
func (s *Stage) Run(ctx context.Context, req task.Request, env task.Env) (task.Result, error) {
	if err := s.cfg.Workspace.Prepare(ctx, workspace.Source{RepoURL: req.RepoURL, Commit: req.Commit, Branch: req.Branch}, env.Output); err != nil {
		return task.Result{}, err
	}
	if req.Predecessor != "" {
		return s.takeOver(ctx, req, env)
	}
	cfg, err := pipeline.Read(ctx, s.cfg.Workspace, req.ConfigPath)
	if err != nil {
		return task.Result{}, err
	}
	if err := s.cfg.Workspace.Materialize(ctx, env.Output); err != nil {
		return task.Result{}, err
	}
	secrets, err := s.secrets(ctx, cfg.Build.Secrets)
	if err != nil {
		return task.Result{}, err
	}
	values := slices.Collect(maps.Values(secrets))
	scope := cache.Scope{Pipeline: req.Pipeline, Branch: req.Branch, Image: cfg.Worker.Image}
	caches := s.cfg.Caches.Restore(ctx, scope, cfg.Cache, values, env.Output)
	began := s.now()
	if err := s.build(ctx, req, cfg.Build, secrets, env); err != nil {
		return task.Result{}, err
	}
	built := s.now()
	env.Progress("publishing artifacts")
	published, err := s.publish(ctx, req, cfg.Build.Artifacts, values, env.Output)
	if err != nil {
		return task.Result{}, err
	}
	env.Progress("saving the workspace")
	selection := workspace.Selection{Exclude: cfg.Build.Snapshot.Exclude, Include: cfg.Build.Snapshot.Include, Secrets: values}
	snapshot, err := s.cfg.Workspace.Snapshot(ctx, record.SnapshotKey(req.Run.UID), selection, env.Output)
	if err != nil {
		return task.Result{}, err
	}
	caches.Keep(ctx)
	return task.Result{
		Message: fmt.Sprintf("%s in %s, %s, snapshot of %s", count.Of(len(cfg.Build.Commands), "command"),
			built.Sub(began).Round(100*time.Millisecond), published, bytesize.Format(snapshot.Size)),
		Outputs: map[string]string{
			task.OutputArtifactPath: s.cfg.Store.URL(record.ArtifactPrefix(req.Commit)),
			task.OutputSnapshot:     snapshot.URL,
		},
	}, nil
}

// takeOver proves that the predecessor's build is there by restoring it.
func (s *Stage) takeOver(ctx context.Context, req task.Request, env task.Env) (task.Result, error) {
	key := record.SnapshotKey(req.Predecessor)
	env.Progress("taking over the build of the predecessor")
	if err := s.cfg.Workspace.Reset(ctx, key, env.Output); err != nil {
		return task.Result{}, err
	}
	if err := s.records.InheritArtifacts(ctx, req.Predecessor, req.Run.UID); err != nil {
		return task.Result{}, err
	}
	return task.Result{
		Message: fmt.Sprintf("taken over from the run with UID %s, not built again", req.Predecessor),
		Outputs: map[string]string{
			task.OutputArtifactPath: s.cfg.Store.URL(record.ArtifactPrefix(req.Commit)),
			task.OutputSnapshot:     s.cfg.Store.URL(key),
		},
	}, nil
}

func (s *Stage) build(ctx context.Context, req task.Request, build pipeline.Build, secrets map[string]string, env task.Env) error {
	vars := map[string]string{
		"APHEX_PIPELINE": req.Pipeline, "APHEX_COMMIT": req.Commit, "APHEX_BRANCH": req.Branch, "APHEX_RUN": req.Run.Name,
		artifacts.Variable: artifacts.Folder(s.cfg.WorkerRoot, build.Artifacts),
	}
	maps.Copy(vars, build.Env)
	if build.Credentials {
		creds, err := s.cfg.Credentials(ctx, req)
		if err != nil {
			return err
		}
		maps.Copy(vars, creds)
	}
	maps.Copy(vars, secrets)
	env.Progress(fmt.Sprintf("running %d build commands", len(build.Commands)))
	_, err := commands.Run(ctx, s.cfg.Worker, commands.List{
		Commands: build.Commands, Dir: worker.SourceDir, Env: vars,
		Timeout: cmp.Or(build.Timeout, DefaultTimeout), TimeoutLabel: "build.timeout",
	}, env.Output)
	return err
}
