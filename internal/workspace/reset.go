package workspace

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/aphex-pipeline/aphex/internal/bytesize"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// Reset makes the worker's source folder exactly the commit plus the snapshot
// at key; an empty key means the commit alone. Where the folder was right
// before, only what differs by then is mended. In a fresh pod everything is
// made again and the snapshot comes from the store, its digest verified.
//
// Errors: SnapshotInvalid if the snapshot is missing, damaged or of another
// commit; those of the worker, of the store and of Prepare; WorkspaceFailed if
// the files change meanwhile; Cancelled.
func (w *Workspace) Reset(ctx context.Context, key string, out io.Writer) error {
	const op = "reset the workspace"
	leave, err := w.prepared(ctx, op)
	if err != nil {
		return err
	}
	defer leave()
	target, ok := w.loadIndex(targetFile)
	if ok && target.Key == key && w.haveSnapshot(key) {
		err = w.repairOrRestore(ctx, target, out)
	} else {
		err = w.restore(ctx, key, out)
	}
	if err != nil {
		return failed(ctx, op, err)
	}
	return failed(ctx, op, pause(ctx, op))
}

func (w *Workspace) haveSnapshot(key string) bool {
	if key == "" {
		return true
	}
	_, err := os.Stat(w.snapshotFile(key))
	return err == nil
}

// repairOrRestore repairs, and where that is not possible (user code can make
// folders nobody may enter) makes everything anew.
func (w *Workspace) repairOrRestore(ctx context.Context, target index, out io.Writer) error {
	err := w.repair(ctx, target, out)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if f, ok := errors.AsType[*fault.Fault](err); ok && (f.Reason == fault.WorkerLost || f.Reason == fault.WorkerUnavailable) {
		return err
	}
	say(out, "workspace: it cannot be mended (%v), so it is restored as a whole", err)
	return w.restore(ctx, target.Key, out)
}

// repair mends what differs from the index.
func (w *Workspace) repair(ctx context.Context, target index, out io.Writer) error {
	start := time.Now()
	is, err := w.cfg.Worker.List(ctx, worker.SourceDir)
	if err != nil {
		return err
	}
	d := compare(is, target.Entries)
	if len(d.extra) == 0 && len(d.wrong) == 0 && !d.git {
		say(out, "workspace: unchanged, %d paths compared in %s", len(is), since(start))
		return nil
	}
	if err := w.mend(ctx, target, d); err != nil {
		return err
	}
	if target.Entries, err = w.confirm(ctx, target.Entries); err != nil {
		return err
	}
	if err := w.saveIndex(targetFile, target); err != nil {
		return err
	}
	say(out, "workspace: reset in %s: %d paths restored, %d removed%s", since(start), len(d.wrong), len(d.extra),
		map[bool]string{true: ", .git made anew"}[d.git])
	return nil
}

// mend removes what is too much and writes what is missing or wrong.
func (w *Workspace) mend(ctx context.Context, target index, d difference) error {
	if err := w.checkout(ctx); err != nil {
		return err
	}
	remove := d.extra
	if d.git {
		remove = append(remove, gitDir)
	}
	if err := w.remove(ctx, remove); err != nil {
		return err
	}
	commit, snapshot := sources(target.Entries, d)
	if len(commit) > 0 {
		if _, err := w.copyCheckout(ctx, commit, worker.WriteOptions{}); err != nil {
			return err
		}
	}
	if len(snapshot) == 0 {
		return nil
	}
	_, err := w.copySnapshot(ctx, target.Key, func(path string) bool {
		_, ok := snapshot[path]
		return ok
	})
	return err
}

