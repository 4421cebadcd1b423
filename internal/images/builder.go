package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/aphex-pipeline/aphex/internal/archive"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

const (
	// answerLimit is how long a builder may take to say that it works.
	answerLimit = time.Minute
	// archiveFile is the image on its way from the worker, nameFile the local
	// name that a program printed.
	archiveFile = "image.tar"
	nameFile    = "name"
	// maxName bounds a local name.
	maxName = 1 << 10
)

// Worker is what a Builder uses of the container that runs user code.
type Worker interface {
	// Ping says where the worker's root is.
	Ping(ctx context.Context) (worker.Info, error)
	// LookPath finds programs.
	LookPath(ctx context.Context, names []string, env map[string]string) (map[string]string, error)
	// Exec runs a command.
	Exec(ctx context.Context, cmd worker.Command, output io.Writer) (worker.Exit, error)
	// ReadTree returns files of a folder as a tar stream.
	ReadTree(ctx context.Context, dir string, paths []string) (io.ReadCloser, error)
	// WriteTree extracts a tar stream into a folder.
	WriteTree(ctx context.Context, dir string, tree io.Reader, opts worker.WriteOptions) error
	// Remove removes paths of a folder.
	Remove(ctx context.Context, dir string, paths []string) error
}

var _ Worker = (*worker.Client)(nil)

// Builder has images built in the worker. It is safe for concurrent use;
// builds take turns.
type Builder struct {
	worker  Worker
	private string
	program string

	turn sync.Mutex
}

// NewBuilder returns a Builder. Images are put into folders below private,
// which no user code can reach. program is Auto, Docker or Buildah; empty is
// Auto.
func NewBuilder(w Worker, private, program string) *Builder {
	if program == "" {
		program = Auto
	}
	return &Builder{worker: w, private: private, program: program}
}

// Choose finds the program that makes all of builds and returns its name, with
// warnings about what it leaves out without changing an image.
//
// Errors: ImageAssetUnsupported if no program works or the one that does lacks
// something; those of the worker.
func (b *Builder) Choose(ctx context.Context, builds []Build) (program string, warnings []string, err error) {
	op := builds[0].op()
	if len(builds) > 1 {
		op = fmt.Sprintf("build %d images", len(builds))
	}
	program, err = b.find(ctx, op)
	if err != nil {
		return "", nil, err
	}
	for _, build := range builds {
		if what := build.lacks(program); what != "" {
			return "", nil, fault.Newf(fault.User, fault.ImageAssetUnsupported, build.op(),
				"Leave it out of the asset, or let the worker reach a Docker engine (DOCKER_HOST)", "%s cannot do %s", program, what)
		}
		if program == Buildah && (len(build.Source.CacheFrom) > 0 || build.Source.CacheTo != nil) {
			warnings = append(warnings, fmt.Sprintf("asset %s: buildah does not know Docker's caches, cacheFrom and cacheTo are left out", build.Name))
		}
	}
	return program, warnings, nil
}

// find returns the first program that works.
func (b *Builder) find(ctx context.Context, op string) (string, error) {
	probes := []struct {
		program, needs string
		argv           []string
	}{
		{Docker, "no Docker engine answers it", []string{Docker, "version", "--format", "{{.Server.Version}}"}},
		{Buildah, "it does not work here", []string{Buildah, "info"}},
	}
	found, err := b.worker.LookPath(ctx, []string{Docker, Buildah}, nil)
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	var why []string
	for _, probe := range probes {
		if b.program != Auto && b.program != probe.program {
			continue
		}
		if found[probe.program] == "" {
			why = append(why, probe.program+" is not there")
			continue
		}
		exit, err := b.worker.Exec(ctx, worker.Command{Argv: probe.argv, Env: environment(), Timeout: answerLimit, Grace: time.Second}, nil)
		if ctx.Err() != nil || err != nil && !errors.Is(err, &fault.Fault{Reason: fault.StageTimeout}) {
			return "", fmt.Errorf("%s: ask %s whether it works: %w", op, probe.program, err)
		}
		if err == nil && exit.Code == 0 {
			return probe.program, nil
		}
		why = append(why, fmt.Sprintf("%s is there, but %s (%s)", probe.program, probe.needs, lastLine(exit.Tail)))
	}
	return "", fault.Newf(fault.User, fault.ImageAssetUnsupported, op,
		"Use a worker image with buildah and set images.rootless in the installation, or name a Docker engine by DOCKER_HOST in workerEnv; see docs/spec/images.md",
		"nothing in the worker can build images: %s", strings.Join(why, "; "))
}

// environment is what builders get beyond the environment of every command.
func environment() map[string]string {
	return map[string]string{
		// Provenance would make an index of each image, as the CDK CLI says.
		"BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
		// Buildah's other ways need rights that a pod does not have.
		"BUILDAH_ISOLATION": "chroot",
	}
}

