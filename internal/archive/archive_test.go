package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/aphex-pipeline/aphex/internal/archive"
)

func openRoot(t testing.TB, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { _ = root.Close() })
	return root
}

type entry struct {
	name, body, link string
	kind             byte
	mode             int64
}

func tarOf(t testing.TB, entries ...entry) *bytes.Buffer {
	t.Helper()
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: e.mode, Linkname: e.link, ModTime: time.Unix(1700000000, 0)}
		if header.Typeflag == 0 {
			header.Typeflag = tar.TypeReg
		}
		if header.Mode == 0 {
			header.Mode = 0o644
		}
		if header.Typeflag == tar.TypeReg {
			header.Size = int64(len(e.body))
		}
		require.NoError(t, writer.WriteHeader(header))
		_, err := io.WriteString(writer, e.body)
		require.NoError(t, err)
	}
	require.NoError(t, writer.Close())
	return &buffer
}

func TestExtract_WritesFilesDirectoriesAndLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stats, err := archive.Extract(t.Context(), openRoot(t, dir), tarOf(t,
		entry{name: "a/", kind: tar.TypeDir, mode: 0o555},
		entry{name: "a/run.sh", body: "hi", mode: 0o4755},
		entry{name: "a/deep/er/file", body: "x", mode: 0o400},
		entry{name: "out", kind: tar.TypeSymlink, link: "/etc/passwd"},
	), archive.Limits{})
	require.NoError(t, err)
	require.Equal(t, archive.Stats{Entries: 4, Files: 2, Bytes: 3}, stats)

	info, err := os.Stat(filepath.Join(dir, "a/run.sh"))
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o755), info.Mode(), "set-user-id is dropped")
	require.Equal(t, time.Unix(1700000000, 0), info.ModTime())
	info, err = os.Stat(filepath.Join(dir, "a"))
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o555), info.Mode().Perm())
	target, err := os.Readlink(filepath.Join(dir, "out"))
	require.NoError(t, err)
	require.Equal(t, "/etc/passwd", target)
	require.NoError(t, os.Chmod(filepath.Join(dir, "a"), 0o755))
}

func TestExtract_RefusesWhatIsUnsafe(t *testing.T) {
	t.Parallel()
	tests := map[string][]entry{
		"absolute name":                {{name: "/etc/x"}},
		"parent":                       {{name: "../x"}},
		"parent inside":                {{name: "a/../../x"}},
		"harmless but suspicious ..":   {{name: "a/../x"}},
		"device":                       {{name: "null", kind: tar.TypeChar}},
		"block device":                 {{name: "disk", kind: tar.TypeBlock}},
		"pipe":                         {{name: "pipe", kind: tar.TypeFifo}},
		"hard link":                    {{name: "a"}, {name: "b", kind: tar.TypeLink, link: "a"}},
		"entry below a link":           {{name: "a", kind: tar.TypeSymlink, link: "."}, {name: "a/x"}},
		"link that is a directory too": {{name: "a", kind: tar.TypeSymlink, link: "."}, {name: "a", kind: tar.TypeDir}},
		"root as a file":               {{name: "."}},
	}
	for name, entries := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent := t.TempDir()
			dir := filepath.Join(parent, "dst")
			require.NoError(t, os.Mkdir(dir, 0o755))
			_, err := archive.Extract(t.Context(), openRoot(t, dir), tarOf(t, entries...), archive.Limits{})
			require.ErrorIs(t, err, archive.ErrUnsafe)
			left, err := os.ReadDir(parent)
			require.NoError(t, err)
			require.Len(t, left, 1, "nothing outside the destination")
		})
	}
}

