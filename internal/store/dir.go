package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// metaDir holds what is known of each object beside its bytes, and the lock.
const metaDir = ".aphex"

// lockPoll is how often a writer looks whether another one is done: files are
// moved under the lock, never written, so it is held for microseconds.
const lockPoll = 2 * time.Millisecond

// Dir keeps objects as files of a local folder, at their keys. Files are
// replaced atomically and flushed to disk; several processes may use one
// folder. Unlike in a bucket, a key cannot continue another ("a" and "a/b").
type Dir struct{ dir string }

// NewDir returns the store in dir, which is made by the first Put.
func NewDir(dir string) *Dir { return &Dir{dir: dir} }

type meta struct {
	Size        int64             `json:"size"`
	SHA256      string            `json:"sha256"`
	ContentType string            `json:"contentType"`
	Tags        map[string]string `json:"tags,omitempty"`
}

// Put stores body at key and returns when it is durable. Tags and content
// type of an object that is replaced are replaced too.
//
// Errors: StoreFailed, wrapping [ErrExists] or [ErrChanged] as documented at
// [PutOptions].
func (d *Dir) Put(ctx context.Context, key string, body io.Reader, opts PutOptions) (Object, error) {
	op := "store " + key
	if err := checkKey(op, key); err != nil {
		return Object{}, err
	}
	if err := os.MkdirAll(filepath.Join(d.dir, metaDir, "new"), 0o750); err != nil {
		return Object{}, d.fault(ctx, err, op)
	}
	prepared, err := prepare(ctx, body)
	if err != nil {
		return Object{}, d.fault(ctx, err, op)
	}
	defer prepared.release()
	info := meta{Size: prepared.size, SHA256: prepared.sha256, ContentType: opts.contentType(), Tags: opts.Tags}
	text, err := json.Marshal(info)
	if err != nil {
		return Object{}, d.fault(ctx, err, op)
	}
	newMeta, err := d.write(strings.NewReader(string(text)))
	if err != nil {
		return Object{}, d.fault(ctx, err, op)
	}
	defer func() { _ = os.Remove(newMeta) }()
	newBody, err := d.write(prepared)
	if err != nil {
		return Object{}, d.fault(ctx, err, op)
	}
	defer func() { _ = os.Remove(newBody) }()
	if err := d.commit(ctx, key, newBody, newMeta, opts); err != nil {
		return Object{}, d.fault(ctx, err, op)
	}
	object := d.object(key, info)
	object.Tags = opts.Tags
	return object, nil
}

// write puts content into a new file, flushed to disk.
func (d *Dir) write(content io.Reader) (string, error) {
	file, err := os.CreateTemp(filepath.Join(d.dir, metaDir, "new"), "put-")
	if err != nil {
		return "", err
	}
	if _, err = io.Copy(file, content); err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return "", errors.Join(err, os.Remove(file.Name()))
	}
	return file.Name(), nil
}

