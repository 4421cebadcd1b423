package archive_test

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/archive"
)

// packed writes a folder as it is to w.
func packed(w io.Writer, dir string) error {
	folder, err := archive.List(dir)
	if err != nil {
		return err
	}
	return folder.Zip(w)
}

func TestZip_PackagesAsTheCDKDoes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, body string, mode fs.FileMode) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(body), 0o600))
		require.NoError(t, os.Chmod(path, mode))
	}
	write("b/run", "#!", 0o755)
	write("b.txt", "text", 0o644)
	write(".hidden", "dot", 0o600)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "empty/inner"), 0o755))
	require.NoError(t, os.Symlink("b", filepath.Join(dir, "dirlink")))
	require.NoError(t, os.Symlink("../b.txt", filepath.Join(dir, "b/filelink")))

	var first, second bytes.Buffer
	require.NoError(t, packed(&first, dir))
	require.NoError(t, os.Chtimes(filepath.Join(dir, "b.txt"), time.Now(), time.Unix(5, 0)))
	require.NoError(t, packed(&second, dir))
	require.Equal(t, first.Bytes(), second.Bytes())

	reader, err := zip.NewReader(bytes.NewReader(first.Bytes()), int64(first.Len()))
	require.NoError(t, err)
	got := map[string]fs.FileMode{}
	var names []string
	for _, file := range reader.File {
		names = append(names, file.Name)
		got[file.Name] = file.Mode()
		require.True(t, file.Modified.Equal(time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)), file.Modified)
	}
	require.Equal(t, []string{".hidden", "b.txt", "b/filelink", "b/run", "dirlink/filelink", "dirlink/run"}, names)
	require.Equal(t, fs.FileMode(0o755), got["b/run"])
	require.Equal(t, fs.FileMode(0o644), got["b/filelink"])
	require.Equal(t, fs.FileMode(0o600), got[".hidden"])
	linked, err := reader.Open("dirlink/filelink")
	require.NoError(t, err)
	content, err := io.ReadAll(linked)
	require.NoError(t, err)
	require.Equal(t, "text", string(content))
}

func TestZip_RefusesLinksItMustNotFollow(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(outside, []byte("secret"), 0o600))
	for name, target := range map[string]string{
		"absolute outside": outside,
		"relative outside": "../../../../../../etc/hostname",
		"dangling":         "nowhere",
		"loop":             "link",
		"its own parent":   ".",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			require.NoError(t, os.Symlink(target, filepath.Join(dir, "link")))
			require.ErrorContains(t, packed(io.Discard, dir), "link")
		})
	}
}

// Whatever is in the folder, the archive is not larger than was said before it
// was made.
func TestFolder_Bound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		dir, random := t.TempDir(), rand.NewChaCha8([32]byte{})
		for i := range rapid.IntRange(0, 5).Draw(rt, "files") {
			// What cannot be compressed at all, in one entry with a long name.
			content := make([]byte, rapid.SampledFrom([]int{0, 1, 100, 65_535, 300_000}).Draw(rt, "size"))
			_, _ = random.Read(content)
			name := fmt.Sprintf("%d%s", i, strings.Repeat("n", rapid.IntRange(0, 200).Draw(rt, "name")))
			require.NoError(rt, os.WriteFile(filepath.Join(dir, name), content, 0o600))
		}
		folder, err := archive.List(dir)
		require.NoError(rt, err)
		var out bytes.Buffer
		require.NoError(rt, folder.Zip(&out))
		require.LessOrEqual(rt, int64(out.Len()), folder.Bound())
	})
}

func TestFolder_ZipRefusesWhatHasChanged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "a")
	require.NoError(t, os.WriteFile(name, []byte("one"), 0o600))
	folder, err := archive.List(dir)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name, []byte("longer"), 0o600))
	require.ErrorIs(t, folder.Zip(io.Discard), archive.ErrChanged)
}
