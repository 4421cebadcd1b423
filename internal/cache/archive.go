package cache

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/aphex-pipeline/aphex/internal/bytesize"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

var (
	// errNothing is a cache none of whose paths the build has made.
	errNothing = errors.New("nothing to keep")
	// errUnsafe is a cache with something that none of ours has.
	errUnsafe = errors.New("it was not written by aphex, or was changed")
)

// unusableError is an object that no build can restore, and its version.
type unusableError struct {
	error

	version string
}

// Unwrap returns what is wrong with the object.
func (u unusableError) Unwrap() error { return u.error }

// versionOf is the version of the object that an error says is unusable, else
// empty: a bucket or a worker that does not answer says nothing about it.
func versionOf(err error) string {
	bad, _ := errors.AsType[unusableError](err)
	return bad.version
}

// maxWindow bounds the memory that unpacking takes.
const maxWindow = 64 << 20

// fetch puts a cache in place and returns how many bytes of files it has.
// Nothing is written before all of the object has arrived and has its digest.
//
// Errors: an unusableError for an object that is damaged, too large, or not what
// aphex wrote; those of the store and of the worker.
func (k *Keeper) fetch(ctx context.Context, key string, paths []string) (int64, error) {
	body, object, err := k.cfg.Store.Get(ctx, key)
	if errors.Is(err, store.ErrDamaged) {
		return 0, unusableError{err, object.Version}
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = body.Close() }()
	if object.Size > k.stored {
		return 0, unusableError{fmt.Errorf("it has %s, allowed are %s", bytesize.Format(object.Size), bytesize.Format(k.stored)), object.Version}
	}
	packed, err := store.Spool(ctx, &bounded{r: body, left: k.stored})
	if errors.Is(err, store.ErrDamaged) || errors.Is(err, errUnsafe) {
		return 0, unusableError{err, object.Version}
	}
	if err != nil {
		return 0, err
	}
	defer packed.Close()
	// All of it is looked at before the worker gets any: it could still be
	// writing when what it was sent turns out to be bad.
	content, err := k.unpack(packed, io.Discard, paths)
	if err != nil {
		return 0, unusableError{err, object.Version}
	}
	if _, err := packed.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	reader, writer := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := k.unpack(packed, writer, paths)
		_ = writer.CloseWithError(err) // never fails
	}()
	err = k.cfg.Worker.WriteTree(ctx, ".", reader, worker.WriteOptions{})
	_ = reader.CloseWithError(errors.New("the worker took no more")) // never fails
	<-done
	return content, err
}

// unpack writes the entries of a packed cache to dst as a tar stream and
// returns how many bytes of files it has.
//
// Errors: errUnsafe for an entry outside of paths, or of a type that no cache
// has; a text about the limit that was passed.
func (k *Keeper) unpack(packed io.Reader, dst io.Writer, paths []string) (int64, error) {
	unpacked, err := zstd.NewReader(packed, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return 0, err
	}
	defer unpacked.Close()
	out := tar.NewWriter(dst)
	content, err := k.relay(tar.NewReader(unpacked), out, below(paths), &redact.Finder{})
	if err != nil {
		return content, err
	}
	return content, out.Close()
}

