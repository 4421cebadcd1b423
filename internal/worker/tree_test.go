package worker_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// pack makes a tar of headers; a regular file's content is its Linkname.
func pack(t *testing.T, headers ...tar.Header) io.Reader {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content, h.Linkname = h.Linkname, ""
			h.Size = int64(len(content))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		require.NoError(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, content)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return &buf
}

func file(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: content}
}

func link(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
}

func folder(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name} }

// names reads a tar's entries.
func names(t *testing.T, r io.ReadCloser) []string {
	t.Helper()
	defer func() { require.NoError(t, r.Close()) }()
	in := tar.NewReader(r)
	out := []string{}
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		out = append(out, h.Name)
	}
}

func (b *testbed) write(t *testing.T, dir string, headers ...tar.Header) error {
	t.Helper()
	return b.WriteTree(t.Context(), dir, pack(t, headers...), worker.WriteOptions{})
}

func TestList_DescribesWithoutFollowing(t *testing.T) {
	t.Parallel()
	b := serve(t)
	at := time.Unix(1_700_000_000, 123_456_789)
	f := file("a/x", "hello")
	f.Mode, f.ModTime, f.Format = 0o640, at, tar.FormatPAX
	require.NoError(t, b.write(t, "source/new", f, folder("a/"), file("a-b", ""), link("l", "/etc")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(b.root, "source/new/pipe"), 0o600))
	got, err := b.List(t.Context(), "source/new")
	require.NoError(t, err)
	require.Len(t, got, 4)
	var paths []string
	for _, e := range got {
		paths = append(paths, e.Path)
		require.NotZero(t, e.Inode)
		require.WithinDuration(t, time.Now(), e.ChangeTime, time.Minute)
	}
	require.Equal(t, []string{"a", "a-b", "a/x", "l"}, paths)
	require.Equal(t, fs.ModeDir|0o755, got[0].Mode)
	require.Equal(t, fs.FileMode(0o640), got[2].Mode)
	require.EqualValues(t, 5, got[2].Size)
	require.True(t, got[2].ModTime.Equal(at))
	require.Equal(t, "/etc", got[3].Link)

	stats, err := b.Stat(t.Context(), []string{"source/new/l", "source/none", "source/new/a/x", "source/new/a-b/x"})
	require.NoError(t, err)
	require.Len(t, stats, 2)
	require.Equal(t, "source/new/l", stats[0].Path)
	require.Equal(t, got[2].Inode, stats[1].Inode)

	_, err = b.List(t.Context(), "source/none")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestList_ChangeTimeTellsWhatModTimeHides(t *testing.T) {
	t.Parallel()
	b := serve(t)
	require.NoError(t, b.write(t, "source", file("x", "one")))
	before, err := b.List(t.Context(), "source")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, _ = b.script(t, "touch -r source/x ref; echo two >source/x; truncate -s 3 source/x; touch -r ref source/x")
		after, err := b.List(t.Context(), "source")
		require.NoError(t, err)
		require.True(t, before[0].ModTime.Equal(after[0].ModTime))
		require.Equal(t, before[0].Size, after[0].Size)
		return !before[0].ChangeTime.Equal(after[0].ChangeTime)
	}, 5*time.Second, 10*time.Millisecond)
}

