package workspace_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
	"github.com/aphex-pipeline/aphex/internal/workspace"
)

// The size of a CDK application after npm ci: 25 000 files, 250 MB.
const (
	benchFolders = 500
	benchFiles   = 50 // per folder
	benchBytes   = 10_000
)

// fill writes node_modules: text that compresses about as well as JavaScript.
func fill(b *testing.B, dir string) {
	b.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 3000)
	for i := range words {
		words[i] = fmt.Sprintf("%x ", random.Uint32()>>random.UintN(20))
	}
	content := make([]byte, 0, benchBytes+16)
	for folder := range benchFolders {
		full := filepath.Join(dir, fmt.Sprintf("package-%d", folder), "lib")
		require.NoError(b, os.MkdirAll(full, 0o755))
		for file := range benchFiles {
			content = content[:0]
			for len(content) < benchBytes {
				content = append(content, words[random.IntN(len(words))]...)
			}
			require.NoError(b, os.WriteFile(filepath.Join(full, fmt.Sprintf("file-%d.js", file)), content, 0o644))
		}
	}
}

// cpu returns the processor time used by sidecar, worker and git together. It
// says more than the wall clock on a machine that has other things to do.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var usage unix.Rusage
		require.NoError(b, unix.Getrusage(who, &usage))
		sum += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	return sum
}

func BenchmarkWorkspace(b *testing.B) {
	server := gitserver.New(b, gitserver.Config{Filter: true})
	require.NoError(b, server.Create(b.Context(), "shop"))
	files := map[string]string{}
	for i := range 1000 {
		files[fmt.Sprintf("packages/p%d/src/file%d.ts", i%50, i)] = fmt.Sprintf("export const x%d = %d;\n", i, i)
	}
	commit, err := server.Commit(b.Context(), "shop", gitserver.Change{Write: files})
	require.NoError(b, err)
	src := workspace.Source{RepoURL: server.URL("shop"), Commit: commit, Branch: "main"}
	bucket := store.NewDir(b.TempDir())
	p := newPod(b, bucket)
	modules := p.source("node_modules")
	run := func(name string, before, measured func() error) {
		b.Run(name, func(b *testing.B) {
			var spent time.Duration
			for b.Loop() {
				b.StopTimer()
				if before != nil {
					require.NoError(b, before())
				}
				start := cpu(b)
				b.StartTimer()
				require.NoError(b, measured())
				b.StopTimer()
				spent += cpu(b) - start
				b.StartTimer()
			}
			b.ReportMetric(spent.Seconds()/float64(b.N), "cpu-s/op")
		})
	}
	reset := func() error { return p.ws.Reset(b.Context(), key, io.Discard) }
	run("clone", func() error { return os.RemoveAll(filepath.Join(p.private, "clone")) }, func() error {
		return p.again().Prepare(b.Context(), src, io.Discard)
	})
	require.NoError(b, p.ws.Prepare(b.Context(), src, io.Discard))
	run("materialize", nil, func() error { return p.ws.Materialize(b.Context(), io.Discard) })
	fill(b, modules)
	run("snapshot", nil, func() error {
		_, err := p.ws.Snapshot(b.Context(), key, workspace.Selection{}, io.Discard)
		return err
	})
	run("reset, nothing changed", nil, reset)
	run("reset, 100 files changed", func() error {
		for i := range benchFiles {
			for _, name := range []string{fmt.Sprintf("package-0/lib/file-%d.js", i), fmt.Sprintf("package-499/lib/file-%d.js", i)} {
				if err := os.WriteFile(filepath.Join(modules, name), []byte("x"), 0o600); err != nil {
					return err
				}
			}
		}
		return nil
	}, reset)
	run("reset, node_modules gone", func() error { return os.RemoveAll(modules) }, reset)
	fresh := newPod(b, bucket)
	require.NoError(b, fresh.ws.Prepare(b.Context(), src, io.Discard))
	run("reset, fresh pod", func() error {
		files, err := filepath.Glob(filepath.Join(fresh.private, "*.index"))
		for _, file := range files {
			err = os.Remove(file)
		}
		return err
	}, func() error { return fresh.ws.Reset(b.Context(), key, io.Discard) })
}