// save packs the paths that are there into a file and stores it.
func (k *Keeper) save(ctx context.Context, next item, secrets []string) (int64, error) {
	found, err := k.cfg.Worker.Stat(ctx, next.paths)
	if err != nil {
		return 0, err
	}
	if len(found) == 0 {
		return 0, errNothing
	}
	file, err := os.CreateTemp("", "aphex-cache-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }()
	if err := os.Remove(file.Name()); err != nil { // so that it cannot be left behind
		return 0, err
	}
	packed, err := zstd.NewWriter(&limited{w: file, left: k.stored}, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(true))
	if err != nil {
		return 0, err
	}
	defer func() { _ = packed.Close() }()
	out := tar.NewWriter(packed)
	content, err := k.packAll(ctx, out, found, redact.NewFinder(secrets...))
	if err != nil {
		return 0, err
	}
	if err := errors.Join(out.Close(), packed.Close()); err != nil {
		return 0, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	_, err = k.cfg.Store.Put(ctx, next.key, file, store.PutOptions{
		ContentType: "application/zstd", IfAbsent: next.damaged == "", Replaces: next.damaged,
	})
	return content, err
}

func (k *Keeper) packAll(ctx context.Context, out *tar.Writer, found []worker.Entry, secrets *redact.Finder) (int64, error) {
	rest := *k // what is left of the limits
	var content int64
	for _, entry := range found {
		n, err := rest.pack(ctx, out, entry, secrets)
		content += n
		rest.content -= n
		if err != nil {
			return content, err
		}
	}
	return content, nil
}

// pack copies a path of the worker, which is a folder with all in it, or a
// file or link.
func (k *Keeper) pack(ctx context.Context, out *tar.Writer, entry worker.Entry, secrets *redact.Finder) (int64, error) {
	dir, paths, prefix := entry.Path, []string(nil), entry.Path
	if !entry.Mode.IsDir() {
		dir, paths, prefix = path.Dir(entry.Path), []string{path.Base(entry.Path)}, path.Dir(entry.Path)
	} else if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: entry.Path + "/", Mode: int64(entry.Mode.Perm())}); err != nil {
		return 0, err
	}
	stream, err := k.cfg.Worker.ReadTree(ctx, dir, paths)
	if err != nil {
		return 0, err
	}
	defer func() { _ = stream.Close() }()
	return k.relay(tar.NewReader(stream), out, func(name string) (string, error) {
		if !fs.ValidPath(name) {
			return "", fmt.Errorf("the worker sent the path %q", name)
		}
		return path.Join(prefix, name), nil
	}, secrets)
}

// below accepts names that are one of paths, or below one.
func below(paths []string) func(name string) (string, error) {
	return func(name string) (string, error) {
		if fs.ValidPath(name) {
			for _, allowed := range paths {
				if name == allowed || strings.HasPrefix(name, allowed+"/") {
					return name, nil
				}
			}
		}
		return "", fmt.Errorf("%w: it has the path %q", errUnsafe, name)
	}
}

// relay copies entries under the names that rename gives them, within limits,
// and returns how many bytes of files it has copied.
func (k *Keeper) relay(in *tar.Reader, out *tar.Writer, rename func(string) (string, error), secrets *redact.Finder) (int64, error) {
	var content int64
	buffer := make([]byte, 128<<10)
	for entries := 1; ; entries++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return content, nil
		}
		if err != nil {
			return content, err
		}
		name, err := rename(strings.TrimSuffix(h.Name, "/"))
		if err == nil {
			err = k.check(h, entries, content)
		}
		if err != nil {
			return content, err
		}
		copied := &tar.Header{
			Typeflag: h.Typeflag, Name: name, Linkname: h.Linkname, Size: h.Size,
			Mode: h.Mode & int64(fs.ModePerm), ModTime: h.ModTime, Format: tar.FormatPAX,
		}
		if h.Typeflag == tar.TypeDir {
			copied.Name += "/"
		}
		if err := out.WriteHeader(copied); err != nil {
			return content, err
		}
		n, err := io.CopyBuffer(io.MultiWriter(out, secrets), in, buffer)
		if content += n; err != nil {
			return content, err
		}
		if secrets.Found() {
			return content, fmt.Errorf("%q has the value of a secret of build.secrets", name)
		}
	}
}

// check refuses an entry of a type that no cache has, and what goes beyond the
// limits; entries and content are those so far.
func (k *Keeper) check(h *tar.Header, entries int, content int64) error {
	switch {
	case entries > k.entries:
		return fmt.Errorf("it has more than %d files", k.entries)
	case h.Size < 0 || worker.IsSparse(h) || h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir && h.Typeflag != tar.TypeSymlink:
		return fmt.Errorf("%w: %q has type %q", errUnsafe, h.Name, h.Typeflag)
	case h.Size > k.content-content:
		return fmt.Errorf("its files have more than %s", bytesize.Format(k.content))
	}
	return nil
}

// bounded is a reader that fails beyond a number of bytes.
type bounded struct {
	r    io.Reader
	left int64
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("%w: it is larger than it says", errUnsafe)
	}
	return n, err
}

// limited is a writer that fails beyond a number of bytes.
type limited struct {
	w    io.Writer
	left int64
}

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	if l.left -= int64(len(p)); l.left < 0 {
		return 0, errors.New("packed, it is larger than a cache may be")
	}
	return l.w.Write(p)
}
