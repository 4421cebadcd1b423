package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
)

const builtCommit = "abababababababababababababababababababab"

// publishedBy puts files into a bucket as the build of run u1 does.
func publishedBy(t require.TestingT, bucket *store.Dir, files map[string][]byte) {
	var list []record.Artifact
	for name, content := range files {
		sum := sha256.Sum256(content)
		list = append(list, record.Artifact{CommitSHA: builtCommit, Path: name, Checksum: record.Checksum(hex.EncodeToString(sum[:])), SizeBytes: int64(len(content))})
		object, err := bucket.Put(context.Background(), list[len(list)-1].Key(), bytes.NewReader(content), store.PutOptions{})
		require.NoError(t, err)
		list[len(list)-1].S3Path = object.URL
	}
	require.NoError(t, record.New(bucket).PutArtifacts(context.Background(), "u1", builtCommit, time.Unix(0, 0), list))
}

// downloads gets the artifacts of u1 into dir.
func downloads(t require.TestingT, bucket *store.Dir, dir string, force bool) (string, error) {
	list, err := record.New(bucket).Artifacts(context.Background(), "u1")
	require.NoError(t, err)
	var out strings.Builder
	return out.String(), (&download{dir: dir, force: force, out: &out}).get(context.Background(), storedIn(bucket, list))
}

// filesOf are the regular files below dir.
func filesOf(t require.TestingT, dir string) map[string][]byte {
	found := map[string][]byte{}
	require.NoError(t, fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(filepath.Join(dir, name))
		found[name] = content
		return err
	}))
	return found
}

// drawPath has the names that people give files; folders have names of their
// own, so that none is a file as well.
func drawPath() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		part := rapid.OneOf(
			rapid.StringMatching(`[A-CE-Za-ce-z0-9 ._+=@ä'"$&;*?#%\\-]{1,12}x`),
			rapid.SampledFrom([]string{".well-known", "..x", " x ", "ü€😀", "$(rm -rf)", "-rf", "a:b|c<d>", strings.Repeat("n", 250), "\u2028x"}),
		)
		return strings.Repeat(rapid.SampledFrom([]string{"d", "d d", ".d"}).Draw(t, "folder")+"/", rapid.IntRange(0, 2).Draw(t, "depth")) + part.Draw(t, "name")
	})
}

// Feature: aphex-pipeline, Property 5: Artifact storage and retrieval
//
// Whatever was published comes back as it was; what is in the way stays unless
// it is to be replaced; and a second time nothing is fetched.
func TestDownload_RoundTrip(t *testing.T) {
	t.Parallel()
	base, n := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		bucket, dir := store.NewDir(filepath.Join(base, strconv.Itoa(n), "bucket")), filepath.Join(base, strconv.Itoa(n), "made", "out")
		files := rapid.MapOfN(drawPath(), rapid.SliceOfN(rapid.Byte(), 0, 3000), 1, 4).Draw(t, "files")
		publishedBy(t, bucket, files)
		_, err := downloads(t, bucket, dir, false)
		require.NoError(t, err)
		require.Equal(t, files, filesOf(t, dir))

		name := rapid.SampledFrom(slices.Sorted(maps.Keys(files))).Draw(t, "changed")
		gone := rapid.SampledFrom(slices.Sorted(maps.Keys(files))).Draw(t, "gone")
		require.NoError(t, os.Remove(filepath.Join(dir, gone)))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("mine, and of nobody else"), 0o600))
		before := filesOf(t, dir)
		_, err = downloads(t, bucket, dir, false)
		require.ErrorIs(t, err, &fault.Fault{Reason: fault.DownloadRefused})
		require.ErrorContains(t, err, filepath.Join(dir, name))
		require.Equal(t, before, filesOf(t, dir), "nothing is written if anything is in the way")
		_, err = downloads(t, bucket, dir, true)
		require.NoError(t, err)
		require.Equal(t, files, filesOf(t, dir))
	})
}

