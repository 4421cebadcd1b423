package deploy

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/outputs"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// Whatever the outputs of environments are, and whichever of them a run has
// deployed, each later one is given exactly those of the deployed ones before
// it, unchanged.
//
// Feature: aphex-pipeline, Property 24: Stage output propagation
func TestOutputs_LaterEnvironmentsHaveThoseOfEarlierOnes(t *testing.T) {
	t.Parallel()
	bucket, root, source, runs := store.NewDir(t.TempDir()), t.TempDir(), t.TempDir(), 0
	files, err := worker.NewLocal(source, root, nil)
	require.NoError(t, err)
	s := New(Config{Store: bucket, Outputs: outputs.NewWriter(bucket, files)})
	rapid.Check(t, func(t *rapid.T) {
		runs++
		text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"<a>&b", "\u2028", `"`, "007", "$(id)", "\x00"}))
		name := rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?`).Filter(func(s string) bool { return s != pipeline.Own })
		names := rapid.SliceOfNDistinct(name, 1, 5, rapid.ID).Draw(t, "environments")
		cfg := &pipeline.Config{}
		for _, name := range names {
			cfg.Environments = append(cfg.Environments, pipeline.Environment{Name: name})
		}
		deployed := map[string]map[string]map[string]string{}
		on := func(environment string) *deployment {
			return &deployment{
				stage: s, req: task.Request{Run: task.Run{UID: fmt.Sprintf("uid-%d", runs)}, Predecessor: "uid-0"},
				env:    task.Env{Output: io.Discard, Logger: slog.New(slog.DiscardHandler)},
				target: pipeline.Environment{Name: environment}, earlier: outputs.Before(cfg, environment),
			}
		}
		for _, environment := range append([]string{pipeline.Own}, names...) {
			if rapid.Bool().Draw(t, "passed over") {
				continue
			}
			d := on(environment)
			d.outputs = rapid.MapOfN(text, rapid.MapOfN(text, text, 0, 4), 0, 4).Draw(t, "outputs")
			_, _, err := d.storeOutputs(t.Context())
			require.NoError(t, err)
			deployed[environment] = d.outputs
		}
		for i, environment := range names {
			dir, err := on(environment).earlierOutputs(t.Context())
			require.NoError(t, err)
			want := map[string]map[string]map[string]string{}
			for _, earlier := range append([]string{pipeline.Own}, names[:i]...) {
				if document, ok := deployed[earlier]; ok {
					want[earlier+".json"] = document
				}
			}
			require.Equal(t, want, folder(t, filepath.Join(root, dir)), "%s after %v", environment, slices.Concat([]string{pipeline.Own}, names[:i]))
		}
	})
	entries, err := os.ReadDir(source)
	require.NoError(t, err)
	require.Empty(t, entries, "the source tree is not touched")
}

// folder reads the documents of a folder by file name.
func folder(t require.TestingT, dir string) map[string]map[string]map[string]string {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	got := map[string]map[string]map[string]string{}
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		require.NoError(t, err)
		var document map[string]map[string]string
		require.NoError(t, json.Unmarshal(content, &document))
		got[entry.Name()] = document
	}
	return got
}
