package cache_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/cache"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/testkit/pod"
)

// files are those of a commit.
type files map[string]string

// File implements what a Keeper needs of a commit.
func (f files) File(_ context.Context, path string) ([]byte, error) {
	content, ok := f[path]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(content), nil
}

// bench is one pipeline, whose builds each have a pod of their own.
type bench struct {
	t       *testing.T
	objects *store.Dir
	dir     string
	scope   cache.Scope
	list    []pipeline.Cache
	lock    string
	log     bytes.Buffer
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	return &bench{
		t: t, dir: dir, objects: store.NewDir(dir), scope: cache.Scope{Pipeline: "shop", Branch: "main"}, lock: "1",
		list: []pipeline.Cache{{Paths: []string{"app/node_modules", "~/.npm"}, Key: []string{"package-lock.json"}}},
	}
}

// build restores in a fresh pod, lets work do the build's, keeps, and returns
// the folder that the commands know as their root.
func (b *bench) build(work func(root string), secrets ...string) string {
	b.t.Helper()
	p := pod.New(b.t, pod.Config{Objects: b.objects})
	require.NoError(b.t, os.MkdirAll(filepath.Join(p.Root, "source/app"), 0o750))
	b.log.Reset()
	keeper := cache.New(cache.Config{
		Worker: p.Worker, Store: b.objects, Commit: files{"package-lock.json": b.lock}, DeployedBranch: "main",
	})
	build := keeper.Restore(b.t.Context(), b.scope, b.list, secrets, &b.log)
	if work != nil {
		work(p.Root)
		build.Keep(b.t.Context())
	}
	return p.Root
}

func (b *bench) write(root, path, content string) {
	b.t.Helper()
	full := filepath.Join(root, path)
	require.NoError(b.t, os.MkdirAll(filepath.Dir(full), 0o750))
	require.NoError(b.t, os.WriteFile(full, []byte(content), 0o640))
}

// install is what a package manager does.
func (b *bench) install(root string) {
	b.write(root, "source/app/node_modules/left-pad/index.js", "pad")
	b.write(root, "home/.npm/_cacache/index", "known")
	require.NoError(b.t, os.Symlink("../left-pad/index.js", filepath.Join(root, "source/app/node_modules/.bin")))
	require.NoError(b.t, os.Chmod(filepath.Join(root, "source/app/node_modules/left-pad/index.js"), 0o750))
}

// keys are those of the caches in the bucket.
func (b *bench) keys() []string {
	b.t.Helper()
	list, err := b.objects.List(b.t.Context(), "cache/")
	require.NoError(b.t, err)
	keys := make([]string, len(list))
	for n, object := range list {
		keys[n] = object.Key
	}
	return keys
}

func TestCache_ComesBackAsItWas(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.build(b.install)
	require.Contains(t, b.log.String(), "cache app/node_modules, ~/.npm: kept 8 B")
	require.Len(t, b.keys(), 1)

	root := b.build(func(string) {})
	require.Contains(t, b.log.String(), "cache app/node_modules, ~/.npm: restored 8 B in ")
	content, err := os.ReadFile(filepath.Join(root, "home/.npm/_cacache/index"))
	require.NoError(t, err)
	require.Equal(t, "known", string(content))
	info, err := os.Stat(filepath.Join(root, "source/app/node_modules/left-pad/index.js"))
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o750), info.Mode())
	link, err := os.Readlink(filepath.Join(root, "source/app/node_modules/.bin"))
	require.NoError(t, err)
	require.Equal(t, "../left-pad/index.js", link)
	require.Len(t, b.keys(), 1, "what was restored is not kept again")
	require.NotContains(t, b.log.String(), "kept")
}

func TestCache_AnotherKeyIsAnotherCache(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(b *bench){
		"lock file": func(b *bench) { b.lock = "2" },
		"image":     func(b *bench) { b.scope.Image = "node:24" },
		"paths":     func(b *bench) { b.list[0].Paths = []string{"app/node_modules"} },
		"pipeline":  func(b *bench) { b.scope.Pipeline = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.build(b.install)
			change(b)
			root := b.build(b.install)
			require.NotContains(t, b.log.String(), "restored")
			require.Contains(t, b.log.String(), "kept")
			require.DirExists(t, filepath.Join(root, "source/app/node_modules"))
			require.Len(t, b.keys(), 2)
		})
	}
}

// A branch reads what the deployed branch kept and never the other way round;
// nor does it read a third one's, and each writes to its own place only.
func TestCache_NoBranchWritesWhereAnotherReads(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(t)
		branches := []string{"main", "feature", "feature/../main", "Main", "main ", "fe\u0301ature"}
		kept := map[string]bool{}
		for range rapid.IntRange(1, 4).Draw(rt, "builds") {
			b.scope.Branch = rapid.SampledFrom(branches).Draw(rt, "branch")
			before := len(b.keys())
			b.build(func(root string) { b.write(root, "source/app/node_modules/by", b.scope.Branch) })
			shared := b.scope.Branch != "main" && kept["main"]
			require.Equal(t, kept[b.scope.Branch] || shared, strings.Contains(b.log.String(), "restored"), b.log.String())
			require.Equal(t, shared && !kept[b.scope.Branch], strings.Contains(b.log.String(), "from the branch main"))
			if !kept[b.scope.Branch] && !shared {
				require.Len(t, b.keys(), before+1)
				kept[b.scope.Branch] = true
			}
			for _, key := range b.keys() {
				owned := false
				for branch := range kept {
					owned = owned || strings.HasPrefix(key, cache.Prefix("shop", branch))
				}
				require.True(t, owned, key)
			}
		}
	})
}