// sources returns which paths to copy from the commit and, after that, from
// the snapshot. The folders that lead to a path are among them: one that
// denies writing is opened for what is written into it, and closed again, only
// if it is in the same stream.
func sources(should []indexed, d difference) (commit []string, snapshot map[string]struct{}) {
	from := make(map[string]origin, len(should))
	for i := range should {
		from[should[i].Entry.Path] = should[i].From
		if d.git && inGitDir(should[i].Entry.Path) {
			commit = append(commit, should[i].Entry.Path)
		}
	}
	fromBase := map[string]struct{}{}
	snapshot = map[string]struct{}{}
	for _, i := range d.wrong {
		path := should[i].Entry.Path
		below := should[i].From == fromCommit
		for {
			if below {
				fromBase[path] = struct{}{}
			}
			if from[path] == fromSnapshot {
				snapshot[path] = struct{}{}
			}
			cut := strings.LastIndexByte(path, '/')
			if cut < 0 {
				break
			}
			path = path[:cut]
		}
	}
	for path := range fromBase {
		commit = append(commit, path)
	}
	return commit, snapshot
}

func (w *Workspace) remove(ctx context.Context, paths []string) error {
	for _, part := range batches(paths) {
		if err := w.cfg.Worker.Remove(ctx, worker.SourceDir, part); err != nil {
			return err
		}
	}
	return nil
}

// confirm lists the folder again and returns the index with the numbers and
// times the restored files have now.
func (w *Workspace) confirm(ctx context.Context, should []indexed) ([]indexed, error) {
	is, err := w.cfg.Worker.List(ctx, worker.SourceDir)
	if err != nil {
		return nil, err
	}
	found := make(map[string]worker.Entry, len(is))
	for _, entry := range is {
		found[entry.Path] = entry
	}
	if len(is) != len(should) {
		return nil, fmt.Errorf("it holds %d paths instead of %d: something is writing to it", len(is), len(should))
	}
	for i := range should {
		was := &should[i].Entry
		entry, ok := found[was.Path]
		if !ok || entry.Mode != was.Mode || entry.Size != was.Size || entry.Link != was.Link {
			return nil, fmt.Errorf("%q is not as it was restored: something is writing to it", was.Path)
		}
		*was = entry
	}
	return should, nil
}

// restore makes the folder from nothing.
func (w *Workspace) restore(ctx context.Context, key string, out io.Writer) error {
	if err := w.materialize(ctx, out); err != nil {
		return err
	}
	base, ok := w.loadIndex(baseFile)
	if !ok {
		return errors.New("the index of the checkout is gone")
	}
	target := index{Source: w.source, Key: key, Entries: base.Entries}
	if key != "" {
		var err error
		if target, err = w.applySnapshot(ctx, target, out); err != nil {
			return err
		}
	}
	return w.saveIndex(targetFile, target)
}

func (w *Workspace) applySnapshot(ctx context.Context, target index, out io.Writer) (index, error) {
	start := time.Now()
	if err := w.download(ctx, target.Key); err != nil {
		return index{}, err
	}
	fetched := time.Now()
	deleted, err := w.deletedPaths(target.Key)
	if err != nil {
		return index{}, err
	}
	if err := w.remove(ctx, deleted); err != nil {
		return index{}, err
	}
	restored := map[string]struct{}{}
	content, err := w.copySnapshot(ctx, target.Key, func(path string) bool {
		restored[path] = struct{}{}
		return true
	})
	if err != nil {
		return index{}, err
	}
	is, err := w.cfg.Worker.List(ctx, worker.SourceDir)
	if err != nil {
		return index{}, err
	}
	target.Entries = fromAll(is, fromCommit)
	for i := range target.Entries {
		if _, ok := restored[target.Entries[i].Entry.Path]; ok {
			target.Entries[i].From = fromSnapshot
		}
	}
	say(out, "workspace: restored the snapshot: %d paths, %s in %s (%s of it reading)",
		len(restored), bytesize.Format(content), since(start), fetched.Sub(start).Round(time.Millisecond))
	return target, nil
}

// downloadTries bounds reading the snapshot when the connection breaks off.
const downloadTries = 3

