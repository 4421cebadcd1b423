package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// cursor keeps the directories from the top to the current one open. Archives
// are sorted, so the next entry is mostly in the same directory or beside it,
// and a path is not resolved anew for every file.
type cursor struct {
	top   *os.Root
	parts []string
	dirs  []*os.Root
	// modes are the permissions directories get at the very end; until then
	// each is writable for its owner.
	modes map[string]fs.FileMode
}

// enter returns the directory, creating it and replacing whatever else is in
// its place. The result is valid until the next call.
func (c *cursor) enter(dir string) (*os.Root, error) {
	var parts []string
	if dir != "." {
		parts = strings.Split(dir, "/")
	}
	common := 0
	for common < len(parts) && common < len(c.parts) && parts[common] == c.parts[common] {
		common++
	}
	c.leave(common)
	for _, part := range parts[common:] {
		next, err := c.step(part)
		if err != nil {
			return nil, fmt.Errorf("enter %s: %w", dir, err)
		}
		c.parts = append(c.parts, part)
		c.dirs = append(c.dirs, next)
	}
	return c.current(), nil
}

func (c *cursor) current() *os.Root {
	if len(c.dirs) == 0 {
		return c.top
	}
	return c.dirs[len(c.dirs)-1]
}

func (c *cursor) step(part string) (*os.Root, error) {
	parent := c.current()
	info, err := parent.Lstat(part)
	switch {
	case err == nil && info.IsDir():
		if info.Mode()&0o700 != 0o700 {
			name := path.Join(append(slices.Clone(c.parts), part)...)
			if _, known := c.modes[name]; !known {
				c.modes[name] = info.Mode().Perm()
			}
			if err := parent.Chmod(part, info.Mode().Perm()|0o700); err != nil {
				return nil, err
			}
		}
	case err == nil:
		if err := parent.Remove(part); err != nil {
			return nil, err
		}
		fallthrough
	case errors.Is(err, fs.ErrNotExist):
		if err := parent.Mkdir(part, 0o755); err != nil {
			return nil, err
		}
	default:
		return nil, err
	}
	return parent.OpenRoot(part)
}

// leave closes the directories below the first keep ones.
func (c *cursor) leave(keep int) {
	for _, dir := range c.dirs[keep:] {
		_ = dir.Close()
	}
	c.dirs = c.dirs[:keep]
	c.parts = c.parts[:keep]
}

func (c *cursor) close() { c.leave(0) }

// restoreModes sets the permissions of directories, deepest first, so that
// one that denies entry does not hide those below it.
func (c *cursor) restoreModes() error {
	c.leave(0)
	names := make([]string, 0, len(c.modes))
	for name := range c.modes {
		names = append(names, name)
	}
	slices.Sort(names)
	slices.Reverse(names)
	for _, name := range names {
		parent, err := c.enter(path.Dir(name))
		if err != nil {
			return err
		}
		info, err := parent.Lstat(path.Base(name))
		if err != nil || !info.IsDir() || info.Mode().Perm() == c.modes[name] {
			continue // replaced by a later entry, or right already
		}
		if err := parent.Chmod(path.Base(name), c.modes[name]); err != nil {
			return fmt.Errorf("set permissions of %s: %w", name, err)
		}
	}
	return nil
}