func TestReadTree_Selection(t *testing.T) {
	t.Parallel()
	b := serve(t)
	require.NoError(t, b.write(t, "source", file("d/a", "1"), file("d/b", "2"), folder("e/"), link("l", "d")))
	read := func(paths []string) []string {
		r, err := b.ReadTree(t.Context(), "source", paths)
		require.NoError(t, err)
		return names(t, r)
	}
	require.Equal(t, []string{"d/", "d/a", "d/b", "e/", "l"}, read(nil))
	require.Equal(t, []string{"d/", "e/", "l"}, read([]string{"l", "e/", "./d", "e"}))
	require.Empty(t, read([]string{}))

	fail := func(path string) error {
		r, err := b.ReadTree(t.Context(), "source", []string{"d/a", path})
		require.NoError(t, err)
		defer func() { require.NoError(t, r.Close()) }()
		_, err = io.Copy(io.Discard, r)
		return err
	}
	require.ErrorIs(t, fail("none"), fs.ErrNotExist)
	require.ErrorIs(t, fail("../home"), worker.ErrPath)
	require.ErrorIs(t, fail("l/a"), worker.ErrPath)
	require.NoError(t, syscall.Mkfifo(filepath.Join(b.root, "source/pipe"), 0o600))
	require.ErrorIs(t, fail("pipe"), worker.ErrType)
	require.NotContains(t, read(nil), "pipe")
	_, err := b.ReadTree(t.Context(), "source/none", nil)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestWriteTree_Replaces(t *testing.T) {
	t.Parallel()
	b := serve(t)
	at := func(p string) string { return filepath.Join(b.root, "source", p) }
	require.NoError(t, b.write(t, "source", file("f", "old"), file("d/in", "x"), link("l", "f"), file("keep", "k")))
	before, err := os.Stat(at("f"))
	require.NoError(t, err)
	require.NoError(t, b.write(t, "source", link("f", "keep"), file("d", "now a file"), folder("l/"), file("l/in", "y")))
	target, err := os.Readlink(at("f"))
	require.NoError(t, err)
	require.Equal(t, "keep", target)
	require.FileExists(t, at("d"))
	require.FileExists(t, at("l/in"))
	require.FileExists(t, at("keep"))
	require.NotNil(t, before)

	// Not written through hard links: a package store stays as it is.
	require.NoError(t, os.Link(at("keep"), at("store")))
	require.NoError(t, b.write(t, "source", file("keep", "new"), tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "keep"}))
	data, err := os.ReadFile(at("store"))
	require.NoError(t, err)
	require.Equal(t, "k", string(data))
	data, err = os.ReadFile(at("hard"))
	require.NoError(t, err)
	require.Equal(t, "new", string(data))

	// A folder of the stream that becomes a link later in the same stream.
	require.NoError(t, b.write(t, "source", folder("z/"), file("z/in", "1"), link("z", "keep"), file("zz", "2")))
	target, err = os.Readlink(at("z"))
	require.NoError(t, err)
	require.Equal(t, "keep", target)
	require.ErrorIs(t, b.write(t, "source", folder("y/"), link("y", "../home"), file("y/in", "1")), worker.ErrPath)

	require.NoError(t, b.WriteTree(t.Context(), "source", pack(t, file("only", "1")), worker.WriteOptions{Clean: true}))
	entries, err := b.List(t.Context(), "source")
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

func TestWriteTree_ReadOnlyFolders(t *testing.T) {
	t.Parallel()
	b := serve(t)
	d := folder("mod/")
	d.Mode = 0o555
	require.NoError(t, b.write(t, "source", d, file("mod/go.mod", "m"), file("mod/sub/x", "")))
	info, err := os.Stat(filepath.Join(b.root, "source/mod"))
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o555), info.Mode().Perm())
	require.NoError(t, b.WriteTree(t.Context(), "source", pack(t), worker.WriteOptions{Clean: true}))
	entries, err := b.List(t.Context(), "source")
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestTrees_RefuseToLeaveTheirFolder(t *testing.T) {
	t.Parallel()
	b := serve(t)
	outside := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o600))
	require.NoError(t, os.Symlink(outside, filepath.Join(b.root, "source/out")))
	require.NoError(t, os.Symlink("../home", filepath.Join(b.root, "source/inside")))
	require.NoError(t, os.WriteFile(filepath.Join(b.root, "home/.npmrc"), nil, 0o600))

	for _, dir := range []string{"..", "source/..", "/etc", "source/out", "a\x00b"} {
		_, err := b.List(t.Context(), dir)
		requireReason(t, fault.PathRefused, err)
		require.ErrorIs(t, err, worker.ErrPath, dir)
		_, err = b.ReadTree(t.Context(), dir, nil)
		require.ErrorIs(t, err, worker.ErrPath, dir)
		require.ErrorIs(t, b.write(t, dir, file("x", "1")), worker.ErrPath, dir)
		require.ErrorIs(t, b.WriteTree(t.Context(), dir, pack(t), worker.WriteOptions{Clean: true}), worker.ErrPath, dir)
		require.ErrorIs(t, b.Remove(t.Context(), dir, []string{"secret"}), worker.ErrPath, dir)
	}
	// Links inside are followed for reading, not for writing or removing.
	_, err := b.List(t.Context(), "source/inside")
	require.NoError(t, err)
	require.ErrorIs(t, b.write(t, "source/inside", file("x", "1")), worker.ErrPath)
	require.ErrorIs(t, b.Remove(t.Context(), "source/inside", []string{".npmrc"}), worker.ErrPath)

	for _, name := range []string{"../x", "/x", "a/../../x", "out/x", "out/secret", "inside/x", "."} {
		err := b.write(t, "source", file(name, "1"))
		if name == "." {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, worker.ErrPath, name)
		require.ErrorIs(t, b.Remove(t.Context(), "source", []string{name}), worker.ErrPath, name)
	}
	require.ErrorIs(t, b.Remove(t.Context(), "source", []string{"."}), worker.ErrPath)
	require.ErrorIs(t, b.write(t, "source", tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "out/secret"}), worker.ErrPath)
	require.ErrorIs(t, b.write(t, "source", tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "../home/.npmrc"}), worker.ErrPath)
	require.ErrorIs(t, b.write(t, "source", tar.Header{Typeflag: tar.TypeFifo, Name: "p"}), worker.ErrType)
	_, err = b.Stat(t.Context(), []string{"../x"})
	require.ErrorIs(t, err, worker.ErrPath)
	_, err = b.Stat(t.Context(), []string{"source/out/secret"})
	require.ErrorIs(t, err, worker.ErrPath)

	// Removing a link removes the link.
	require.NoError(t, b.Remove(t.Context(), "source", []string{"out", "inside", "none", "none/x"}))
	require.FileExists(t, filepath.Join(outside, "secret"))
	require.FileExists(t, filepath.Join(b.root, "home/.npmrc"))
	got, err := os.ReadFile(filepath.Join(outside, "secret"))
	require.NoError(t, err)
	require.Equal(t, "s", string(got))
}

