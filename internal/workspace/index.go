package workspace

import (
	"bytes"
	"encoding/gob"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/worker"
)

// gitDir is the repository of the checkout. It is no part of a snapshot, and
// is made anew when anything in it changed.
const gitDir = ".git"

func inGitDir(path string) bool { return path == gitDir || strings.HasPrefix(path, gitDir+"/") }

// origin says where the content of an entry can be had again.
type origin uint8

const (
	fromCommit origin = iota
	fromSnapshot
)

// index is what the workspace is meant to hold: every entry as it was listed
// when it was right.
type index struct {
	// Format is that of this file; another one is not read.
	Format int
	// Source and Key say of what the workspace consists. Key is the snapshot's;
	// empty for the commit alone.
	Source  Source
	Key     string
	Entries []indexed
}

type indexed struct {
	Entry worker.Entry
	From  origin
}

const indexFormat = 1

// The state files: the index after Materialize, which a snapshot is relative
// to, and the one after Snapshot or Reset, which Reset restores.
const (
	baseFile   = "base.index"
	targetFile = "target.index"
)

func (w *Workspace) saveIndex(name string, idx index) error {
	idx.Format = indexFormat
	var text bytes.Buffer
	if err := gob.NewEncoder(&text).Encode(idx); err != nil {
		return err
	}
	return writeFile(filepath.Join(w.cfg.Private, name), text.Bytes())
}

// loadIndex returns the index if it is there and describes the source.
func (w *Workspace) loadIndex(name string) (index, bool) {
	text, err := os.ReadFile(filepath.Join(w.cfg.Private, name))
	if err != nil {
		return index{}, false
	}
	var idx index
	if err := gob.NewDecoder(bytes.NewReader(text)).Decode(&idx); err != nil {
		return index{}, false
	}
	return idx, idx.Format == indexFormat && idx.Source == w.source
}

func (w *Workspace) dropIndexes(names ...string) error {
	for _, name := range names {
		if err := os.Remove(filepath.Join(w.cfg.Private, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func fromAll(entries []worker.Entry, from origin) []indexed {
	all := make([]indexed, len(entries))
	for i, entry := range entries {
		all[i] = indexed{Entry: entry, From: from}
	}
	return all
}

// same reports whether an entry is still what it was. Folders change their
// time with what is in them, which is listed by itself, so only their mode
// counts. An unprivileged program cannot set a change time back, so a file
// with equal times, size and inode number is untouched.
func same(a, b worker.Entry) bool {
	if a.Mode != b.Mode {
		return false
	}
	if a.Mode.IsDir() {
		return true
	}
	return a.Size == b.Size && a.Link == b.Link && a.Inode == b.Inode &&
		a.ModTime.Equal(b.ModTime) && a.ChangeTime.Equal(b.ChangeTime)
}

// difference is what separates a listing from an index.
type difference struct {
	extra []string // in the listing only, or of another type; topmost paths only
	wrong []int    // entries of the index that are missing or changed
	git   bool     // something in .git differs
}

// compare finds the differences between what is and what should be. Both are
// sorted by path.
func compare(is []worker.Entry, should []indexed) difference {
	known := make(map[string]int, len(should))
	for i := range should {
		known[should[i].Entry.Path] = i
	}
	var d difference
	seen := make([]bool, len(should))
	for i := range is {
		at, ok := known[is[i].Path]
		switch {
		case ok && same(is[i], should[at].Entry):
			seen[at] = true
		case inGitDir(is[i].Path):
			d.git = true
		case !ok:
			d.extra = append(d.extra, is[i].Path)
		default:
			seen[at] = true
			d.wrong = append(d.wrong, at)
			if is[i].Mode.Type() != should[at].Entry.Mode.Type() {
				d.extra = append(d.extra, is[i].Path)
			}
		}
	}
	for i, found := range seen {
		switch {
		case found:
		case inGitDir(should[i].Entry.Path):
			d.git = true
		default:
			d.wrong = append(d.wrong, i)
		}
	}
	d.extra = topmost(d.extra)
	slices.Sort(d.wrong)
	return d
}

// topmost drops the paths below others of the list.
func topmost(paths []string) []string {
	set := make(map[string]struct{}, len(paths))
	for _, path := range paths {
		set[path] = struct{}{}
	}
	var kept []string
	for _, path := range paths {
		if !below(path, set) {
			kept = append(kept, path)
		}
	}
	slices.Sort(kept)
	return kept
}

func below(path string, set map[string]struct{}) bool {
	for i := range len(path) {
		if path[i] != '/' {
			continue
		}
		if _, ok := set[path[:i]]; ok {
			return true
		}
	}
	return false
}

// batches splits paths so that each part fits into one request to the worker.
func batches(paths []string) [][]string {
	const limit = 8 << 20 // bytes; a request may have 64 MiB, base64 and quotes included
	var parts [][]string
	start, size := 0, 0
	for i, path := range paths {
		if size += len(path) + 8; size > limit && i > start {
			parts = append(parts, paths[start:i])
			start, size = i, len(path)+8
		}
	}
	if start < len(paths) {
		parts = append(parts, paths[start:])
	}
	return parts
}
