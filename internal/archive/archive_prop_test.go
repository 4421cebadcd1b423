package archive_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/archive"
)

// drawTree fills dir with files, directories and links. It works through an
// os.Root, since the links lead anywhere.
func drawTree(t *rapid.T, dir string) {
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer func() { _ = root.Close() }()
	name := rapid.SampledFrom([]string{"a", "b", "a-b", "é ü", "x\xff", ".dot", "new\nline", "long" + strings.Repeat("g", 120)})
	for i := range rapid.IntRange(0, 12).Draw(t, "entries") {
		full := "."
		for range rapid.IntRange(0, 3).Draw(t, "depth") {
			full = path.Join(full, name.Draw(t, "dir"))
		}
		if root.MkdirAll(full, 0o755) != nil {
			continue // a file or link is there
		}
		full = path.Join(full, name.Draw(t, "base"))
		if _, err := root.Lstat(full); err == nil {
			continue
		}
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			require.NoError(t, root.Symlink(rapid.SampledFrom([]string{"/etc", "a", "../..", "gone"}).Draw(t, "target"), full))
		case 1:
			require.NoError(t, root.Mkdir(full, rapid.SampledFrom([]fs.FileMode{0o755, 0o700, 0o777}).Draw(t, "mode")))
		default:
			content := rapid.SliceOfN(rapid.Byte(), 0, 2000).Draw(t, fmt.Sprint("content", i))
			mode := rapid.SampledFrom([]fs.FileMode{0o644, 0o755, 0o600, 0o400}).Draw(t, "mode")
			require.NoError(t, root.WriteFile(full, content, mode))
		}
	}
}

// describe lists everything about a tree that an archive carries.
func describe(t require.TestingT, dir string) map[string]string {
	tree := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, full)
		if name == "." {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String()
		switch info.Mode().Type() {
		case fs.ModeSymlink:
			target, _ := os.Readlink(full)
			text += " -> " + target
		case 0:
			content, err := os.ReadFile(full)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %d %x", info.ModTime().Unix(), content)
		default: // the mode says it all
		}
		tree[name] = text
		return nil
	}))
	return tree
}

func TestTar_RoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		base := t.TempDir()
		src, dst := path.Join(base, "src"), path.Join(base, "dst")
		require.NoError(rt, os.Mkdir(src, 0o755))
		require.NoError(rt, os.Mkdir(dst, 0o755))
		drawTree(rt, src)
		drawTree(rt, dst) // whatever is there is overwritten, what is not in the archive stays
		var buffer bytes.Buffer
		_, err := archive.Create(t.Context(), &buffer, openRoot(t, src), archive.CreateOptions{})
		require.NoError(rt, err)
		_, err = archive.Extract(t.Context(), openRoot(t, dst), bytes.NewReader(buffer.Bytes()), archive.Limits{})
		require.NoError(rt, err)
		want, got := describe(rt, src), describe(rt, dst)
		for name, text := range want {
			require.Equal(rt, text, got[name], "%q", name)
		}
		var again bytes.Buffer
		clean := t.TempDir()
		_, err = archive.Extract(t.Context(), openRoot(t, clean), bytes.NewReader(buffer.Bytes()), archive.Limits{})
		require.NoError(rt, err)
		_, err = archive.Create(t.Context(), &again, openRoot(t, src), archive.CreateOptions{})
		require.NoError(rt, err)
		require.Equal(rt, describe(rt, src), describe(rt, clean))
		require.True(rt, bytes.Equal(buffer.Bytes(), again.Bytes()), "same tree, same bytes")
	})
}

func TestZip_SameTreeSameBytes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		drawTree(rt, dir)
		var first, second bytes.Buffer
		err1, err2 := packed(&first, dir), packed(&second, dir)
		require.Equal(rt, err1 == nil, err2 == nil)
		if err1 == nil {
			require.True(rt, bytes.Equal(first.Bytes(), second.Bytes()))
		}
	})
}