func TestExtract_ReplacesAndNeverFollowsWhatIsInTheWay(t *testing.T) {
	t.Parallel()
	outside, dir := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "victim"), []byte("intact"), 0o600))
	require.NoError(t, os.Symlink(filepath.Join(outside, "victim"), filepath.Join(dir, "file")))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "dir")))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "was-dir", "sub"), 0o755))
	require.NoError(t, os.Chmod(filepath.Join(dir, "was-dir", "sub"), 0o500))

	_, err := archive.Extract(t.Context(), openRoot(t, dir), tarOf(t,
		entry{name: "dir/victim", body: "new"},
		entry{name: "file", body: "new"},
		entry{name: "was-dir", body: "new"},
	), archive.Limits{})
	require.NoError(t, err)
	content, err := os.ReadFile(filepath.Join(outside, "victim"))
	require.NoError(t, err)
	require.Equal(t, "intact", string(content))
	for _, name := range []string{"dir/victim", "file", "was-dir"} {
		info, err := os.Lstat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.True(t, info.Mode().IsRegular(), name)
	}
}

func TestExtract_WritesIntoDirectoriesThatDenyIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	locked := filepath.Join(dir, "locked")
	require.NoError(t, os.Mkdir(locked, 0o555))
	_, err := archive.Extract(t.Context(), openRoot(t, dir), tarOf(t, entry{name: "locked/file", body: "x"}), archive.Limits{})
	require.NoError(t, err)
	info, err := os.Stat(locked)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o555), info.Mode().Perm(), "the directory's own permissions are back")
	require.NoError(t, os.Chmod(locked, 0o755))
}

func TestExtract_StopsAtLimits(t *testing.T) {
	t.Parallel()
	entries := []entry{{name: "a", body: "12345"}, {name: "b", body: "12345"}}
	_, err := archive.Extract(t.Context(), openRoot(t, t.TempDir()), tarOf(t, entries...), archive.Limits{Entries: 1})
	require.ErrorIs(t, err, archive.ErrLimit)
	_, err = archive.Extract(t.Context(), openRoot(t, t.TempDir()), tarOf(t, entries...), archive.Limits{Bytes: 9})
	require.ErrorIs(t, err, archive.ErrLimit)
	_, err = archive.Extract(t.Context(), openRoot(t, t.TempDir()), tarOf(t, entries...), archive.Limits{Entries: 2, Bytes: 10})
	require.NoError(t, err)
}

func TestExtract_ReportsTruncationAndCancellation(t *testing.T) {
	t.Parallel()
	whole := tarOf(t, entry{name: "a", body: "12345"}).Bytes()
	_, err := archive.Extract(t.Context(), openRoot(t, t.TempDir()), bytes.NewReader(whole[:514]), archive.Limits{})
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)

	cause := errors.New("stop now")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, err = archive.Extract(ctx, openRoot(t, t.TempDir()), bytes.NewReader(whole), archive.Limits{})
	require.ErrorIs(t, err, cause)
}

func TestCreate_TakesOnlyTheGivenPaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "d/e"), 0o755))
	for _, name := range []string{"d/x", "d/e/y", "z"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600))
	}
	var buffer bytes.Buffer
	stats, err := archive.Create(t.Context(), &buffer, openRoot(t, dir),
		archive.CreateOptions{Paths: []string{"z", "d", "d/x", "z"}, ModTime: time.Unix(1, 0)})
	require.NoError(t, err)
	require.Equal(t, archive.Stats{Entries: 3, Files: 2, Bytes: 4}, stats)
	require.Equal(t, []string{"d/", "d/x", "z"}, tarNames(t, &buffer))

	_, err = archive.Create(t.Context(), io.Discard, openRoot(t, dir), archive.CreateOptions{Paths: []string{"nope"}})
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = archive.Create(t.Context(), io.Discard, openRoot(t, dir), archive.CreateOptions{Paths: []string{"../z"}})
	require.ErrorIs(t, err, archive.ErrUnsafe)
}

func TestCreate_LeavesOutPipes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	var buffer bytes.Buffer
	stats, err := archive.Create(t.Context(), &buffer, openRoot(t, dir), archive.CreateOptions{})
	require.NoError(t, err)
	require.Equal(t, archive.Stats{Entries: 1, Files: 1, Skipped: 1}, stats)
	require.Equal(t, []string{"file"}, tarNames(t, &buffer))
}

func tarNames(t *testing.T, r io.Reader) []string {
	t.Helper()
	var names []string
	reader := tar.NewReader(r)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		require.NoError(t, err)
		names = append(names, header.Name)
	}
}