func TestWriteTree_ReportsTheSourcesError(t *testing.T) {
	t.Parallel()
	b := serve(t)
	cause := errors.New("the store is away")
	part := io.LimitReader(pack(t, file("x", strings.Repeat("x", 4096))), 1024)
	err := b.WriteTree(t.Context(), "source", io.MultiReader(part, &failing{cause}), worker.WriteOptions{})
	require.ErrorIs(t, err, cause)
	err = b.WriteTree(t.Context(), "source", strings.NewReader(strings.Repeat("no tar", 1000)), worker.WriteOptions{})
	requireReason(t, fault.WorkspaceFailed, err)
	require.ErrorContains(t, err, "tar")
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

func TestReadTree_CloseInTheMiddle(t *testing.T) {
	t.Parallel()
	b := serve(t)
	require.NoError(t, b.write(t, "source", file("big", strings.Repeat("x", 8<<20))))
	r, err := b.ReadTree(t.Context(), "source", nil)
	require.NoError(t, err)
	_, err = io.ReadFull(r, make([]byte, 1024))
	require.NoError(t, err)
	require.NoError(t, r.Close())
	_, err = b.Ping(t.Context())
	require.NoError(t, err)
}

func TestTrees_ManyFiles(t *testing.T) {
	t.Parallel()
	b := serve(t)
	const folders, files = 60, 50
	r, w := io.Pipe()
	go func() {
		out := tar.NewWriter(w)
		for i := range folders * files {
			name := "node_modules/p" + strconv.Itoa(i/files) + "/dist/lib/f" + strconv.Itoa(i%files) + ".js"
			_ = out.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: 5, Typeflag: tar.TypeReg})
			_, _ = io.WriteString(out, "hello")
		}
		_ = out.Close()
		_ = w.Close()
	}()
	start := time.Now()
	require.NoError(t, b.WriteTree(t.Context(), "source", r, worker.WriteOptions{}))
	t.Logf("write %s", time.Since(start))
	start = time.Now()
	entries, err := b.List(t.Context(), "source")
	require.NoError(t, err)
	require.Len(t, entries, folders*files+3*folders+1)
	t.Logf("list %s", time.Since(start))
	start = time.Now()
	tree, err := b.ReadTree(t.Context(), "source", nil)
	require.NoError(t, err)
	require.Len(t, names(t, tree), len(entries))
	t.Logf("read %s", time.Since(start))
	start = time.Now()
	require.NoError(t, b.WriteTree(t.Context(), "source", pack(t), worker.WriteOptions{Clean: true}))
	t.Logf("clean %s", time.Since(start))
}
