package workspace_test

import (
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/internal/workspace"
)

// mutate changes files as user code could: it may not follow links out of the
// folder, which is why it works through an os.Root, and nothing else.
func mutate(t *rapid.T, dir, label string) {
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer func() { _ = root.Close() }()
	part := rapid.SampledFrom([]string{"a", "b", "dir", "new", "x\xff", "run.sh", "sp ace\n"})
	drawPath := func() string {
		parts := rapid.SliceOfN(part, 1, 3).Draw(t, label+" path")
		return path.Join(parts...)
	}
	for range rapid.IntRange(0, 6).Draw(t, label+" changes") {
		name := drawPath()
		switch rapid.IntRange(0, 9).Draw(t, label+" kind") {
		case 0:
			_ = root.RemoveAll(name)
		case 1:
			_ = root.MkdirAll(name, rapid.SampledFrom([]fs.FileMode{0o755, 0o700, 0o555}).Draw(t, "mode"))
		case 2:
			_ = root.Symlink(rapid.SampledFrom([]string{"/etc", "a", "../..", "gone"}).Draw(t, "target"), name)
		case 3:
			_ = root.Chmod(name, rapid.SampledFrom([]fs.FileMode{0o755, 0o600, 0o444, 0o775}).Draw(t, "mode"))
		case 4:
			_ = root.Rename(name, drawPath())
		case 5: // the same size and time as before, which a careless comparison misses
			info, err := root.Stat(name)
			if err == nil && info.Mode().IsRegular() && root.WriteFile(name, []byte(strings.Repeat("!", int(info.Size()))), 0o600) == nil {
				_ = root.Chtimes(name, info.ModTime(), info.ModTime())
			}
		case 6:
			_ = root.RemoveAll(path.Join(".git", rapid.SampledFrom([]string{".", "index", "HEAD", "objects"}).Draw(t, "git")))
		case 7:
			_ = root.MkdirAll(".git/hooks", 0o755)
			_ = root.WriteFile(path.Join(".git", rapid.SampledFrom([]string{"config", "hooks/post-checkout"}).Draw(t, "git")), []byte("evil"), 0o755)
		default:
			_ = root.MkdirAll(path.Dir(name), 0o755)
			_ = root.WriteFile(name, rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "content"), 0o644)
		}
	}
}

// Whatever a build makes of the commit, and whatever anybody does to it later:
// Reset brings back exactly commit plus snapshot, in the same pod and in a
// fresh one.
//
// Feature: aphex-pipeline, Property 25: Commit-specific CDK code usage
func TestReset_GivesExactlyCommitPlusSnapshot(t *testing.T) {
	t.Parallel()
	src, _ := newRepository(t)
	bucket := store.NewDir(t.TempDir())
	p, fresh := newPod(t, bucket), newPod(t, bucket)
	require.NoError(t, p.ws.Prepare(t.Context(), src, io.Discard))
	require.NoError(t, fresh.ws.Prepare(t.Context(), src, io.Discard))
	rapid.Check(t, func(rt *rapid.T) {
		require.NoError(rt, p.ws.Materialize(t.Context(), io.Discard))
		repository := describe(rt, p.source(".git"))
		mutate(rt, p.source(), "build")
		_, err := p.ws.Snapshot(t.Context(), key, workspace.Selection{}, io.Discard)
		require.NoError(rt, err)
		want := describe(rt, p.source())

		mutate(rt, p.source(), "later")
		ws := p.ws
		if rapid.Bool().Draw(rt, "restarted") {
			ws = p.again()
			require.NoError(rt, ws.Prepare(t.Context(), src, io.Discard))
		}
		require.NoError(rt, ws.Reset(t.Context(), key, io.Discard))
		require.Equal(rt, want, describe(rt, p.source()))
		require.Equal(rt, repository, describe(rt, p.source(".git")))

		if rapid.IntRange(0, 3).Draw(rt, "fresh pod") > 0 {
			return // the others are enough and take half the time
		}
		emptyPod(rt, fresh)
		require.NoError(rt, fresh.ws.Reset(t.Context(), key, io.Discard))
		require.Equal(rt, want, describe(rt, fresh.source()))
		require.Equal(rt, src.Commit, gitOutput(t, fresh.source(), "rev-parse", "HEAD"))
		mutate(rt, fresh.source(), "fresh")
		require.NoError(rt, fresh.ws.Reset(t.Context(), key, io.Discard))
		require.Equal(rt, want, describe(rt, fresh.source()))
	})
}

// emptyPod makes the pod as good as new, but for its clone, which would cost
// most of the time.
func emptyPod(t *rapid.T, p *pod) {
	require.NoError(t, p.worker.WriteTree(t.Context(), worker.SourceDir, strings.NewReader(strings.Repeat("\x00", 1024)), worker.WriteOptions{Clean: true}))
	files, err := filepath.Glob(filepath.Join(p.private, "*"))
	require.NoError(t, err)
	for _, file := range files {
		if base := filepath.Base(file); base != "clone" && base != "home" {
			require.NoError(t, os.RemoveAll(file))
		}
	}
}
