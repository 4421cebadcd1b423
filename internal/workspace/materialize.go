package workspace

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/aphex-pipeline/aphex/internal/archive"
	"github.com/aphex-pipeline/aphex/internal/bytesize"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// Materialize replaces everything in the worker's source folder by the commit,
// with a small repository of its own in .git, and remembers what it wrote.
// Every file has the time of the commit, so that what a build makes of it is
// younger.
//
// Errors: those of Prepare and of the worker; WorkspaceFailed; Cancelled.
func (w *Workspace) Materialize(ctx context.Context, out io.Writer) error {
	const op = "check out the commit into the workspace"
	leave, err := w.prepared(ctx, op)
	if err != nil {
		return err
	}
	defer leave()
	if err := w.materialize(ctx, out); err != nil {
		return failed(ctx, op, err)
	}
	return failed(ctx, op, pause(ctx, op))
}

func (w *Workspace) materialize(ctx context.Context, out io.Writer) error {
	start := time.Now()
	// From here on the old indexes are wrong.
	if err := w.dropIndexes(baseFile, targetFile); err != nil {
		return err
	}
	if err := w.checkout(ctx); err != nil {
		return err
	}
	stats, err := w.copyCheckout(ctx, nil, worker.WriteOptions{Clean: true})
	if err != nil {
		return err
	}
	entries, err := w.cfg.Worker.List(ctx, worker.SourceDir)
	if err != nil {
		return err
	}
	if err := w.saveIndex(baseFile, index{Source: w.source, Entries: fromAll(entries, fromCommit)}); err != nil {
		return err
	}
	say(out, "workspace: checked out commit %.12s: %d files, %s in %s", w.source.Commit, stats.Files, bytesize.Format(stats.Bytes), since(start))
	return nil
}

// checkout makes the private checkout, unless it is there and whole.
func (w *Workspace) checkout(ctx context.Context) error {
	mark := filepath.Join(w.cfg.Private, "checkout.json")
	want, err := json.Marshal(w.source)
	if err != nil {
		return err
	}
	if got, err := os.ReadFile(mark); err == nil && string(got) == string(want) {
		return nil
	}
	if err := os.RemoveAll(mark); err != nil {
		return err
	}
	if err := w.cfg.Git.Checkout(ctx, w.cloneDir(), w.source.Commit, w.source.Branch, w.checkoutDir()); err != nil {
		return err
	}
	return writeFile(mark, want)
}

// copyCheckout streams paths of the private checkout (nil: everything) to the
// worker.
func (w *Workspace) copyCheckout(ctx context.Context, paths []string, opts worker.WriteOptions) (archive.Stats, error) {
	made, err := w.cfg.Git.Time(ctx, w.cloneDir(), w.source.Commit)
	if err != nil {
		return archive.Stats{}, err
	}
	root, err := os.OpenRoot(w.checkoutDir())
	if err != nil {
		return archive.Stats{}, err
	}
	defer func() { _ = root.Close() }()
	var stats archive.Stats
	err = w.stream(ctx, opts, func(ctx context.Context, dst io.Writer) (err error) {
		stats, err = archive.Create(ctx, dst, root, archive.CreateOptions{Paths: paths, ModTime: made, PlainModes: true})
		return err
	})
	return stats, err
}

// stream writes what produce writes, a tar stream, to the worker's source
// folder.
func (w *Workspace) stream(ctx context.Context, opts worker.WriteOptions, produce func(context.Context, io.Writer) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := produce(ctx, writer)
		_ = writer.CloseWithError(err)
		done <- err
	}()
	err := w.cfg.Worker.WriteTree(ctx, worker.SourceDir, reader, opts)
	if err == nil {
		_, err = io.Copy(io.Discard, reader)
	}
	cancel(errStreamOver)
	_ = reader.CloseWithError(errStreamOver)
	produced := <-done
	if produced != nil && !errors.Is(produced, errStreamOver) && !errors.Is(produced, io.ErrClosedPipe) {
		return produced // the cause of what WriteTree met
	}
	return err
}

// errStreamOver ends a producer whose consumer has failed.
var errStreamOver = errors.New("the other end is closed")
