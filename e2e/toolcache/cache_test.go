package toolcache_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/e2e/toolcache"
)

// counted is a recipe that counts its builds and copies the module's main.go
// to a program.
func counted(builds *atomic.Int32) toolcache.Recipe {
	return toolcache.Recipe{
		Name:   "sample",
		Module: fstest.MapFS{"main.go": {Data: []byte("package main")}, "sub/go.sum": {Data: []byte("sum")}},
		Inputs: []string{"go1.26", "-trimpath"},
		Build: func(_ context.Context, module, out string, _ io.Writer) error {
			builds.Add(1)
			data, err := os.ReadFile(filepath.Join(module, "main.go"))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(out, "program"), data, 0o755); err != nil {
				return err
			}
			return os.Symlink("program", filepath.Join(out, "alias"))
		},
	}
}

func TestGet_BuildsOnceAndThenTrustsTheSums(t *testing.T) {
	t.Parallel()
	var builds atomic.Int32
	cache := toolcache.New(t.TempDir(), nil)
	first, err := cache.Get(t.Context(), counted(&builds))
	require.NoError(t, err)
	second, err := cache.Get(t.Context(), counted(&builds))
	require.NoError(t, err)
	require.Equal(t, first, second)
	require.EqualValues(t, 1, builds.Load())
	data, err := os.ReadFile(filepath.Join(first, "alias"))
	require.NoError(t, err)
	require.Equal(t, "package main", string(data))
	leftovers, err := filepath.Glob(first + ".tmp*")
	require.NoError(t, err)
	require.Empty(t, leftovers)
}

func TestGet_RebuildsWhatIsDamaged(t *testing.T) {
	t.Parallel()
	damages := map[string]func(t *testing.T, entry string){
		"a byte differs": func(t *testing.T, entry string) {
			require.NoError(t, os.WriteFile(filepath.Join(entry, "program"), []byte("package evil"), 0o755))
		},
		"a file is cut": func(t *testing.T, entry string) {
			require.NoError(t, os.Truncate(filepath.Join(entry, "program"), 3))
		},
		"a file is missing": func(t *testing.T, entry string) {
			require.NoError(t, os.Remove(filepath.Join(entry, "program")))
		},
		"a file is not executable": func(t *testing.T, entry string) {
			require.NoError(t, os.Chmod(filepath.Join(entry, "program"), 0o644))
		},
		"a file is too many": func(t *testing.T, entry string) {
			require.NoError(t, os.WriteFile(filepath.Join(entry, "extra"), nil, 0o644))
		},
		"a link points elsewhere": func(t *testing.T, entry string) {
			require.NoError(t, os.Remove(filepath.Join(entry, "alias")))
			require.NoError(t, os.Symlink("/bin/true", filepath.Join(entry, "alias")))
		},
		"the list is missing": func(t *testing.T, entry string) {
			require.NoError(t, os.Remove(filepath.Join(entry, toolcache.SumsFile)))
		},
		"the list is empty": func(t *testing.T, entry string) {
			require.NoError(t, os.Truncate(filepath.Join(entry, toolcache.SumsFile), 0))
		},
		"the list is cut": func(t *testing.T, entry string) {
			require.NoError(t, os.Truncate(filepath.Join(entry, toolcache.SumsFile), 40))
		},
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var builds atomic.Int32
			var log bytes.Buffer
			cache := toolcache.New(t.TempDir(), &log)
			entry, err := cache.Get(t.Context(), counted(&builds))
			require.NoError(t, err)
			damage(t, entry)
			require.ErrorIs(t, toolcache.Verify(entry), toolcache.ErrDamaged)
			_, err = cache.Get(t.Context(), counted(&builds))
			require.NoError(t, err)
			require.EqualValues(t, 2, builds.Load())
			require.Contains(t, log.String(), "not usable")
			require.NoError(t, toolcache.Verify(entry))
		})
	}
}

func TestGet_AFailedBuildLeavesNothing(t *testing.T) {
	t.Parallel()
	broken := errors.New("compiler says no")
	dir := t.TempDir()
	r := counted(new(atomic.Int32))
	good := r.Build
	r.Build = func(ctx context.Context, module, out string, log io.Writer) error {
		return errors.Join(good(ctx, module, out, log), broken)
	}
	_, err := toolcache.New(dir, nil).Get(t.Context(), r)
	require.ErrorIs(t, err, broken)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		require.True(t, strings.HasSuffix(e.Name(), ".lock"), e.Name())
	}
}

func TestGet_ManyAtOnceBuildOnce(t *testing.T) {
	t.Parallel()
	var builds atomic.Int32
	dir := t.TempDir()
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			// A cache each, as different processes have.
			_, err := toolcache.New(dir, nil).Get(t.Context(), counted(&builds))
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	require.EqualValues(t, 1, builds.Load())
}

func TestGet_AKilledBuildIsNotTrusted(t *testing.T) {
	t.Parallel()
	var builds atomic.Int32
	dir := t.TempDir()
	key, err := toolcache.Key(counted(&builds))
	require.NoError(t, err)
	half := filepath.Join(dir, key+".tmp", "out")
	require.NoError(t, os.MkdirAll(half, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(half, "half"), nil, 0o644))
	entry, err := toolcache.New(dir, nil).Get(t.Context(), counted(&builds))
	require.NoError(t, err)
	require.NoFileExists(t, filepath.Join(entry, "half"))
	require.NoDirExists(t, filepath.Join(dir, key+".tmp"))
}

// The key is a function of name, inputs and files alone, and any change of
// one of them changes it, shifts of text between neighbours included.
func TestKey_DependsOnEveryInput(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[a-z]{0,3}`)
		draw := func(label string) toolcache.Recipe {
			files := fstest.MapFS{}
			for name, data := range rapid.MapOfN(rapid.StringMatching(`[a-z]{1,2}`), word, 1, 3).Draw(t, label+" files") {
				files[name] = &fstest.MapFile{Data: []byte(data)}
			}
			return toolcache.Recipe{
				Name: word.Draw(t, label+" name"), Module: files, Inputs: rapid.SliceOfN(word, 0, 3).Draw(t, label+" inputs"),
			}
		}
		a, b := draw("a"), draw("b")
		keyA, err := toolcache.Key(a)
		require.NoError(t, err)
		again, err := toolcache.Key(a)
		require.NoError(t, err)
		require.Equal(t, keyA, again)
		keyB, err := toolcache.Key(b)
		require.NoError(t, err)
		require.Equal(t, same(t, a, b), keyA == keyB)
	})
}

func same(t *rapid.T, a, b toolcache.Recipe) bool {
	filesA, ok := a.Module.(fstest.MapFS)
	require.True(t, ok)
	filesB, ok := b.Module.(fstest.MapFS)
	require.True(t, ok)
	if a.Name != b.Name || len(filesA) != len(filesB) || len(a.Inputs) != len(b.Inputs) {
		return false
	}
	for i := range a.Inputs {
		if a.Inputs[i] != b.Inputs[i] {
			return false
		}
	}
	for name, file := range filesA {
		if other, ok := filesB[name]; !ok || !bytes.Equal(other.Data, file.Data) {
			return false
		}
	}
	return true
}