// download brings the snapshot into the private directory.
func (w *Workspace) download(ctx context.Context, key string) error {
	const op = "read the workspace's snapshot"
	for try := 1; ; try++ {
		err := w.downloadOnce(ctx, key)
		switch f, _ := errors.AsType[*fault.Fault](err); {
		case err == nil:
			return nil
		case errors.Is(err, store.ErrNotFound):
			return fault.Newf(fault.System, fault.SnapshotInvalid, op,
				"Start a new run of this commit; its build makes the snapshot again", "%w", err)
		case errors.Is(err, store.ErrDamaged):
			return fault.Newf(fault.System, fault.SnapshotInvalid, op,
				"Start a new run of this commit, and find out what changed the object", "%w", err)
		case f == nil || f.Class != fault.Transient || try == downloadTries || ctx.Err() != nil:
			return err
		}
	}
}

// downloadOnce copies the object; the store compares its digest at the end.
func (w *Workspace) downloadOnce(ctx context.Context, key string) error {
	body, _, err := w.cfg.Store.Get(ctx, key)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	temp := w.snapshotFile(key) + ".new"
	file, err := os.Create(temp)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, body)
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return os.Rename(temp, w.snapshotFile(key))
}

// openSnapshot opens the private copy after its header.
func (w *Workspace) openSnapshot(key string) (in *tar.Reader, release func(), err error) {
	file, err := os.Open(w.snapshotFile(key))
	if err != nil {
		return nil, nil, err
	}
	decoder, err := zstd.NewReader(file)
	if err != nil {
		_ = file.Close()
		return nil, nil, err
	}
	release = func() { decoder.Close(); _ = file.Close() }
	in = tar.NewReader(decoder)
	if err := w.checkHeader(in); err != nil {
		release()
		return nil, nil, fault.Wrap(fault.System, fault.SnapshotInvalid, "read the workspace's snapshot", "Start a new run of this commit", err)
	}
	return in, release, nil
}

func (w *Workspace) checkHeader(in *tar.Reader) error {
	entry, err := in.Next()
	if err != nil {
		return err
	}
	var about header
	text, err := io.ReadAll(io.LimitReader(in, 1<<16))
	if err == nil {
		err = json.Unmarshal(text, &about)
	}
	switch {
	case err != nil:
		return err
	case entry.Name != headerName || about.Format != snapshotFormat:
		return fmt.Errorf("it has format %d; this version reads %d", about.Format, snapshotFormat)
	case about.Commit != w.source.Commit:
		return fmt.Errorf("it is of commit %s, this run is of %s", about.Commit, w.source.Commit)
	}
	return nil
}

// deletedPaths returns which paths of the commit the build removed.
func (w *Workspace) deletedPaths(key string) ([]string, error) {
	in, release, err := w.openSnapshot(key)
	if err != nil {
		return nil, err
	}
	defer release()
	entry, err := in.Next()
	if err != nil {
		return nil, err
	}
	if entry.Name != deletedName || entry.Size > maxDeleted {
		return nil, fmt.Errorf("the snapshot has %q (%d bytes) instead of its list of removed paths", entry.Name, entry.Size)
	}
	text, err := io.ReadAll(in)
	if err != nil || len(text) == 0 {
		return nil, err
	}
	return strings.Split(string(text), "\x00"), nil
}

// copySnapshot streams the wanted paths of the private copy to the worker and
// returns how many bytes of files that were.
func (w *Workspace) copySnapshot(ctx context.Context, key string, want func(path string) bool) (int64, error) {
	in, release, err := w.openSnapshot(key)
	if err != nil {
		return 0, err
	}
	defer release()
	var content int64
	err = w.stream(ctx, worker.WriteOptions{}, func(_ context.Context, dst io.Writer) error {
		out := tar.NewWriter(dst)
		pick := func(name string) (string, bool) {
			path, ok := strings.CutPrefix(name, treePrefix)
			return path, ok && want(path)
		}
		if err := relay(in, out, pick, &content, &redact.Finder{}); err != nil {
			return err
		}
		return out.Close()
	})
	return content, err
}
