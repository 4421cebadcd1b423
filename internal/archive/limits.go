package archive

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

// The kinds of archive that are refused.
var (
	// ErrUnsafe is an entry that must not be extracted: an absolute name, one
	// with "..", a device, a hard link, or an entry below a symbolic link.
	ErrUnsafe = errors.New("unsafe archive entry")
	// ErrLimit is an archive beyond its [Limits].
	ErrLimit = errors.New("archive is too large")
	// ErrChanged is a file that changed while it was being archived.
	ErrChanged = errors.New("file changed while it was read")
)

// The limits used where [Limits] has a zero: far above any real workspace,
// far below what fills a node.
const (
	DefaultMaxEntries = 2_000_000
	DefaultMaxBytes   = 64 << 30
)

// Limits bound what [Extract] accepts. A zero field means its default.
type Limits struct {
	// Entries is the greatest number of entries, of whatever type.
	Entries int
	// Bytes is the greatest sum of file contents, in bytes.
	Bytes int64
}

func (l Limits) withDefaults() Limits {
	if l.Entries == 0 {
		l.Entries = DefaultMaxEntries
	}
	if l.Bytes == 0 {
		l.Bytes = DefaultMaxBytes
	}
	return l
}

// Stats says what went through an archive.
type Stats struct {
	// Entries counts everything: files, directories and links.
	Entries int
	// Files counts regular files, Bytes their contents.
	Files int
	Bytes int64
	// Skipped counts sockets, pipes and devices left out of a new archive.
	Skipped int
}

func (s *Stats) add(bytes int64, limits Limits) error {
	s.Entries++
	s.Bytes += bytes
	if s.Entries > limits.Entries {
		return fmt.Errorf("%w: more than %d entries", ErrLimit, limits.Entries)
	}
	if s.Bytes > limits.Bytes {
		return fmt.Errorf("%w: more than %d bytes", ErrLimit, limits.Bytes)
	}
	return nil
}

// localName returns the cleaned form of an entry's name, "." for the root.
func localName(name string) (string, error) {
	if name == "" || strings.ContainsRune(name, 0) || path.IsAbs(name) {
		return "", fmt.Errorf("%w: name %q", ErrUnsafe, name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fmt.Errorf("%w: name %q contains \"..\"", ErrUnsafe, name)
		}
	}
	clean := path.Clean(name)
	if !filepath.IsLocal(clean) {
		return "", fmt.Errorf("%w: name %q", ErrUnsafe, name)
	}
	return clean, nil
}
