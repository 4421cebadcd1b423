package synth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"time"

	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// DefaultTimeout is the time an app has where Config.Timeout is zero. A large
// app with bundled assets takes minutes; one that hangs never ends.
const DefaultTimeout = 20 * time.Minute

// Worker is what a Synthesizer uses of the container that runs user code.
type Worker interface {
	// Ping says where the worker's root is.
	Ping(ctx context.Context) (worker.Info, error)
	// Exec runs a command.
	Exec(ctx context.Context, cmd worker.Command, output io.Writer) (worker.Exit, error)
	// Stat describes those of paths that exist.
	Stat(ctx context.Context, paths []string) ([]worker.Entry, error)
	// ReadTree returns files of a folder as a tar stream.
	ReadTree(ctx context.Context, dir string, paths []string) (io.ReadCloser, error)
	// WriteTree extracts a tar stream into a folder.
	WriteTree(ctx context.Context, dir string, tree io.Reader, opts worker.WriteOptions) error
	// Remove removes paths of a folder.
	Remove(ctx context.Context, dir string, paths []string) error
}

var _ Worker = (*worker.Client)(nil)

// Config is what a Synthesizer needs.
type Config struct {
	// Worker runs the apps. Required.
	Worker Worker
	// Private is a folder that no user code can reach; assemblies are put
	// there. Required.
	Private string
	// Lookups gives access to an account for the look-ups of the CDK command
	// line; nil makes context that is in no file an error.
	Lookups Lookups
	// Timeout is the time one app has, its build included; 0 means
	// DefaultTimeout.
	Timeout time.Duration
	// Grace is the time an app has to end after SIGTERM; 0 means the worker's
	// default.
	Grace time.Duration
}

// Lookups returns credentials, as variables of a command, that may look things
// up in an environment. role is the role that the app names for it, with
// placeholders; empty if it names none.
type Lookups func(ctx context.Context, environment pipeline.Environment, role string) (map[string]string, error)

// Synthesizer synthesizes CDK apps. It is safe for concurrent use with
// different request IDs.
type Synthesizer struct {
	config Config
}

// New returns a Synthesizer.
func New(config Config) *Synthesizer {
	if config.Timeout <= 0 {
		config.Timeout = DefaultTimeout
	}
	return &Synthesizer{config: config}
}

// Request asks for the assembly of one app for one environment.
type Request struct {
	// Environment is what the app is synthesized for.
	Environment pipeline.Environment
	// App is the folder of cdk.json relative to the source root, as FindApp
	// returns it.
	App string
	// Stacks are the stacks that will be deployed from the assembly. Error
	// annotations and failed validations of other stacks do not matter. Empty
	// means all.
	Stacks []string
	// Artifacts is the folder of the build's artifacts relative to the source
	// root. Programs of the app are told where it is.
	Artifacts string
	// Outputs is a folder of the worker's tree with the stack outputs of earlier
	// environments; empty for none. Programs of the app are told where it is.
	Outputs string
	// ID is unique per execution and app. An assembly of the same ID is
	// replaced.
	ID string
}

// op is the request's operation in messages.
func (r *Request) op() string {
	app := r.App
	if app == "." {
		app = "the app"
	}
	if r.Environment.Name == pipeline.Own {
		return "synthesize " + app
	}
	return fmt.Sprintf("synthesize %s for environment %s", app, r.Environment.Name)
}