func TestDownload_DamagedBytesGetNoName(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(*testing.T, *store.Dir, string){
		"in the bucket": func(t *testing.T, _ *store.Dir, bucket string) {
			t.Helper()
			require.NoError(t, os.WriteFile(filepath.Join(bucket, builtCommit, "app"), []byte("apq"), 0o600))
		},
		"by another writer": func(t *testing.T, bucket *store.Dir, _ string) {
			t.Helper()
			_, err := bucket.Put(t.Context(), builtCommit+"/app", strings.NewReader("apq"), store.PutOptions{})
			require.NoError(t, err)
		},
		"by deleting it": func(t *testing.T, _ *store.Dir, bucket string) {
			t.Helper()
			require.NoError(t, os.Remove(filepath.Join(bucket, builtCommit, "app")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder, dir := t.TempDir(), t.TempDir()
			bucket := store.NewDir(folder)
			publishedBy(t, bucket, map[string][]byte{"app": []byte("app")})
			require.NoError(t, os.WriteFile(filepath.Join(dir, "app"), []byte("old"), 0o600))
			damage(t, bucket, folder)
			_, err := downloads(t, bucket, dir, true)
			require.ErrorIs(t, err, &fault.Fault{Reason: fault.StoreFailed})
			require.Equal(t, map[string][]byte{"app": []byte("old")}, filesOf(t, dir), "what was there stays, and nothing is left behind")
		})
	}
}

func TestDownload_NothingOutsideOfTheFolder(t *testing.T) {
	t.Parallel()
	bucket, outside, dir := store.NewDir(t.TempDir()), t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "app"), []byte("theirs"), 0o600))
	for _, name := range []string{"../app", "/etc/app", "a/../../app", "..", "."} {
		list := storedIn(bucket, []record.Artifact{{CommitSHA: builtCommit, Path: name}})
		err := (&download{dir: dir, force: true, out: &strings.Builder{}}).get(t.Context(), list)
		require.ErrorIs(t, err, &fault.Fault{Reason: fault.PathRefused}, name)
	}

	publishedBy(t, bucket, map[string][]byte{"d/app": []byte("ours")})
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "d")))
	_, err := downloads(t, bucket, dir, true)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.PathRefused})

	// A link in the place of a file is replaced, not followed.
	require.NoError(t, os.Remove(filepath.Join(dir, "d")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o700))
	require.NoError(t, os.Symlink(filepath.Join(outside, "app"), filepath.Join(dir, "d", "app")))
	_, err = downloads(t, bucket, dir, false)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.DownloadRefused})
	_, err = downloads(t, bucket, dir, true)
	require.NoError(t, err)
	require.Equal(t, map[string][]byte{"d/app": []byte("ours")}, filesOf(t, dir))
	require.Equal(t, map[string][]byte{"app": []byte("theirs")}, filesOf(t, outside))

	// What cannot be a folder is said.
	_, err = downloads(t, bucket, filepath.Join(dir, "d", "app"), true)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.DownloadRefused})
	require.ErrorContains(t, err, "not a directory")
}

func TestChoose_FirstBuiltAndByFolder(t *testing.T) {
	t.Parallel()
	list := storedIn(nil, []record.Artifact{
		{Path: "app", WorkflowName: "shop-1"},
		{Path: "app", WorkflowName: "shop-2", DiffersFrom: "x"},
		{Path: "site/a", WorkflowName: "shop-1"},
		{Path: "sitemap", WorkflowName: "shop-1"},
	})
	paths := func(list []stored) []string {
		var all []string
		for _, a := range list {
			all = append(all, a.WorkflowName+" "+a.Path)
		}
		return all
	}
	for _, tt := range []struct{ paths, want, other []string }{
		{nil, []string{"shop-1 app", "shop-1 site/a", "shop-1 sitemap"}, []string{"shop-2 app"}},
		{[]string{"app"}, []string{"shop-1 app"}, []string{"shop-2 app"}},
		{[]string{"./site/"}, []string{"shop-1 site/a"}, nil},
		{[]string{"sitemap", "site"}, []string{"shop-1 site/a", "shop-1 sitemap"}, nil},
	} {
		c, err := choose("abababa", list, tt.paths)
		require.NoError(t, err)
		require.Equal(t, tt.want, paths(c.artifacts), tt.paths)
		require.Equal(t, tt.other, paths(c.passedOver), tt.paths)
	}
	_, err := choose("abababa", list, []string{"app", "sit"})
	require.ErrorContains(t, err, "find artifact sit of abababa: no build has published it; there are app, site/a, sitemap")
	_, err = choose("shop-1", nil, []string{"app"})
	require.ErrorContains(t, err, "there are none")
	c, err := choose("shop-1", nil, nil)
	require.NoError(t, err)
	require.Empty(t, c)
	many := make([]stored, 40)
	for i := range many {
		many[i].Path = strconv.Itoa(i)
	}
	_, err = choose("shop-1", many, []string{"app"})
	require.ErrorContains(t, err, "8, 9 and 30 more")
}

// TestArtifacts_OfACommitInSeveralFolders: each run of `aphex task` has a bucket
// of its own.
func TestArtifacts_OfACommitInSeveralFolders(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	publishedBy(t, localBucket(dir, "first"), map[string][]byte{"app": []byte("1"), "same": []byte("s")})
	publishedBy(t, localBucket(dir, "second"), map[string][]byte{"app": []byte("2"), "same": []byte("s")})
	f := lookupFlags{dir: dir}
	list, err := f.artifacts(t.Context(), builtCommit[:7])
	require.NoError(t, err)
	var paths []string
	for _, a := range list {
		paths = append(paths, a.Path)
	}
	require.Equal(t, []string{"app", "app", "same"}, paths)
	require.NoError(t, record.New(localBucket(dir, "third")).PutArtifacts(t.Context(), "u1", "abababa"+strings.Repeat("0", 33), time.Unix(0, 0), []record.Artifact{{Path: "x"}}))
	_, err = f.artifacts(t.Context(), builtCommit[:7])
	require.ErrorContains(t, err, "commit abababa is not unique: abababa0")
}
