package pod

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/aphex-pipeline/aphex/internal/git"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/internal/workspace"
)

// Objects is what stands for the bucket.
type Objects interface {
	Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error)
	Get(ctx context.Context, key string) (io.ReadCloser, store.Object, error)
	Head(ctx context.Context, key string) (store.Object, error)
	List(ctx context.Context, prefix string) ([]store.Object, error)
	Tags(ctx context.Context, key string) (map[string]string, error)
	URL(key string) string
}

// Config changes what New makes. The zero value is an ordinary pod with a
// bucket of its own.
type Config struct {
	// Objects is the bucket; nil is an empty folder.
	Objects Objects
	// Environ is the environment of the worker's container, as KEY=value.
	Environ []string
}

// Pod is one running pod.
type Pod struct {
	// Root is the folder that the worker's commands know as its root.
	Root string
	// Worker reaches the worker.
	Worker *worker.Client
	// Workspace is that of the pod's present sidecar; see Restart.
	Workspace *workspace.Workspace
	// Objects is the bucket.
	Objects Objects

	config workspace.Config
}

// New starts a pod that ends with the test.
func New(tb testing.TB, cfg Config) *Pod {
	tb.Helper()
	dir := tb.TempDir()
	p := &Pod{Root: filepath.Join(dir, "workspace"), Objects: cfg.Objects}
	if p.Objects == nil {
		p.Objects = store.NewDir(filepath.Join(dir, "bucket"))
	}
	private := filepath.Join(dir, "private")
	for _, folder := range []string{p.Root, private} {
		if err := os.Mkdir(folder, 0o750); err != nil {
			tb.Fatalf("start pod: %v", err)
		}
	}
	socket := filepath.Join(dir, "worker.sock")
	ctx, stop := context.WithCancel(context.WithoutCancel(tb.Context()))
	served := make(chan error, 1)
	go func() {
		served <- worker.Serve(ctx, worker.ServerConfig{Socket: socket, Root: p.Root, Environ: cfg.Environ, Version: "test"})
	}()
	tb.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			tb.Errorf("worker: %v", err)
		}
	})
	p.Worker = worker.NewClient(socket)
	if _, err := p.Worker.Ping(tb.Context()); err != nil {
		tb.Fatalf("start pod: %v", err)
	}
	client, err := git.New(git.Config{Home: filepath.Join(private, "git-home")})
	if err != nil {
		tb.Fatalf("start pod: %v", err)
	}
	p.config = workspace.Config{Private: private, Worker: p.Worker, Store: p.Objects, Git: client}
	p.Restart()
	return p
}

// Restart replaces the sidecar's process: its folder stays, its memory is gone.
func (p *Pod) Restart() { p.Workspace = workspace.New(p.config) }

// Path is where a file of the worker lies on disk: the elements are relative
// to the worker's root.
func (p *Pod) Path(elements ...string) string {
	return filepath.Join(append([]string{p.Root}, elements...)...)
}
