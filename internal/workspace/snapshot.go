package workspace

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/aphex-pipeline/aphex/internal/bytesize"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// The layout of a snapshot, a tar archive compressed with zstd: what it is,
// which paths of the commit the build removed (separated by NUL bytes), and
// below tree/ what it added or changed.
const (
	snapshotFormat = 1
	headerName     = "snapshot.json"
	deletedName    = "deleted"
	treePrefix     = "tree/"
)

// header is the first entry of a snapshot.
type header struct {
	Format  int    `json:"format"`
	Commit  string `json:"commit"`
	Entries int    `json:"entries"`
	Deleted int    `json:"deleted"`
}

// maxDeleted bounds the list of removed paths that is read back, in bytes.
const maxDeleted = 256 << 20

// Snapshot saves what changed in the worker's source folder since Materialize
// (new, changed and removed files, folders and links; not .git) at key of the
// store, and returns when it is durable. Sockets, pipes and devices are left
// out, and what selection says. Reset can restore it from then on; what was left
// out is then as the commit has it, or gone.
//
// Nothing may write to the folder meanwhile.
//
// Errors: WorkspaceFailed if there was no Materialize before; those of the
// worker and of the store; SecretLeaked for a file with one of the selection's
// secrets; Cancelled.
func (w *Workspace) Snapshot(ctx context.Context, key string, selection Selection, out io.Writer) (store.Object, error) {
	const op = "save the workspace"
	leave, err := w.prepared(ctx, op)
	if err != nil {
		return store.Object{}, err
	}
	defer leave()
	object, err := w.snapshot(ctx, key, selection, out)
	if err != nil {
		return store.Object{}, failed(ctx, op, err)
	}
	return object, failed(ctx, op, pause(ctx, op))
}

func (w *Workspace) snapshot(ctx context.Context, key string, selection Selection, out io.Writer) (store.Object, error) {
	start := time.Now()
	base, ok := w.loadIndex(baseFile)
	if !ok {
		return store.Object{}, errors.New("there is no checkout to compare with")
	}
	is, err := w.cfg.Worker.List(ctx, worker.SourceDir)
	if err != nil {
		return store.Object{}, err
	}
	if err := w.dropIndexes(targetFile); err != nil {
		return store.Object{}, err
	}
	target, changed, deleted := split(is, base.Entries)
	left, err := w.leftOut(ctx, selection, changed)
	if err != nil {
		return store.Object{}, err
	}
	changed, target = without(left, changed, target, base.Entries)
	sayLeftOut(out, left)
	file, err := os.Create(w.snapshotFile(key))
	if err != nil {
		return store.Object{}, err
	}
	defer func() { _ = file.Close() }()
	digest, content, err := w.pack(ctx, file, changed, deleted, redact.NewFinder(selection.Secrets...))
	if err != nil {
		return store.Object{}, err
	}
	packed := time.Now()
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return store.Object{}, err
	}
	object, err := w.cfg.Store.Put(ctx, key, file, store.PutOptions{ContentType: "application/zstd"})
	if err != nil {
		return store.Object{}, err
	}
	if object.SHA256 != digest {
		return store.Object{}, fault.Newf(fault.System, fault.SnapshotInvalid, "save the workspace", "Retry the run",
			"the stored snapshot has SHA-256 %s, the written one %s", object.SHA256, digest)
	}
	err = w.saveIndex(targetFile, index{Source: w.source, Key: key, Entries: target})
	if err != nil {
		return store.Object{}, err
	}
	say(out, "workspace: saved %d changed and %d removed paths, %s as %s, in %s (%s of it storing)",
		len(changed), len(deleted), bytesize.Format(content), bytesize.Format(object.Size), since(start), since(packed))
	return object, nil
}

// split returns the index the workspace has from now on, the paths that differ
// from the base and those of the base that are gone.
func split(is []worker.Entry, base []indexed) (target []indexed, changed, deleted []string) {
	was := make(map[string]worker.Entry, len(base))
	for i := range base {
		if inGitDir(base[i].Entry.Path) {
			target = append(target, base[i]) // as it is after a checkout
			continue
		}
		was[base[i].Entry.Path] = base[i].Entry
	}
	there := make(map[string]struct{}, len(is))
	for _, entry := range is {
		if inGitDir(entry.Path) {
			continue
		}
		there[entry.Path] = struct{}{}
		from := fromCommit
		if old, ok := was[entry.Path]; !ok || !same(entry, old) {
			from = fromSnapshot
			changed = append(changed, entry.Path)
		}
		target = append(target, indexed{Entry: entry, From: from})
	}
	for path := range was {
		if _, ok := there[path]; !ok {
			deleted = append(deleted, path)
		}
	}
	return target, changed, topmost(deleted)
}

