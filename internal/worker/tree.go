package worker

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// maxDepth bounds how deep a listing goes: each level costs a descriptor.
const maxDepth = 256

// cleanPath checks a path and returns its shortest form; "." is the folder
// itself. Unlike fs.ValidPath it accepts any bytes but NUL, "./" and a final
// slash, as tar writes them.
func cleanPath(p string) (string, error) {
	if strings.HasPrefix(p, "/") || strings.Contains(p, "\x00") || slices.Contains(strings.Split(p, "/"), "..") {
		return "", fmt.Errorf("path %q: %w", p, ErrPath)
	}
	return path.Clean(p), nil
}

// openTree opens a folder below root. os.Root keeps it inside whatever
// symbolic links there are; with strict, none is followed at all.
func openTree(root *os.Root, dir string, strict bool) (*os.Root, error) {
	dir, err := cleanPath(dir)
	if err != nil {
		return nil, opError("open", dir, err)
	}
	if strict && dir != "." {
		if err := realParents(root, dir+"/."); err != nil {
			return nil, opError("open", dir, err)
		}
	}
	tree, err := root.OpenRoot(dir)
	if err != nil {
		return nil, opError("open", dir, escaped(err))
	}
	return tree, nil
}

// escaped recognises os.Root's refusal, which has no exported value.
func escaped(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok && strings.Contains(pathErr.Err.Error(), "escapes from parent") {
		return fmt.Errorf("%w: %w", ErrPath, err)
	}
	return err
}

// realParents checks that what leads to p are folders, not links to such.
func realParents(root *os.Root, p string) error {
	for i := range len(p) {
		if p[i] != '/' {
			continue
		}
		info, err := root.Lstat(p[:i])
		if err != nil {
			return escaped(err)
		}
		if !info.IsDir() {
			return fmt.Errorf("path %q: %q is no folder: %w", p, p[:i], ErrPath)
		}
	}
	return nil
}

// listTree lists everything below dir, sorted by path. Devices, pipes and
// sockets are returned apart.
func listTree(ctx context.Context, root *os.Root, dir string) (entries []Entry, skipped []string, err error) {
	tree, err := openTree(root, dir, false)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = tree.Close() }()
	l := &lister{ctx: ctx.Err}
	if err := l.walk(tree, "", 0); err != nil {
		return nil, nil, opError("list", dir, err)
	}
	slices.SortFunc(l.entries, func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) })
	return l.entries, l.skipped, nil
}

type lister struct {
	ctx     func() error
	entries []Entry
	skipped []string
}