func TestCache_NothingWrongWithOneFailsABuild(t *testing.T) {
	t.Parallel()
	evil := func(entries ...tar.Header) []byte {
		var out bytes.Buffer
		packed, err := zstd.NewWriter(&out)
		require.NoError(t, err)
		w := tar.NewWriter(packed)
		for _, h := range entries {
			require.NoError(t, w.WriteHeader(&h))
			_, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size)))
			require.NoError(t, err)
		}
		require.NoError(t, w.Close())
		require.NoError(t, packed.Close())
		return out.Bytes()
	}
	good := tar.Header{Name: "source/app/node_modules/a", Typeflag: tar.TypeReg, Size: 1, Mode: 0o644}
	tests := map[string][]byte{
		"no archive":          []byte("no archive at all"),
		"cut off":             evil(good, good)[:20],
		"another path":        evil(good, tar.Header{Name: "source/app/main.js", Typeflag: tar.TypeReg, Size: 1}),
		"up":                  evil(good, tar.Header{Name: "source/app/node_modules/../../../../escaped", Typeflag: tar.TypeReg, Size: 1}),
		"absolute":            evil(good, tar.Header{Name: "/tmp/escaped", Typeflag: tar.TypeReg, Size: 1}),
		"a neighbour":         evil(good, tar.Header{Name: "source/app/node_modules-2/a", Typeflag: tar.TypeReg, Size: 1}),
		"git hooks":           evil(good, tar.Header{Name: "source/.git/hooks/post-checkout", Typeflag: tar.TypeReg, Size: 1, Mode: 0o755}),
		"HOME's profile":      evil(good, tar.Header{Name: "home/.bashrc", Typeflag: tar.TypeReg, Size: 1}),
		"a device":            evil(good, tar.Header{Name: "source/app/node_modules/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}),
		"a hard link":         evil(good, tar.Header{Name: "source/app/node_modules/b", Typeflag: tar.TypeLink, Linkname: "home/x"}),
		"through a link":      evil(good, tar.Header{Name: "source/app/node_modules/out", Typeflag: tar.TypeSymlink, Linkname: "/"}, tar.Header{Name: "source/app/node_modules/out/tmp/escaped", Typeflag: tar.TypeReg, Size: 1}),
		"a file and a folder": evil(good, tar.Header{Name: "source/app/node_modules/a/b", Typeflag: tar.TypeReg, Size: 1}),
	}
	for name, content := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.build(b.install)
			key := b.keys()[0]
			_, err := b.objects.Put(t.Context(), key, bytes.NewReader(content), store.PutOptions{})
			require.NoError(t, err)
			root := b.build(b.install)
			require.Contains(t, b.log.String(), "warning: cache app/node_modules, ~/.npm is not restored: ", "it is said")
			require.NotContains(t, b.log.String(), "restored 1 B")
			require.NoFileExists(t, filepath.Join(root, "source/app/node_modules/a"), "nothing of it stays")
			require.NoFileExists(t, filepath.Join(root, "source/.git/hooks/post-checkout"))
			require.NoFileExists(t, filepath.Join(root, "home/.bashrc"))
			require.NoFileExists(t, "/tmp/escaped")
		})
	}
}

func TestCache_DamagedObjectIsNotUsed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.build(b.install)
	path := filepath.Join(b.dir, filepath.FromSlash(b.keys()[0]))
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	content[len(content)/2] ^= 1
	require.NoError(t, os.WriteFile(path, content, 0o600))
	root := b.build(func(string) {})
	require.Contains(t, b.log.String(), "is not restored: ")
	require.Contains(t, b.log.String(), store.ErrDamaged.Error())
	require.NoDirExists(t, filepath.Join(root, "source/app/node_modules"))
}

func TestCache_WhatIsInTheCommitIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.build(b.install)
	b.list[0].Paths = []string{"app", "~/.npm"}
	b.build(func(string) {})
	require.Contains(t, b.log.String(), "warning: cache app, ~/.npm is not used: app is part of the commit")
	require.Len(t, b.keys(), 1)

	b.list[0] = pipeline.Cache{Paths: []string{"~/.npm"}, Key: []string{"yarn.lock"}}
	b.build(b.install)
	require.Contains(t, b.log.String(), "the commit has no file yarn.lock, which is part of the key")
	require.Len(t, b.keys(), 1)
}