// snapshotFile is where the snapshot for key is kept privately.
func (w *Workspace) snapshotFile(key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(w.cfg.Private, "snapshot-"+hex.EncodeToString(sum[:8])+".tar.zst")
}

// pack writes the snapshot and returns its digest and how many bytes of files
// it holds.
func (w *Workspace) pack(ctx context.Context, dst io.Writer, changed, deleted []string, secrets *redact.Finder) (digest string, content int64, err error) {
	hash := sha256.New()
	compressed, err := zstd.NewWriter(io.MultiWriter(dst, hash), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(true))
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = compressed.Close() }()
	out := tar.NewWriter(compressed)
	about, err := json.Marshal(header{Format: snapshotFormat, Commit: w.source.Commit, Entries: len(changed), Deleted: len(deleted)})
	if err != nil {
		return "", 0, err
	}
	if err := addFile(out, headerName, string(about)); err != nil {
		return "", 0, err
	}
	if err := addFile(out, deletedName, strings.Join(deleted, "\x00")); err != nil {
		return "", 0, err
	}
	for _, paths := range batches(changed) {
		n, err := w.packPaths(ctx, out, paths, secrets)
		content += n
		if err != nil {
			return "", 0, err
		}
	}
	if err := out.Close(); err != nil {
		return "", 0, err
	}
	if err := compressed.Close(); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(hash.Sum(nil)), content, nil
}

func addFile(out *tar.Writer, name, text string) error {
	if err := out.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}); err != nil {
		return err
	}
	_, err := io.WriteString(out, text)
	return err
}

// packPaths copies exactly the named paths out of the worker.
func (w *Workspace) packPaths(ctx context.Context, out *tar.Writer, paths []string, secrets *redact.Finder) (int64, error) {
	stream, err := w.cfg.Worker.ReadTree(ctx, worker.SourceDir, paths)
	if err != nil {
		return 0, err
	}
	defer func() { _ = stream.Close() }()
	var content int64
	asked := make(map[string]struct{}, len(paths))
	for _, path := range paths {
		asked[path] = struct{}{}
	}
	err = relay(tar.NewReader(stream), out, func(name string) (string, bool) {
		_, ok := asked[name]
		delete(asked, name)
		return treePrefix + name, ok
	}, &content, secrets)
	if err == nil {
		_, err = io.Copy(io.Discard, stream) // to its end, where an error may wait
	}
	if err == nil && len(asked) > 0 {
		err = fmt.Errorf("the worker sent %d of %d paths", len(paths)-len(asked), len(paths))
	}
	return content, err
}

// relay copies the entries that pick wants, under the name it gives. A file
// with a secret ends it.
func relay(in *tar.Reader, out *tar.Writer, pick func(name string) (string, bool), content *int64, secrets *redact.Finder) error {
	buffer := make([]byte, 128<<10)
	for {
		entry, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name, ok := pick(strings.TrimSuffix(entry.Name, "/"))
		if !ok {
			continue
		}
		switch entry.Typeflag {
		case tar.TypeDir:
			name += "/"
		case tar.TypeReg, tar.TypeSymlink:
		default:
			return fmt.Errorf("%q has type %q, which no snapshot holds", name, entry.Typeflag)
		}
		copied := &tar.Header{
			Typeflag: entry.Typeflag, Name: name, Linkname: entry.Linkname, Size: entry.Size,
			Mode: entry.Mode & int64(fs.ModePerm), ModTime: entry.ModTime, Format: tar.FormatPAX,
		}
		if err := out.WriteHeader(copied); err != nil {
			return err
		}
		n, err := io.CopyBuffer(io.MultiWriter(out, secrets), in, buffer)
		if *content += n; err != nil {
			return err
		}
		if secrets.Found() {
			return fault.Newf(fault.User, fault.SecretLeaked, "save the workspace",
				"Do not write secrets to files that stay, or name the file under build.snapshot.exclude", "%q has the value of a secret of build.secrets", entry.Name)
		}
	}
}
