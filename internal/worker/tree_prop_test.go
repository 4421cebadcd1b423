package worker_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/worker"
)

// node is one entry of a generated tree.
type node struct {
	kind    byte
	mode    int64
	content string // or a link's target
	time    time.Time
}

// drawTree draws any tree of files, folders and links by path. Names are any
// bytes a file system takes.
func drawTree(t *rapid.T) map[string]node {
	segment := rapid.OneOf(
		rapid.StringMatching(`[a-c]{1,2}`),
		rapid.StringN(1, 8, 60),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 1, 8), func(b []byte) string { return string(b) }),
		rapid.Just(strings.Repeat("n", 120)),
	).Filter(func(s string) bool { return s != "." && s != ".." && !strings.ContainsAny(s, "/\x00") })
	tree := map[string]node{}
	folders := []string{""}
	for range rapid.IntRange(0, 25).Draw(t, "entries") {
		p := path.Join(rapid.SampledFrom(folders).Draw(t, "folder"), segment.Draw(t, "name"))
		if _, taken := tree[p]; taken {
			continue
		}
		n := node{
			kind: rapid.SampledFrom([]byte{tar.TypeReg, tar.TypeDir, tar.TypeSymlink}).Draw(t, "kind"),
			mode: int64(rapid.IntRange(0, 0o777).Draw(t, "mode")) | 0o700,
			time: time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanos")),
		}
		switch n.kind {
		case tar.TypeReg:
			n.content = string(rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "content"))
		case tar.TypeDir:
			folders = append(folders, p)
		case tar.TypeSymlink:
			n.content, n.mode, n.time = rapid.OneOf(segment, rapid.SampledFrom([]string{"/etc/passwd", "../../x", "."})).Draw(t, "target"), 0o777, time.Unix(0, 0)
		}
		tree[p] = n
	}
	return tree
}

// encode makes a tar in the order given.
func encode(t require.TestingT, tree map[string]node, order []string) *bytes.Buffer {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, p := range order {
		n := tree[p]
		h := &tar.Header{Typeflag: n.kind, Name: p, Mode: n.mode, ModTime: n.time, Format: tar.FormatPAX}
		switch n.kind {
		case tar.TypeReg:
			h.Size = int64(len(n.content))
		case tar.TypeDir:
			h.Name += "/"
		case tar.TypeSymlink:
			h.Linkname = n.content
		}
		require.NoError(t, w.WriteHeader(h))
		if n.kind == tar.TypeReg {
			_, err := io.WriteString(w, n.content)
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	return &buf
}

func decode(t require.TestingT, r io.Reader) map[string]node {
	tree := map[string]node{}
	in := tar.NewReader(r)
	last := ""
	for {
		h, err := in.Next()
		if err == io.EOF {
			return tree
		}
		require.NoError(t, err)
		p := strings.TrimSuffix(h.Name, "/")
		require.Less(t, last, p, "entries are sorted")
		last = p
		n := node{kind: h.Typeflag, mode: h.Mode, content: h.Linkname, time: h.ModTime}
		if h.Typeflag == tar.TypeReg {
			data, err := io.ReadAll(in)
			require.NoError(t, err)
			n.content = string(data)
		}
		tree[p] = n
	}
}

// Round trip: what is written is what is read, whatever the order of entries,
// and reading twice gives equal bytes; the listing agrees.
func TestTrees_RoundTrip(t *testing.T) {
	t.Parallel()
	b := serve(t)
	count := 0
	rapid.Check(t, func(rt *rapid.T) {
		count++
		dir := fmt.Sprintf("source/case-%d", count)
		tree := drawTree(rt)
		paths := make([]string, 0, len(tree))
		for p := range tree {
			paths = append(paths, p)
		}
		order := paths
		if len(paths) > 1 {
			order = rapid.Permutation(sorted(paths)).Draw(rt, "order")
		}
		require.NoError(rt, b.WriteTree(t.Context(), dir, encode(rt, tree, order), worker.WriteOptions{}))
		first := readAll(t, rt, b, dir)
		require.Equal(rt, len(tree), len(decode(rt, bytes.NewReader(first))))
		for p, n := range decode(rt, bytes.NewReader(first)) {
			want := tree[p]
			require.True(rt, n.time.Equal(want.time), "%q: %v, want %v", p, n.time, want.time)
			n.time = want.time
			require.Equal(rt, want, n, "%q", p)
		}
		require.True(rt, bytes.Equal(first, readAll(t, rt, b, dir)), "same tree, same bytes")

		entries, err := b.List(t.Context(), dir)
		require.NoError(rt, err)
		require.Len(rt, entries, len(tree))
		for _, e := range entries {
			n := tree[e.Path]
			require.Equal(rt, n.kind == tar.TypeDir, e.Mode.IsDir())
			require.Equal(rt, n.kind == tar.TypeSymlink, e.Mode&fs.ModeSymlink != 0)
			require.EqualValues(rt, n.mode, e.Mode.Perm())
		}
		// Over another tree: what is written wins, nothing else is touched.
		other := drawTree(rt)
		require.NoError(rt, b.WriteTree(t.Context(), dir, encode(rt, other, sorted(keys(other))), worker.WriteOptions{Clean: true}))
		require.Len(rt, decode(rt, bytes.NewReader(readAll(t, rt, b, dir))), len(other))
		require.NoError(rt, b.Remove(t.Context(), dir, keys(other)))
		require.Empty(rt, decode(rt, bytes.NewReader(readAll(t, rt, b, dir))))
	})
}

func readAll(t *testing.T, rt require.TestingT, b *testbed, dir string) []byte {
	t.Helper()
	r, err := b.ReadTree(t.Context(), dir, nil)
	require.NoError(rt, err)
	data, err := io.ReadAll(r)
	require.NoError(rt, err)
	require.NoError(rt, r.Close())
	return data
}

func keys(tree map[string]node) []string { return slices.Collect(maps.Keys(tree)) }

func sorted(paths []string) []string { return slices.Sorted(slices.Values(paths)) }
