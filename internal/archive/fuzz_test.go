package archive_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/archive"
	"github.com/aphex-pipeline/aphex/internal/testkit/bounded"
)

// FuzzExtract: an archive comes from user code or from the bucket, where it is
// compressed. Nothing of it is written outside of the folder, no more than its
// limits, and what was accepted can be archived and extracted again.
func FuzzExtract(f *testing.F) {
	compressed := func(data []byte) []byte {
		w, err := zstd.NewWriter(nil)
		require.NoError(f, err)
		return w.EncodeAll(data, nil)
	}
	plain := tarOf(f, entry{name: "a/b", body: "x"}, entry{name: "l", kind: '2', link: "../x"}).Bytes()
	for _, data := range [][]byte{
		plain, tarOf(f, entry{name: "../b", body: "x"}).Bytes(), tarOf(f, entry{name: "l", kind: '2', link: ".."}, entry{name: "l/x", body: "x"}).Bytes(),
		tarOf(f, entry{name: "d/", kind: '5', mode: 0o100}, entry{name: "d/x", body: "x"}, entry{name: "d", body: "y"}).Bytes(),
		tarOf(f, entry{name: "big", body: string(bytes.Repeat([]byte("x"), 1<<17))}).Bytes(), tarOf(f, entry{name: "p", kind: '6'}).Bytes(),
	} {
		f.Add(data, false)
		f.Add(compressed(data), true)
	}
	parent := f.TempDir()
	limits := archive.Limits{Entries: 100, Bytes: 1 << 16}
	f.Fuzz(func(t *testing.T, data []byte, packed bool) {
		bounded.Here(t)
		dir := filepath.Join(parent, "dst")
		require.NoError(t, os.Mkdir(dir, 0o755))
		defer remove(t, dir)
		root, err := os.OpenRoot(dir)
		require.NoError(t, err)
		defer func() { _ = root.Close() }()
		stats, err := extract(t, root, data, packed, limits)
		left, readErr := os.ReadDir(parent)
		require.NoError(t, readErr)
		require.Len(t, left, 1)
		if err == nil {
			require.LessOrEqual(t, stats.Entries, limits.Entries)
			require.LessOrEqual(t, stats.Bytes, limits.Bytes)
			checkAgain(t, root, parent)
		}
	})
}

func extract(t *testing.T, root *os.Root, data []byte, packed bool, limits archive.Limits) (archive.Stats, error) {
	t.Helper()
	if !packed {
		return archive.Extract(t.Context(), root, bytes.NewReader(data), limits)
	}
	in, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		return archive.Stats{}, err
	}
	defer in.Close()
	return archive.Extract(t.Context(), root, in, limits)
}

// checkAgain archives what was extracted, unless its own permissions forbid it.
func checkAgain(t *testing.T, root *os.Root, parent string) {
	t.Helper()
	var first, second bytes.Buffer
	options := archive.CreateOptions{ModTime: time.Unix(0, 0)} // folders have the time of their making
	if _, err := archive.Create(t.Context(), &first, root, options); err != nil {
		require.ErrorIs(t, err, fs.ErrPermission)
		return
	}
	dir := filepath.Join(parent, "again")
	require.NoError(t, os.Mkdir(dir, 0o755))
	defer remove(t, dir)
	again, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer func() { _ = again.Close() }()
	_, err = archive.Extract(t.Context(), again, bytes.NewReader(first.Bytes()), archive.Limits{})
	require.NoError(t, err)
	_, err = archive.Create(t.Context(), &second, again, options)
	require.NoError(t, err)
	require.Equal(t, first.Bytes(), second.Bytes())
}

// remove removes a folder also where permissions are against it.
func remove(t *testing.T, dir string) {
	t.Helper()
	if os.RemoveAll(dir) == nil {
		return
	}
	require.NoError(t, filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if e != nil && e.IsDir() {
			return os.Chmod(name, 0o700)
		}
		return err
	}))
	require.NoError(t, os.RemoveAll(dir))
}