// Build makes an image with a program that Choose returned. What the build
// prints goes to out. The caller closes the image. Building again does no
// harm.
//
// Errors: ImageBuildFailed with the last lines of output, AssetFailed if the
// build gives no usable image, those of the worker.
func (b *Builder) Build(ctx context.Context, build Build, program string, out io.Writer) (*Image, error) {
	b.turn.Lock()
	defer b.turn.Unlock()
	info, err := b.worker.Ping(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", build.op(), err)
	}
	folder := "image-" + build.Key()
	scratch := path.Join(worker.OutDir, folder)
	absolute := path.Join(info.Root, scratch)
	if err := b.worker.WriteTree(ctx, scratch, bytes.NewReader(make([]byte, 1024)), worker.WriteOptions{Clean: true}); err != nil {
		return nil, fmt.Errorf("%s: %w", build.op(), err)
	}
	tag := build.tag()
	if len(build.Source.Executable) > 0 {
		tag, err = b.external(ctx, build, scratch, absolute, out)
	} else {
		err = b.dockerfile(ctx, build, program, scratch, out)
	}
	if err != nil {
		return nil, err
	}
	argv := []string{Docker, "save", "--output", path.Join(absolute, archiveFile), tag}
	if program == Buildah {
		argv = []string{Buildah, "push", "--quiet", tag, "docker-archive:" + path.Join(absolute, archiveFile) + ":" + build.tag()}
	}
	if err := b.run(ctx, build, worker.Command{Argv: argv, Env: environment()}, "hand over the image", out); err != nil {
		return nil, err
	}
	image, err := b.receive(ctx, build, scratch)
	if err != nil {
		return nil, err
	}
	if err := b.worker.Remove(ctx, worker.OutDir, []string{folder}); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", build.op(), err), image.Close())
	}
	return image, nil
}

// dockerfile sends the build context and builds it.
func (b *Builder) dockerfile(ctx context.Context, build Build, program, scratch string, out io.Writer) error {
	folder := path.Join(scratch, "context")
	root, err := os.OpenRoot(filepath.Join(build.Assembly, filepath.FromSlash(build.Source.Directory)))
	if err != nil {
		return fault.Newf(fault.User, fault.AssetFailed, build.op(), "", "its folder %s: %w", build.Source.Directory, err)
	}
	defer func() { _ = root.Close() }()
	reader, writer := io.Pipe()
	created := make(chan struct{})
	go func() {
		defer close(created)
		_, err := archive.Create(ctx, writer, root, archive.CreateOptions{})
		writer.CloseWithError(err)
	}()
	err = b.worker.WriteTree(ctx, folder, reader, worker.WriteOptions{Clean: true})
	reader.CloseWithError(errors.New("nobody reads the build context any more"))
	<-created
	if err != nil {
		return fmt.Errorf("%s: send its folder to the worker: %w", build.op(), err)
	}
	return b.run(ctx, build, worker.Command{Argv: append([]string{program, "build"}, build.arguments(program)...), Dir: folder, Env: environment()}, "build", out)
}

// writeName runs the program in its arguments and writes what it prints to $0.
const writeName = `name=$("$@") && printf '%s' "$name" >"$0"`

// localName is what a program may print: an image's name or id.
var localName = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._:/@-]*\z`)

// external runs the program that makes the image and returns its local name.
func (b *Builder) external(ctx context.Context, build Build, scratch, absolute string, out io.Writer) (string, error) {
	env := environment()
	maps.Copy(env, build.Env)
	argv := append([]string{"sh", "-c", writeName, path.Join(absolute, nameFile)}, build.Source.Executable...)
	if err := b.run(ctx, build, worker.Command{Argv: argv, Dir: build.App, Env: env}, "run the program that makes it", out); err != nil {
		return "", err
	}
	stream, err := b.worker.ReadTree(ctx, scratch, []string{nameFile})
	if err != nil {
		return "", fmt.Errorf("%s: %w", build.op(), err)
	}
	defer func() { _ = stream.Close() }()
	text, err := single(stream, maxName)
	if err != nil {
		return "", fmt.Errorf("%s: %w", build.op(), err)
	}
	name := strings.TrimSpace(string(text))
	if !localName.MatchString(name) {
		return "", fault.Newf(fault.User, fault.ImageBuildFailed, build.op(), "Let the program print the local name of the image, and nothing else",
			"the program printed %.200q, which is no image's name", name)
	}
	return name, nil
}

// run runs a command of the build.
func (b *Builder) run(ctx context.Context, build Build, cmd worker.Command, what string, out io.Writer) error {
	exit, err := b.worker.Exec(ctx, cmd, out)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %s: %w", build.op(), what, err)
	case exit.Code != 0:
		return fault.Newf(fault.User, fault.ImageBuildFailed, build.op(), "See the output of the build in the log; the same Dockerfile fails with `"+path.Base(cmd.Argv[0])+" build`, too",
			"%s ended with exit code %d; %s", what, exit.Code, exit.LastLines())
	case exit.Warning != "":
		_, err = fmt.Fprintf(out, "warning: %s\n", exit.Warning)
	}
	return err
}

// receive copies the archive out of the worker and opens it.
func (b *Builder) receive(ctx context.Context, build Build, scratch string) (*Image, error) {
	dir := filepath.Join(b.private, "image-"+build.Key())
	broken := func(err error) error {
		return fault.Wrap(fault.System, fault.WorkspaceFailed, build.op()+": make room for it", "", err)
	}
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return nil, broken(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, broken(err)
	}
	image := &Image{root: root, dir: dir}
	stream, err := b.worker.ReadTree(ctx, scratch, []string{archiveFile})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: read it from the worker: %w", build.op(), err), image.Close())
	}
	_, err = archive.Extract(ctx, root, stream, archive.Limits{Entries: 1, Bytes: maxImage})
	if err := errors.Join(err, stream.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: copy it from the worker: %w", build.op(), err), image.Close())
	}
	if err := image.open(); err != nil {
		return nil, errors.Join(fault.Newf(fault.User, fault.AssetFailed, build.op(), "", "what the worker made is no usable image: %w", err), image.Close())
	}
	return image, nil
}

// lastLine is the end of a probe's output.
func lastLine(tail []byte) string {
	text := strings.TrimSpace(strings.ToValidUTF8(string(tail), "�"))
	text = text[strings.LastIndexByte(text, '\n')+1:]
	if text == "" {
		return "it said nothing"
	}
	if len(text) > 300 {
		return "its last line is too long to be shown here"
	}
	return text
}