func TestCache_SecretsAreNotKept(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.build(func(root string) { b.write(root, "home/.npm/log", "token=a-secret-that-is-long") }, "a-secret-that-is-long")
	require.Contains(t, b.log.String(), `is not kept: "home/.npm/log" has the value of a secret`)
	require.Empty(t, b.keys())
	b.build(func(string) {})
	require.Contains(t, b.log.String(), "there is nothing to keep")
}

// damage changes a byte of the only cache, behind the bucket's back.
func (b *bench) damage() {
	b.t.Helper()
	path := filepath.Join(b.dir, filepath.FromSlash(b.keys()[0]))
	content, err := os.ReadFile(path)
	require.NoError(b.t, err)
	content[len(content)/2] ^= 1
	require.NoError(b.t, os.WriteFile(path, content, 0o600))
}

// What no build can restore is replaced by what the next one makes.
func TestCache_DamagedObjectIsReplaced(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(b *bench){
		"bytes": (*bench).damage,
		"no digest": func(b *bench) {
			require.NoError(b.t, os.RemoveAll(filepath.Join(b.dir, ".aphex/meta")))
		},
		"another's object": func(b *bench) {
			_, err := b.objects.Put(b.t.Context(), b.keys()[0], strings.NewReader("no archive at all"), store.PutOptions{})
			require.NoError(b.t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.build(b.install)
			damage(b)
			b.build(b.install)
			require.Contains(t, b.log.String(), "is not restored: ")
			require.Contains(t, b.log.String(), "kept 8 B in place of the damaged one in ")
			b.build(func(string) {})
			require.Contains(t, b.log.String(), "restored 8 B")
			require.Len(t, b.keys(), 1)
		})
	}
}

// Also if the deployed branch's is restored instead: the damaged one would be
// read, and warned of, by every build of the branch.
func TestCache_DamagedObjectIsReplacedByTheDeployedBranchs(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.scope.Branch = "feature"
	b.build(b.install)
	b.damage()
	b.scope.Branch = "main"
	b.build(b.install)
	b.scope.Branch = "feature"
	b.build(func(string) {})
	require.Contains(t, b.log.String(), "restored 8 B from the branch main")
	require.Contains(t, b.log.String(), "kept 8 B in place of the damaged one in ")
	b.build(func(string) {})
	require.NotContains(t, b.log.String(), "warning")
	require.NotContains(t, b.log.String(), "from the branch")
	require.Len(t, b.keys(), 2)
}

// A good one is never changed, also if it takes the place of a damaged one
// while the build is at work.
func TestCache_OneThatWasReplacedMeanwhileIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.build(b.install)
	b.damage()
	b.build(func(root string) {
		b.install(root)
		faster := &bench{t: t, objects: b.objects, dir: b.dir, scope: b.scope, lock: b.lock, list: b.list}
		faster.build(func(root string) { faster.write(root, "home/.npm/by", "the faster one") })
		require.Contains(t, faster.log.String(), "in place of the damaged one")
	})
	require.Contains(t, b.log.String(), "the damaged one has been replaced or removed meanwhile")
	root := b.build(func(string) {})
	require.FileExists(t, filepath.Join(root, "home/.npm/by"))
}

// unreachable is a bucket that cannot be read.
type unreachable struct{ *store.Dir }

func (unreachable) Get(context.Context, string) (io.ReadCloser, store.Object, error) {
	return nil, store.Object{}, errAway
}

// What could not be read may be good.
func TestCache_OneThatCouldNotBeReadStays(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.build(b.install)
	p := pod.New(t, pod.Config{})
	b.log.Reset()
	keeper := cache.New(cache.Config{Worker: p.Worker, Store: unreachable{b.objects}, Commit: files{"package-lock.json": b.lock}, DeployedBranch: "main"})
	build := keeper.Restore(t.Context(), b.scope, b.list, nil, &b.log)
	b.write(p.Root, "home/.npm/by", "another")
	build.Keep(t.Context())
	require.Contains(t, b.log.String(), "the one that could not be restored is there and stays")
	root := b.build(func(string) {})
	require.NoFileExists(t, filepath.Join(root, "home/.npm/by"))
	require.Contains(t, b.log.String(), "restored 8 B")
}

// away is a bucket that does not answer.
type away struct{}

var errAway = errors.New("nobody answers")

func (away) Put(context.Context, string, io.Reader, store.PutOptions) (store.Object, error) {
	return store.Object{}, errAway
}

func (away) Get(context.Context, string) (io.ReadCloser, store.Object, error) {
	return nil, store.Object{}, errAway
}

func TestCache_BucketThatIsAway(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := pod.New(t, pod.Config{})
	keeper := cache.New(cache.Config{Worker: p.Worker, Store: away{}, Commit: files{"package-lock.json": "1"}})
	build := keeper.Restore(t.Context(), b.scope, b.list, nil, &b.log)
	b.install(p.Root)
	build.Keep(t.Context())
	require.Contains(t, b.log.String(), "is not restored: nobody answers")
	require.Contains(t, b.log.String(), "is not kept: nobody answers")
}