// commit moves both files to their places. A crash between the two leaves a
// digest that does not fit, which Get reports and the next Put mends.
func (d *Dir) commit(ctx context.Context, key, newBody, newMeta string, opts PutOptions) error {
	lock := flock.New(filepath.Join(d.dir, metaDir, "lock"))
	if _, err := lock.TryLockContext(ctx, lockPoll); err != nil {
		return err
	}
	defer func() { _ = lock.Unlock() }()
	bodyPath, metaPath := d.bodyPath(key), d.metaPath(key)
	_, err := os.Lstat(bodyPath)
	if opts.IfAbsent && err == nil {
		return ErrExists
	}
	if opts.Replaces != "" && (err != nil || d.version(key) != opts.Replaces) {
		return ErrChanged
	}
	for _, move := range [][2]string{{newMeta, metaPath}, {newBody, bodyPath}} {
		if err := os.MkdirAll(filepath.Dir(move[1]), 0o750); err != nil {
			return err
		}
		if err := os.Rename(move[0], move[1]); err != nil {
			return err
		}
		if err := syncDir(filepath.Dir(move[1])); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(dir string) error {
	handle, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(handle.Sync(), handle.Close())
}

// Get opens the object at key; the caller closes it. Reading fails at the end
// with [ErrDamaged] unless size and digest are those recorded by Put.
//
// Errors: StoreFailed, wrapping [ErrNotFound] or [ErrDamaged].
func (d *Dir) Get(ctx context.Context, key string) (io.ReadCloser, Object, error) {
	op := "read " + key
	if err := checkKey(op, key); err != nil {
		return nil, Object{}, err
	}
	unlock, err := d.readLock(ctx)
	if err != nil {
		return nil, Object{}, d.fault(ctx, err, op)
	}
	defer unlock()
	file, err := os.Open(d.bodyPath(key))
	if err != nil {
		return nil, Object{}, d.fault(ctx, err, op)
	}
	info, err := d.meta(key)
	if errors.Is(err, fs.ErrNotExist) {
		err = damaged(op, "it has no recorded digest, so it was not written by aphex")
	}
	if err != nil {
		return nil, Object{Key: key, URL: d.URL(key), Version: d.version(key)}, d.fault(ctx, errors.Join(err, file.Close()), op)
	}
	object := d.object(key, info)
	return newVerifier(ctx, file, object, op, d.fault), object, nil
}

// Head describes the object at key without reading it: what Get says of it,
// and when it was stored.
//
// Errors: StoreFailed, wrapping [ErrNotFound].
func (d *Dir) Head(ctx context.Context, key string) (Object, error) {
	op := "look at " + key
	if err := checkKey(op, key); err != nil {
		return Object{}, err
	}
	unlock, err := d.readLock(ctx)
	if err != nil {
		return Object{}, d.fault(ctx, err, op)
	}
	defer unlock()
	file, err := os.Stat(d.bodyPath(key))
	if err != nil {
		return Object{}, d.fault(ctx, err, op)
	}
	info, err := d.meta(key)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Object{}, d.fault(ctx, err, op)
	}
	object := d.object(key, info)
	object.Size, object.Modified = file.Size(), file.ModTime()
	return object, nil
}

// readLock keeps writers from moving an object's two files while a reader
// opens one after the other. A folder nobody has written to has no lock.
func (d *Dir) readLock(ctx context.Context) (unlock func(), err error) {
	if _, err := os.Stat(filepath.Join(d.dir, metaDir)); err != nil {
		return func() {}, nil //nolint:nilerr // what is missing is found out by opening it
	}
	lock := flock.New(filepath.Join(d.dir, metaDir, "lock"))
	if _, err := lock.TryRLockContext(ctx, lockPoll); err != nil {
		return nil, err
	}
	return func() { _ = lock.Unlock() }, nil
}

// List returns the objects whose keys begin with prefix, sorted by key, with
// key, URL, size and time. An empty or missing folder has none.
func (d *Dir) List(ctx context.Context, prefix string) ([]Object, error) {
	var objects []Object
	err := filepath.WalkDir(d.dir, func(full string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		relative, err := filepath.Rel(d.dir, full)
		if err != nil {
			return err
		}
		key := filepath.ToSlash(relative)
		switch {
		case entry.IsDir() && key == metaDir:
			return fs.SkipDir
		case !entry.Type().IsRegular() || !strings.HasPrefix(key, prefix):
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		objects = append(objects, Object{Key: key, URL: d.URL(key), Size: info.Size(), Modified: info.ModTime()})
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, d.fault(ctx, err, "list "+d.URL(prefix))
	}
	sortObjects(objects)
	return objects, nil
}

// Tags returns the tags of the object at key.
//
// Errors: StoreFailed, wrapping [ErrNotFound].
func (d *Dir) Tags(ctx context.Context, key string) (map[string]string, error) {
	op := "read the tags of " + key
	if err := checkKey(op, key); err != nil {
		return nil, err
	}
	info, err := d.meta(key)
	return info.Tags, d.fault(ctx, err, op)
}

// URL returns the file URL of key, whether or not there is an object.
func (d *Dir) URL(key string) string {
	full, err := filepath.Abs(d.bodyPath(key))
	if err != nil { // the working directory is gone
		full = d.bodyPath(key)
	}
	return "file://" + filepath.ToSlash(full)
}

func (d *Dir) meta(key string) (meta, error) {
	text, err := os.ReadFile(d.metaPath(key))
	if err != nil {
		return meta{}, err
	}
	var info meta
	if err := json.Unmarshal(text, &info); err != nil {
		return meta{}, fmt.Errorf("%w: its description: %w", ErrDamaged, err)
	}
	return info, nil
}

func (d *Dir) object(key string, info meta) Object {
	return Object{Key: key, URL: d.URL(key), Size: info.Size, SHA256: info.SHA256, ContentType: info.ContentType, Version: versionOf(info)}
}

// version is that of the object at key, whose description may be damaged.
func (d *Dir) version(key string) string {
	info, _ := d.meta(key)
	return versionOf(info)
}

func versionOf(info meta) string { return "sha256:" + info.SHA256 }

func (d *Dir) bodyPath(key string) string { return filepath.Join(d.dir, filepath.FromSlash(key)) }

// metaPath has the key's digest: names may be as long as a file system allows.
func (d *Dir) metaPath(key string) string {
	sum := sha256.Sum256([]byte(path.Clean(key)))
	return filepath.Join(d.dir, metaDir, "meta", hex.EncodeToString(sum[:])+".json")
}

func (d *Dir) fault(ctx context.Context, err error, op string) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Fault](err); ok {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return awserr.Ended(ctx, op)
	case errors.Is(err, fs.ErrNotExist):
		return fault.Newf(fault.System, fault.StoreFailed, op, "", "%w: %w", ErrNotFound, err)
	default:
		return fault.Wrap(fault.System, fault.StoreFailed, op, "Check that "+d.dir+" is writable and has space", err)
	}
}
