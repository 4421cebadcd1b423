package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// Extract writes the entries of the tar stream src below dst. What is in the
// way of an entry is replaced, never followed: a symbolic link in dst where
// the archive has a file or directory is removed first. Symbolic links are
// created as they are, wherever they point. Permission bits and modification
// times are taken from the archive; owner, set-user-id and set-group-id are
// not.
//
// Extract reads src to the end of the archive. It stops between entries when
// ctx ends. After an error dst holds a part of the archive.
//
// Errors: [ErrUnsafe] and [ErrLimit], else those of the file system.
func Extract(ctx context.Context, dst *os.Root, src io.Reader, limits Limits) (Stats, error) {
	x := extractor{
		cursor: cursor{top: dst, modes: map[string]fs.FileMode{}},
		limits: limits.withDefaults(),
		links:  map[string]struct{}{},
		buffer: make([]byte, 128<<10),
	}
	defer x.cursor.close()
	reader := tar.NewReader(src)
	for {
		if err := ctx.Err(); err != nil {
			return x.stats, context.Cause(ctx)
		}
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return x.stats, x.cursor.restoreModes()
		}
		if err != nil {
			return x.stats, fmt.Errorf("read archive: %w", err)
		}
		if header.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := x.entry(header, reader); err != nil {
			return x.stats, err
		}
	}
}

type extractor struct {
	cursor cursor
	limits Limits
	stats  Stats
	links  map[string]struct{} // symbolic links made by this archive
	buffer []byte
}

func (x *extractor) entry(header *tar.Header, content io.Reader) error {
	name, err := localName(header.Name)
	if err != nil {
		return err
	}
	if header.Size < 0 {
		return fmt.Errorf("%w: %q has a negative size", ErrUnsafe, name)
	}
	if err := x.stats.add(header.Size, x.limits); err != nil {
		return err
	}
	if err := x.refuseBelowLink(name); err != nil {
		return err
	}
	mode := fs.FileMode(header.Mode) & fs.ModePerm // masked to nine bits
	if header.Typeflag == tar.TypeDir {
		return x.directory(name, mode)
	}
	if name == "." {
		return fmt.Errorf("%w: the root is not a directory", ErrUnsafe)
	}
	parent, err := x.cursor.enter(path.Dir(name))
	if err != nil {
		return err
	}
	delete(x.links, name)
	base := path.Base(name)
	switch header.Typeflag {
	case tar.TypeReg:
		x.stats.Files++
		return x.file(parent, base, header, mode, content)
	case tar.TypeSymlink:
		x.links[name] = struct{}{}
		return replacing(parent, base, func() error { return parent.Symlink(header.Linkname, base) })
	default:
		return fmt.Errorf("%w: %q has type %q; files, directories and symbolic links are allowed",
			ErrUnsafe, name, header.Typeflag)
	}
}

// refuseBelowLink refuses an entry below a link of the same archive: no
// honest archive has one.
func (x *extractor) refuseBelowLink(name string) error {
	if len(x.links) == 0 {
		return nil
	}
	for parent := path.Dir(name); parent != "."; parent = path.Dir(parent) {
		if _, ok := x.links[parent]; ok {
			return fmt.Errorf("%w: %q is below the symbolic link %q", ErrUnsafe, name, parent)
		}
	}
	return nil
}

func (x *extractor) directory(name string, mode fs.FileMode) error {
	if _, ok := x.links[name]; ok {
		return fmt.Errorf("%w: %q is both a symbolic link and a directory", ErrUnsafe, name)
	}
	if _, err := x.cursor.enter(name); err != nil {
		return err
	}
	x.cursor.modes[name] = mode
	return nil
}

func (x *extractor) file(parent *os.Root, base string, header *tar.Header, mode fs.FileMode, content io.Reader) error {
	var file *os.File
	err := replacing(parent, base, func() (err error) {
		file, err = parent.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	if err != nil {
		return fmt.Errorf("create %s: %w", header.Name, err)
	}
	if _, err = io.CopyBuffer(onlyWriter{file}, content, x.buffer); err == nil {
		err = file.Chmod(mode)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", header.Name, err)
	}
	if header.ModTime.IsZero() {
		return nil
	}
	return parent.Chtimes(base, header.ModTime, header.ModTime)
}

// onlyWriter hides ReadFrom, so that the one buffer is used for all files.
type onlyWriter struct{ io.Writer }

// replacing calls create, which must fail if base exists; what is there is
// removed once.
func replacing(parent *os.Root, base string, create func() error) error {
	err := create()
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := removeAll(parent, base); err != nil {
		return err
	}
	return create()
}

// removeAll removes base and everything below it, also from directories that
// deny writing to their owner.
func removeAll(parent *os.Root, base string) error {
	err := parent.RemoveAll(base)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if err := openUp(parent, base); err != nil {
		return err
	}
	return parent.RemoveAll(base)
}

func openUp(parent *os.Root, base string) error {
	info, err := parent.Lstat(base)
	if err != nil || !info.IsDir() {
		return err
	}
	if err := parent.Chmod(base, 0o700); err != nil {
		return err
	}
	dir, err := parent.OpenRoot(base)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	entries, err := readDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := openUp(dir, entry.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

func readDir(dir *os.Root) ([]fs.DirEntry, error) {
	handle, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	entries, err := handle.ReadDir(-1)
	if err = errors.Join(err, handle.Close()); err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}
