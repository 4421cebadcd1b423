package worker

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// writeTree extracts a tar stream below dir, which is created if missing. What
// is in an entry's way is replaced, but nothing is written through a symbolic
// link. A failure leaves what was written so far.
func writeTree(ctx context.Context, root *os.Root, dir string, stream io.Reader, opts WriteOptions) error {
	clean, err := cleanPath(dir)
	if err != nil {
		return err
	}
	if err := makeFolders(root, clean); err != nil {
		return err
	}
	tree, err := openTree(root, clean, true)
	if err != nil {
		return err
	}
	defer func() { _ = tree.Close() }()
	if opts.Clean {
		if err := empty(tree); err != nil {
			return err
		}
	}
	x := &extractor{tree: tree, folder: &folderCache{tree: tree}, known: map[string]bool{}, later: map[string]folderTimes{}, buf: make([]byte, 128<<10)}
	defer x.folder.close()
	in := tar.NewReader(stream)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		if err := x.add(h, in); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	if err := x.finish(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, stream) // padding
	return err
}

// makeFolders makes a folder and its parents, none of which may be a link.
func makeFolders(root *os.Root, dir string) error {
	if dir == "." {
		return nil
	}
	for i := range len(dir) + 1 {
		if i < len(dir) && dir[i] != '/' {
			continue
		}
		if err := makeFolder(root, dir[:i]); err != nil {
			return err
		}
	}
	return nil
}

// makeFolder makes one folder unless there is one.
func makeFolder(root *os.Root, dir string) error {
	err := root.Mkdir(dir, 0o775)
	if !errors.Is(err, fs.ErrExist) {
		return escaped(err)
	}
	info, err := root.Lstat(dir)
	if err != nil {
		return escaped(err)
	}
	if !info.IsDir() {
		return fmt.Errorf("path %q is no folder: %w", dir, ErrPath)
	}
	return nil
}

// extractor writes entries below tree.
type extractor struct {
	tree   *os.Root
	folder *folderCache
	known  map[string]bool // folders made or seen
	later  map[string]folderTimes
	buf    []byte
}

// folderTimes is what a folder gets at the end.
type folderTimes struct {
	mode fs.FileMode
	time time.Time
}

// add writes one entry.
func (x *extractor) add(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil // git archive's note of the commit
	}
	p, err := cleanPath(h.Name)
	if err != nil || p == "." {
		return err
	}
	if IsSparse(h) {
		return fmt.Errorf("a sparse file of %d bytes: %w", h.Size, ErrType)
	}
	if err := x.parents(p); err != nil {
		return err
	}
	dir, base, err := x.folder.open(p)
	if err != nil {
		return err
	}
	mode := fs.FileMode(h.Mode) & fs.ModePerm // masked to nine bits
	switch h.Typeflag {
	case tar.TypeDir:
		return x.addFolder(dir, base, p, mode, h.ModTime)
	case tar.TypeReg:
		return x.replace(dir, base, p, func() error { return x.addFile(dir, base, mode, h.ModTime, content) })
	case tar.TypeSymlink:
		return x.replace(dir, base, p, func() error { return dir.Symlink(h.Linkname, base) })
	case tar.TypeLink:
		target, err := cleanPath(h.Linkname)
		if err != nil {
			return err
		}
		if err := realParents(x.tree, target); err != nil {
			return err
		}
		return x.replace(dir, base, p, func() error { return x.tree.Link(target, p) })
	}
	return fmt.Errorf("tar entry of type %q: %w", h.Typeflag, ErrType)
}

// IsSparse reports whether an entry is a file with holes, which take no room in
// the stream but any room on the disk. Nobody here writes such archives, so who
// reads what a worker sends refuses them.
func IsSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

// parents makes the folders that lead to p.
func (x *extractor) parents(p string) error {
	parent := path.Dir(p)
	if parent == "." || x.known[parent] {
		return nil
	}
	if err := x.parents(parent); err != nil {
		return err
	}
	if err := makeFolder(x.tree, parent); err != nil {
		return err
	}
	x.known[parent] = true
	return nil
}

func (x *extractor) addFolder(dir *os.Root, base, p string, mode fs.FileMode, modTime time.Time) error {
	x.later[p] = folderTimes{mode: mode, time: modTime}
	err := dir.Mkdir(base, 0o700|mode)
	if errors.Is(err, fs.ErrExist) {
		info, statErr := dir.Lstat(base)
		if statErr != nil {
			return statErr
		}
		if info.IsDir() {
			x.known[p] = true
			return dir.Chmod(base, 0o700|mode)
		}
		if err = dir.Remove(base); err == nil {
			err = dir.Mkdir(base, 0o700|mode)
		}
	}
	if err != nil {
		return err
	}
	x.known[p] = true
	return nil
}

// replace runs create, again without whatever was in its way.
func (x *extractor) replace(dir *os.Root, base, p string, create func() error) error {
	err := create()
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if x.known[p] { // a folder of this stream becomes something else
		inside := func(q string) bool { return q == p || strings.HasPrefix(q, p+"/") }
		maps.DeleteFunc(x.known, func(q string, _ bool) bool { return inside(q) })
		maps.DeleteFunc(x.later, func(q string, _ folderTimes) bool { return inside(q) })
	}
	if err := removeAll(dir, base); err != nil {
		return err
	}
	return create()
}

func (x *extractor) addFile(dir *os.Root, base string, mode fs.FileMode, modTime time.Time, content io.Reader) error {
	f, err := dir.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, content, x.buf)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return dir.Chtimes(base, modTime, modTime)
}

// finish sets modes and times of folders, the deepest first: a read-only one
// must be filled before, and filling it changes its time.
func (x *extractor) finish() error {
	x.folder.close()
	for _, p := range slices.Backward(slices.Sorted(maps.Keys(x.later))) {
		f := x.later[p]
		err := x.tree.Chtimes(p, f.time, f.time)
		if err == nil {
			err = x.tree.Chmod(p, f.mode)
		}
		if err != nil {
			return escaped(err)
		}
	}
	return nil
}

// empty removes what is in a folder.
func empty(tree *os.Root) error {
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
		if err := removeAll(tree, name); err != nil {
			return err
		}
	}
	return nil
}

// removeAll removes p and what is below, also out of folders without write
// permission, as Go's module cache has them.
func removeAll(tree *os.Root, p string) error {
	err := tree.RemoveAll(p)
	if !errors.Is(err, fs.ErrPermission) {
		return escaped(err)
	}
	if err := permit(tree, p); err != nil {
		return err
	}
	return escaped(tree.RemoveAll(p))
}

// permit makes p and the folders below writable.
func permit(tree *os.Root, p string) error {
	info, err := tree.Lstat(p)
	if err != nil || !info.IsDir() {
		return err
	}
	if err := tree.Chmod(p, 0o700); err != nil {
		return err
	}
	sub, err := tree.OpenRoot(p)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Close() }()
	f, err := sub.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := permit(sub, e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// removePaths removes paths below dir; those that are missing are no error.
func removePaths(root *os.Root, dir string, paths []string) error {
	if err := checkPaths(paths); err != nil {
		return err
	}
	tree, err := openTree(root, dir, true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = tree.Close() }()
	for _, p := range paths {
		err := realParents(tree, p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = removeAll(tree, p)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}
