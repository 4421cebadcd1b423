package archive_test

import (
	"archive/zip"
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/archive"
)

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
	require.NoError(t, archive.Zip(&first, dir))
	require.NoError(t, os.Chtimes(filepath.Join(dir, "b.txt"), time.Now(), time.Unix(5, 0)))
	require.NoError(t, archive.Zip(&second, dir))
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
			require.ErrorContains(t, archive.Zip(io.Discard, dir), "link")
		})
	}
}
