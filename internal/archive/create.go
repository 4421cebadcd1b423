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
	"time"
)

// CreateOptions choose what [Create] writes. The zero value takes the whole
// tree with the times it has.
type CreateOptions struct {
	// Paths are the entries to write, relative to the root and separated by
	// "/". A directory stands for itself, not for what it contains. Nil means
	// the whole tree.
	Paths []string
	// ModTime replaces every entry's modification time unless it is zero.
	ModTime time.Time
	// PlainModes gives directories and executable files 0755 and other files
	// 0644, whatever the umask made of them.
	PlainModes bool
}

// Create writes a tar stream of the tree src to dst: sorted, parents before
// what they contain, without owners, times in whole seconds. Equal trees give
// equal bytes. Symbolic links are stored, not followed; sockets, pipes and
// devices are left out and counted.
//
// It stops between entries when ctx ends.
//
// Errors: [ErrChanged] if a file shrinks or grows meanwhile, fs.ErrNotExist
// for a path that is not there, else those of the file system and of dst.
func Create(ctx context.Context, dst io.Writer, src *os.Root, opts CreateOptions) (Stats, error) {
	c := creator{writer: tar.NewWriter(dst), opts: opts, buffer: make([]byte, 128<<10)}
	var err error
	if opts.Paths == nil {
		err = c.tree(ctx, src, "")
	} else {
		err = c.paths(ctx, src, opts.Paths)
	}
	if err != nil {
		return c.stats, err
	}
	return c.stats, c.writer.Close()
}

type creator struct {
	writer *tar.Writer
	opts   CreateOptions
	stats  Stats
	buffer []byte
}

func (c *creator) tree(ctx context.Context, dir *os.Root, prefix string) error {
	entries, err := readDir(dir)
	if err != nil {
		return fmt.Errorf("read directory %s: %w", prefix, err)
	}
	for _, entry := range entries {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		name := path.Join(prefix, entry.Name())
		if err := c.entry(dir, entry.Name(), name); err != nil {
			return err
		}
		if !entry.IsDir() {
			continue
		}
		child, err := dir.OpenRoot(entry.Name())
		if err != nil {
			return fmt.Errorf("open %s: %w", name, err)
		}
		err = c.tree(ctx, child, name)
		_ = child.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *creator) paths(ctx context.Context, src *os.Root, paths []string) error {
	sorted := slices.Clone(paths)
	slices.Sort(sorted)
	for _, name := range slices.Compact(sorted) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		clean, err := localName(name)
		if err != nil {
			return err
		}
		if err := c.entry(src, clean, clean); err != nil {
			return err
		}
	}
	return nil
}

func (c *creator) entry(dir *os.Root, base, name string) error {
	info, err := dir.Lstat(base)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	header := &tar.Header{Name: name, Mode: int64(c.mode(info)), ModTime: info.ModTime().Truncate(time.Second)}
	if !c.opts.ModTime.IsZero() {
		header.ModTime = c.opts.ModTime.Truncate(time.Second)
	}
	switch info.Mode().Type() {
	case 0:
		c.stats.Entries++
		return c.file(dir, base, header, info)
	case fs.ModeDir:
		header.Typeflag = tar.TypeDir
		header.Name += "/"
	case fs.ModeSymlink:
		header.Typeflag = tar.TypeSymlink
		if header.Linkname, err = dir.Readlink(base); err != nil {
			return fmt.Errorf("read link %s: %w", name, err)
		}
	default:
		c.stats.Skipped++
		return nil
	}
	c.stats.Entries++
	return c.writer.WriteHeader(header)
}

func (c *creator) mode(info fs.FileInfo) fs.FileMode {
	switch {
	case !c.opts.PlainModes:
		return info.Mode().Perm()
	case info.IsDir() || info.Mode()&0o100 != 0:
		return 0o755
	default:
		return 0o644
	}
}

func (c *creator) file(dir *os.Root, base string, header *tar.Header, info fs.FileInfo) error {
	file, err := openSame(dir, base, info)
	if err != nil {
		return fmt.Errorf("open %s: %w", header.Name, err)
	}
	defer func() { _ = file.Close() }()
	header.Typeflag, header.Size = tar.TypeReg, info.Size()
	if err := c.writer.WriteHeader(header); err != nil {
		return fmt.Errorf("write %s: %w", header.Name, err)
	}
	n, err := io.CopyBuffer(onlyWriter{c.writer}, io.LimitReader(file, info.Size()), c.buffer)
	if err != nil {
		return fmt.Errorf("archive %s: %w", header.Name, err)
	}
	if n != info.Size() {
		return fmt.Errorf("archive %s: %w: %d bytes instead of %d", header.Name, ErrChanged, n, info.Size())
	}
	c.stats.Files++
	c.stats.Bytes += n
	return nil
}

// openSame opens the file that info describes; a pipe put in its place
// cannot block it.
func openSame(dir *os.Root, base string, info fs.FileInfo) (*os.File, error) {
	file, err := dir.OpenFile(base, os.O_RDONLY|nonBlocking, 0)
	if err != nil {
		return nil, err
	}
	opened, err := file.Stat()
	if err == nil && !os.SameFile(info, opened) {
		err = ErrChanged
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}