// Synth runs the app and returns the folder of its assembly below
// Config.Private; the caller removes it when it is done. Everything the app
// prints goes to out.
//
// It blocks until the app is gone; ending ctx ends the app.
//
// Errors: SynthFailed (with the last lines of output), SynthTimeout,
// ContextMissing, SynthAnnotation, AssemblyInvalid, ConfigInvalid (a broken
// cdk.json), those of assembly.Resolve, and those of the worker.
func (s *Synthesizer) Synth(ctx context.Context, req Request, out io.Writer) (dir string, err error) {
	begin := time.Now()
	environment := req.Environment
	if _, err := fmt.Fprintf(out, "%s (account %s, region %s)\n", req.op(), environment.Account, environment.Region); err != nil {
		return "", err
	}
	info, err := s.config.Worker.Ping(ctx)
	if err != nil {
		return "", fmt.Errorf("%s: %w", req.op(), err)
	}
	run := &synthesis{root: info.Root, config: s.config, worker: s.config.Worker, request: req, out: out, scratch: path.Join(worker.OutDir, "synth-"+digest(req.ID))}
	if err := run.readProject(ctx); err != nil {
		return "", err
	}
	if missing := run.missingRequired(); len(missing) > 0 {
		return "", missingRequired(&req, missing)
	}
	dir = filepath.Join(s.config.Private, "assembly-"+digest(req.ID))
	loaded, err := run.assemble(ctx, dir)
	if err != nil {
		return "", err
	}
	if len(loaded.Missing) > 0 && s.config.Lookups != nil {
		if err := run.lookUp(ctx, loaded); err != nil {
			return "", err
		}
		if loaded, err = run.assemble(ctx, dir); err != nil {
			return "", err
		}
	}
	selected, err := run.check(dir, loaded)
	if err != nil {
		return "", err
	}
	if err := run.produce(ctx, dir, selected); err != nil {
		return "", err
	}
	_, err = fmt.Fprintf(out, "synthesized in %s\n", time.Since(begin).Round(100*time.Millisecond))
	return dir, err
}

// assemble runs the app and reads the assembly it made, which is put into dir.
func (s *synthesis) assemble(ctx context.Context, dir string) (*assembly.Assembly, error) {
	output, err := s.app(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.fetch(ctx, output, dir); err != nil {
		return nil, err
	}
	loaded, err := assembly.Load(dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.request.op(), err)
	}
	return loaded, nil
}

// digest makes an id fit for a file name.
func digest(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:8])
}

// FindApp returns the folder of the CDK app that name (a file or folder
// relative to the source root) belongs to: the nearest one at or above it that
// holds cdk.json; "." is the source root itself.
//
// Errors: AppMissing, and those of the worker.
func (s *Synthesizer) FindApp(ctx context.Context, name string) (string, error) {
	clean := path.Clean(name)
	op := fmt.Sprintf("find the CDK app of %q", name)
	if path.IsAbs(clean) || clean == ".." || len(clean) > 3 && clean[:3] == "../" {
		return "", fault.Newf(fault.User, fault.AppMissing, op, "Give a path relative to the root of the repository", "the path leads out of the repository")
	}
	paths := []string{path.Join(worker.SourceDir, clean)}
	folders := []string{""}
	for folder := clean; ; folder = path.Dir(folder) {
		paths = append(paths, path.Join(worker.SourceDir, folder, projectFile))
		folders = append(folders, folder)
		if folder == "." {
			break
		}
	}
	entries, err := s.config.Worker.Stat(ctx, paths)
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	if len(entries) == 0 || path.Clean(entries[0].Path) != paths[0] {
		return "", fault.Newf(fault.User, fault.AppMissing, op, "Correct stacks[].path in the configuration, or commit what is missing",
			"%q does not exist in the commit and was not made by the build", clean)
	}
	for _, entry := range entries[1:] {
		for i, candidate := range paths[1:] {
			if path.Clean(entry.Path) == candidate && !entry.Mode.IsDir() {
				return folders[i+1], nil
			}
		}
	}
	return "", fault.Newf(fault.User, fault.AppMissing, op, "Point stacks[].path at the CDK app, or commit its cdk.json",
		"no folder at or above %q holds a cdk.json", clean)
}

// errNoManifest is an app that ended well without an assembly.
var errNoManifest = errors.New("it wrote no manifest.json into the folder named by CDK_OUTDIR")