// walk adds the entries of one folder and below. Working from the folder's
// own descriptor costs one system call per entry however deep it is.
func (l *lister) walk(tree *os.Root, prefix string, depth int) error {
	if err := l.ctx(); err != nil {
		return err
	}
	if depth > maxDepth {
		return fmt.Errorf("%s: more than %d folders deep", prefix, maxDepth)
	}
	f, err := tree.Open(".")
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	_ = f.Close()
	if err != nil {
		return err
	}
	for _, name := range names {
		entry, err := lstat(tree, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		entry.Path = prefix + name
		if !carriable(entry.Mode) {
			l.skipped = append(l.skipped, entry.Path)
			continue
		}
		l.entries = append(l.entries, entry)
		if len(l.entries) > maxEntries {
			return fmt.Errorf("more than %d files", maxEntries)
		}
		if entry.Mode.IsDir() {
			if err := l.descend(tree, name, entry.Path+"/", depth); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *lister) descend(tree *os.Root, name, prefix string, depth int) error {
	sub, err := tree.OpenRoot(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return escaped(err)
	}
	defer func() { _ = sub.Close() }()
	return l.walk(sub, prefix, depth+1)
}

func carriable(mode fs.FileMode) bool {
	return mode.IsRegular() || mode.IsDir() || mode&fs.ModeSymlink != 0
}

// lstat describes one path, without following it if it is a link.
func lstat(tree *os.Root, p string) (Entry, error) {
	info, err := tree.Lstat(p)
	if err != nil {
		return Entry{}, escaped(err)
	}
	e := Entry{Path: p, Mode: info.Mode().Type() | info.Mode().Perm(), ModTime: info.ModTime()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		e.ChangeTime = time.Unix(stat.Ctim.Unix())
		e.Inode = stat.Ino
	}
	if e.Mode.IsRegular() {
		e.Size = info.Size()
	}
	if e.Mode&fs.ModeSymlink != 0 {
		if e.Link, err = tree.Readlink(p); err != nil {
			return Entry{}, err
		}
	}
	return e, nil
}

// statPaths describes those of paths that exist, in the order asked for.
func statPaths(root *os.Root, paths []string) ([]Entry, error) {
	entries := make([]Entry, 0, len(paths))
	for _, p := range paths {
		clean, err := cleanPath(p)
		if err != nil {
			return nil, opError("look into", p, err)
		}
		entry, err := lstat(root, clean)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		if err != nil {
			return nil, opError("look into", p, err)
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// readTree writes paths (nil: everything) as tar, sorted, parents first. Equal
// trees give equal bytes: owners are left out and links have no time.
func readTree(ctx context.Context, tree *os.Root, paths []string, w io.Writer) error {
	if paths == nil {
		l := &lister{ctx: ctx.Err}
		if err := l.walk(tree, "", 0); err != nil {
			return err
		}
		for _, e := range l.entries {
			paths = append(paths, e.Path)
		}
	} else if err := checkPaths(paths); err != nil {
		return err
	}
	paths = slices.Compact(slices.Sorted(slices.Values(paths)))
	out := tar.NewWriter(w)
	buf := make([]byte, 128<<10)
	folder := &folderCache{tree: tree}
	defer folder.close()
	for _, p := range paths {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := addEntry(out, folder, p, buf); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return out.Close()
}

// checkPaths normalises in place.
func checkPaths(paths []string) error {
	for i, p := range paths {
		clean, err := cleanPath(p)
		if err != nil {
			return err
		}
		if clean == "." {
			return fmt.Errorf("path %q is the folder itself: %w", p, ErrPath)
		}
		paths[i] = clean
	}
	return nil
}

// addEntry writes one entry.
func addEntry(out *tar.Writer, folder *folderCache, p string, buf []byte) error {
	dir, base, err := folder.open(p)
	if err != nil {
		return err
	}
	e, err := lstat(dir, base)
	if err != nil {
		return err
	}
	h := &tar.Header{Name: p, Mode: int64(e.Mode.Perm()), ModTime: e.ModTime, Format: tar.FormatPAX}
	switch {
	case e.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, p+"/"
		return out.WriteHeader(h)
	case e.Mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname, h.Mode, h.ModTime = tar.TypeSymlink, e.Link, 0o777, time.Unix(0, 0)
		return out.WriteHeader(h)
	case !e.Mode.IsRegular():
		return ErrType
	}
	// Not blocking, in case a pipe has taken the file's place.
	f, err := dir.OpenFile(base, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return escaped(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return ErrType
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyBuffer(out, struct{ io.Reader }{io.LimitReader(f, h.Size)}, buf)
	if err == nil && n < h.Size {
		err = fmt.Errorf("shrank from %d to %d bytes while it was read", h.Size, n)
	}
	return err
}

// folderCache keeps the folder used last open: entries come sorted, so most
// have the same one as the entry before.
type folderCache struct {
	tree *os.Root
	name string
	dir  *os.Root
}

// open returns the folder of p, in which base is p. It stays the cache's.
func (c *folderCache) open(p string) (dir *os.Root, base string, err error) {
	name, base := path.Split(p)
	if name == "" {
		return c.tree, base, nil
	}
	if c.dir != nil && c.name == name {
		return c.dir, base, nil
	}
	c.close()
	if err := realParents(c.tree, p); err != nil {
		return nil, "", err
	}
	if c.dir, err = c.tree.OpenRoot(strings.TrimSuffix(name, "/")); err != nil {
		return nil, "", escaped(err)
	}
	c.name = name
	return c.dir, base, nil
}

func (c *folderCache) close() {
	if c.dir != nil {
		_ = c.dir.Close()
		c.dir = nil
	}
}
