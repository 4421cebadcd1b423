package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/aphex-pipeline/aphex/tasks/task"
)

// maxFile bounds a document in a file.
const maxFile = 16 << 20

// Files is a Journal in the files of one directory, for local use. It survives
// the process, not the machine; two processes at once are not kept apart.
type Files struct {
	dir, podUID string
	now         func() time.Time
}

// NewFiles returns a Files journal in dir, which is created when needed, for
// the process in the pod podUID (any fixed text outside a cluster).
func NewFiles(dir, podUID string) *Files {
	return &Files{dir: dir, podUID: podUID, now: time.Now}
}

// Open implements Journal.
func (f *Files) Open(ctx context.Context, run task.Run) (Book, error) { //nolint:ireturn // as Journal asks
	if err := os.MkdirAll(f.dir, 0o750); err != nil {
		return nil, fmt.Errorf("create the journal's directory: %w", err)
	}
	return open(ctx, &fileBackend{dir: f.dir, name: Name(run.UID) + ".json"}, f.podUID, f.now)
}

type fileBackend struct{ dir, name string }

func (b *fileBackend) load(ctx context.Context) (*document, string, error) {
	root, err := os.OpenRoot(b.dir)
	if err != nil {
		return nil, "", fmt.Errorf("open the journal's directory: %w", err)
	}
	defer func() { _ = root.Close() }() // only read from
	raw, err := root.ReadFile(b.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("read the journal: %w", err)
	}
	var data map[string]string
	if err := json.Unmarshal(raw, &data); err != nil {
		return nil, "", corrupt("%s: %w", b.name, err)
	}
	d, err := decode(ctx, data, nil)
	return d, hash(string(raw), 16), err
}

// save writes beside the file and renames, so that a reader and a crash meet
// the old document or the new one, never a part.
func (b *fileBackend) save(ctx context.Context, d *document, _ string) (version string, err error) {
	data, err := d.encode(ctx, maxFile, nil)
	if err != nil {
		return "", err
	}
	raw, err := json.MarshalIndent(data, "", "  ")
	if err != nil {
		return "", fmt.Errorf("encode the journal: %w", err)
	}
	root, err := os.OpenRoot(b.dir)
	if err != nil {
		return "", fmt.Errorf("open the journal's directory: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	next := b.name + ".next"
	f, err := root.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", fmt.Errorf("write the journal: %w", err)
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", fmt.Errorf("write the journal: %w", err)
	}
	if err := root.Rename(next, b.name); err != nil {
		return "", fmt.Errorf("write the journal: %w", err)
	}
	return hash(string(raw), 16), nil
}

// hopeless: a local disk does not heal by waiting.
func (b *fileBackend) hopeless(err error) bool { return err != nil }

// ReadFile returns the entries of the run with that UID as they are on disk in
// dir, without claiming its book: for tools that look on.
func ReadFile(ctx context.Context, dir, uid string) ([]Entry, error) {
	d, _, err := (&fileBackend{dir: dir, name: Name(uid) + ".json"}).load(ctx)
	if d == nil || err != nil {
		return nil, err
	}
	var all []Entry
	for _, e := range d.sorted() {
		all = append(all, e.clone())
	}
	return all, nil
}
