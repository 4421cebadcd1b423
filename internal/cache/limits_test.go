package cache

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/testkit/pod"
)

func TestCache_Limits(t *testing.T) {
	t.Parallel()
	list := []pipeline.Cache{{Paths: []string{"~/.npm"}, Key: []string{"aphex-config.yaml"}}}
	for name, tt := range map[string]struct {
		limit func(k *Keeper)
		text  string
	}{
		"of the object":  {func(k *Keeper) { k.stored = 100 }, "larger than a cache may be"},
		"of the files":   {func(k *Keeper) { k.content = 100 }, "its files have more than 100 B"},
		"of their count": {func(k *Keeper) { k.entries = 1 }, "more than 1 files"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := pod.New(t, pod.Config{})
			dir := filepath.Join(p.Root, "home/.npm")
			keeper := New(Config{Worker: p.Worker, Store: p.Objects, Commit: fixed{}})
			build := func(k *Keeper, keep bool) string {
				var log bytes.Buffer
				require.NoError(t, os.RemoveAll(dir))
				b := k.Restore(t.Context(), Scope{Pipeline: "shop", Branch: "main"}, list, nil, &log)
				if keep {
					require.NoError(t, os.MkdirAll(dir, 0o750))
					for _, file := range []string{"a", "b"} {
						require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(file+string(bytes.Repeat([]byte("0123456789"), 20))), 0o600))
					}
					b.Keep(t.Context())
				}
				return log.String()
			}
			small := *keeper
			tt.limit(&small)
			require.Contains(t, build(&small, true), "is not kept: ")
			require.Contains(t, build(keeper, true), "kept 402 B")
			require.Contains(t, build(&small, false), "is not restored: ")
			require.NoDirExists(t, dir)
			require.Contains(t, build(keeper, false), "restored 402 B")
		})
	}
}

type fixed struct{}

func (fixed) File(context.Context, string) ([]byte, error) { return []byte("1"), nil }
