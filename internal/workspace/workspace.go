package workspace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/git"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// MaxFile is the largest file that File returns, in bytes: far above any
// configuration, small enough to hold in memory.
const MaxFile = 16 << 20

// settle is waited after the files were listed, before anybody may change
// them. Change times advance with the kernel's tick, at most 10 ms: after it,
// a change cannot have the time that is in the list.
const settle = 20 * time.Millisecond

// trees is what the workspace needs of internal/worker's client.
type trees interface {
	List(ctx context.Context, dir string) ([]worker.Entry, error)
	ReadTree(ctx context.Context, dir string, paths []string) (io.ReadCloser, error)
	WriteTree(ctx context.Context, dir string, tree io.Reader, opts worker.WriteOptions) error
	Remove(ctx context.Context, dir string, paths []string) error
}

// objects is what the workspace needs of a store.
type objects interface {
	Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error)
	Get(ctx context.Context, key string) (io.ReadCloser, store.Object, error)
}

// repositories is what the workspace needs of git.
type repositories interface {
	Clone(ctx context.Context, dir, url, commit string) error
	Checkout(ctx context.Context, dir, commit, branch, dst string) error
	Show(ctx context.Context, dir, commit, name string, limit int64) ([]byte, error)
	Time(ctx context.Context, dir, commit string) (time.Time, error)
	IsAncestor(ctx context.Context, dir, ancestor, descendant string) (bool, error)
}

var (
	_ trees        = (*worker.Client)(nil)
	_ objects      = (*store.S3)(nil)
	_ objects      = (*store.Dir)(nil)
	_ repositories = (*git.Client)(nil)
)

// Config is what a workspace is made of. All fields are required.
type Config struct {
	// Private is a directory that only this process can reach: clone, checkout,
	// snapshot and state. It may be empty, and may vanish with the worker's
	// files; it must not outlive them.
	Private string
	// Worker reaches the files.
	Worker trees
	// Store keeps the snapshot.
	Store objects
	// Git gets the commit.
	Git repositories
}

// Workspace is the files of one run. Its methods are safe for concurrent use
// and take turns; each can be called again after the process died in the
// middle of it.
type Workspace struct {
	cfg    Config
	turn   chan struct{}
	source Source // guarded by turn
}

// New returns the workspace that has its state in cfg.Private.
func New(cfg Config) *Workspace {
	return &Workspace{cfg: cfg, turn: make(chan struct{}, 1)}
}

// enter waits for this caller's turn.
func (w *Workspace) enter(ctx context.Context, op string) (leave func(), err error) {
	select {
	case w.turn <- struct{}{}:
		return func() { <-w.turn }, nil
	case <-ctx.Done():
		return nil, awserr.Ended(ctx, op)
	}
}

// prepared is enter for what needs a clone.
func (w *Workspace) prepared(ctx context.Context, op string) (leave func(), err error) {
	leave, err = w.enter(ctx, op)
	if err == nil && w.source.Commit == "" {
		leave()
		return nil, failed(ctx, op, errors.New("the workspace was not prepared"))
	}
	return leave, err
}

// failed makes err a fault, if it is one at all and not yet.
func failed(ctx context.Context, op string, err error) error {
	if _, ok := errors.AsType[*fault.Fault](err); ok || err == nil {
		return err
	}
	if ctx.Err() != nil {
		return awserr.Ended(ctx, op)
	}
	return fault.Wrap(fault.System, fault.WorkspaceFailed, op, "", err)
}

func (w *Workspace) cloneDir() string    { return filepath.Join(w.cfg.Private, "clone") }
func (w *Workspace) checkoutDir() string { return filepath.Join(w.cfg.Private, "checkout") }

// Prepare clones the repository into the private directory, with exactly the
// source's commit, and makes sure that the commit is there. It must come
// before every other method in a process. What is there already is not
// fetched again.
//
// Errors: CommitInvalid, CommitUnknown, RepositoryInvalid,
// RepositoryUnreachable, RepositoryDenied, CloneFailed; Cancelled.
func (w *Workspace) Prepare(ctx context.Context, src Source, out io.Writer) error {
	leave, err := w.enter(ctx, "clone the repository")
	if err != nil {
		return err
	}
	defer leave()
	if w.source == src {
		return nil
	}
	start := time.Now()
	if err := w.cfg.Git.Clone(ctx, w.cloneDir(), src.RepoURL, src.Commit); err != nil {
		return err
	}
	w.source = src
	say(out, "workspace: cloned %s at commit %s in %s", src.RepoURL, src.Commit, since(start))
	return nil
}

// File returns a file of the commit, read from the private clone, so whatever
// user code did to the files of the workspace does not matter.
//
// Errors: an error that wraps fs.ErrNotExist if the commit has no such file;
// git.ErrTooLarge beyond MaxFile; those of Prepare.
func (w *Workspace) File(ctx context.Context, path string) ([]byte, error) {
	leave, err := w.prepared(ctx, "read "+path)
	if err != nil {
		return nil, err
	}
	defer leave()
	return w.cfg.Git.Show(ctx, w.cloneDir(), w.source.Commit, path, MaxFile)
}

// IsAncestor reports whether one commit is reachable from another.
//
// Errors: CommitUnknown if the repository lacks one of them; those of Prepare.
func (w *Workspace) IsAncestor(ctx context.Context, ancestor, descendant string) (bool, error) {
	leave, err := w.prepared(ctx, "compare commits")
	if err != nil {
		return false, err
	}
	defer leave()
	return w.cfg.Git.IsAncestor(ctx, w.cloneDir(), ancestor, descendant)
}

// say writes one line for the reader of the log. A log that cannot be written
// is not this package's to report.
func say(out io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }

func since(start time.Time) time.Duration { return time.Since(start).Round(time.Millisecond) }

// pause waits for settle.
func pause(ctx context.Context, op string) error {
	select {
	case <-ctx.Done():
		return awserr.Ended(ctx, op)
	case <-time.After(settle):
		return nil
	}
}

// writeFile replaces a private file atomically.
func writeFile(name string, content []byte) error {
	file, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".new-")
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}
