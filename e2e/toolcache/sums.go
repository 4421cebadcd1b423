package toolcache

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// SumsFile is the name of the list of sums inside an entry.
const SumsFile = "SHA256SUMS"

// ErrDamaged says that an entry differs from its list of sums.
var ErrDamaged = errors.New("differs from its list of sums")

// Key returns the name of the recipe's entry: 64 hexadecimal digits over the
// recipe's name, its inputs and the path and content of each file of its
// module. The same inputs give the same key on every machine.
func Key(r Recipe) (string, error) {
	h := sha256.New()
	field := func(s string) { _, _ = fmt.Fprintf(h, "%d:%s\n", len(s), s) }
	field(r.Name)
	field(strconv.Itoa(len(r.Inputs)))
	for _, in := range r.Inputs {
		field(in)
	}
	err := fs.WalkDir(r.Module, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(r.Module, path)
		if err != nil {
			return err
		}
		field(path)
		field(string(data))
		return nil
	})
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// WriteSums writes the list of sums of everything in dir into dir.
func WriteSums(dir string) error {
	sums, err := scan(dir)
	if err != nil {
		return err
	}
	var list bytes.Buffer
	for _, path := range slices.Sorted(maps.Keys(sums)) {
		fmt.Fprintf(&list, "%s  %s\n", sums[path], path)
	}
	return os.WriteFile(filepath.Join(dir, SumsFile), list.Bytes(), 0o644)
}

// Verify compares dir with its list of sums: every listed file must be there
// with its content and mode, every listed link with its target, and nothing
// else.
//
// Errors: fs.ErrNotExist if there is no such directory, ErrDamaged for any
// difference and for a missing or unreadable list.
func Verify(dir string) error {
	if _, err := os.Stat(dir); err != nil {
		return err
	}
	list, err := os.ReadFile(filepath.Join(dir, SumsFile))
	if err != nil {
		return fmt.Errorf("%s %w: no list", dir, ErrDamaged)
	}
	want := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(list))
	for lines.Scan() {
		sum, path, ok := strings.Cut(lines.Text(), "  ")
		if !ok {
			return fmt.Errorf("%s %w: line %q of the list", dir, ErrDamaged, lines.Text())
		}
		want[path] = sum
	}
	if len(want) == 0 {
		return fmt.Errorf("%s %w: the list is empty", dir, ErrDamaged)
	}
	got, err := scan(dir)
	if err != nil {
		return fmt.Errorf("%s %w: %w", dir, ErrDamaged, err)
	}
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if got[path] != want[path] {
			return fmt.Errorf("%s %w: %s is %s, listed as %s", dir, ErrDamaged, path, orMissing(got[path]), want[path])
		}
	}
	for _, path := range slices.Sorted(maps.Keys(got)) {
		if want[path] == "" {
			return fmt.Errorf("%s %w: %s is not listed", dir, ErrDamaged, path)
		}
	}
	return nil
}

func orMissing(sum string) string {
	if sum == "" {
		return "missing"
	}
	return sum
}

// scan returns what identifies each file and link below dir, by slash path:
// "<mode>-<sha256>" of a file, "link-<sha256 of the target>" of a link. The
// list of sums itself is left out.
func scan(dir string) (map[string]string, error) {
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || rel == SumsFile {
			return err
		}
		id, err := identify(path, d)
		if err != nil {
			return err
		}
		found[filepath.ToSlash(rel)] = id
		return nil
	})
	return found, err
}

func identify(path string, d fs.DirEntry) (string, error) {
	if d.Type() == fs.ModeSymlink {
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		sum := sha256.Sum256([]byte(target))
		return "link-" + hex.EncodeToString(sum[:]), nil
	}
	if !d.Type().IsRegular() {
		return "", fmt.Errorf("%s is neither a file nor a link", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return "", err
	}
	return fmt.Sprintf("%03o-%x", info.Mode().Perm(), h.Sum(nil)), nil
}
