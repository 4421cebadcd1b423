package deploy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/testkit/effects"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// drifting synthesizes something else each time.
type drifting struct {
	apps
	t     *testing.T
	made  int
	under string
}

func (d *drifting) Synth(context.Context, SynthRequest, io.Writer) (string, error) {
	d.made++
	dir := filepath.Join(d.under, fmt.Sprintf("synth-%d", d.made))
	require.NoError(d.t, os.MkdirAll(filepath.Join(dir, "asset.1"), 0o750))
	require.NoError(d.t, os.WriteFile(filepath.Join(dir, "manifest.json"), []byte(`{"version": "55.0.0"}`), 0o600))
	require.NoError(d.t, os.WriteFile(filepath.Join(dir, "made.txt"), fmt.Append(nil, d.made), 0o600))
	require.NoError(d.t, os.WriteFile(filepath.Join(dir, "asset.1", "run.sh"), []byte("#!/bin/sh\n"), 0o700))
	return dir, nil
}

// pod is one life of the stage: what is private goes with it.
type pod struct {
	t       *testing.T
	bucket  *store.Dir
	journal *effects.Memory
	synth   *drifting
	private string
	log     bytes.Buffer
}

func newPod(t *testing.T) *pod {
	t.Helper()
	p := &pod{t: t, bucket: store.NewDir(t.TempDir()), journal: &effects.Memory{}, private: t.TempDir()}
	p.synth = &drifting{t: t, under: p.private}
	return p
}

func (p *pod) deployment() *deployment {
	return &deployment{
		stage:  New(Config{Workspace: &viewed{}, Synth: p.synth, Store: p.bucket, Private: p.private}),
		req:    task.Request{Run: task.Run{UID: "u1"}, Node: "n"},
		env:    task.Env{Output: &p.log, Logger: slog.New(slog.DiscardHandler), Progress: func(string) {}, Effects: p.journal},
		target: pipeline.Environment{Name: "dev"},
	}
}

// made returns which synth the assembly is of.
func (p *pod) made(d *deployment) string {
	p.t.Helper()
	built, err := d.assembly(p.t.Context(), group{app: "."})
	require.NoError(p.t, err)
	text, err := built.ReadFile("made.txt")
	require.NoError(p.t, err)
	info, err := os.Stat(filepath.Join(built.Dir, "asset.1", "run.sh"))
	require.NoError(p.t, err)
	require.Equal(p.t, os.FileMode(0o700), info.Mode().Perm(), "assets stay executable")
	return string(text)
}

func TestAssembly_NextProcessOfThePodGoesOnWithIt(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	require.Equal(t, "1", p.made(p.deployment()))
	require.Equal(t, "1", p.made(p.deployment()))
	require.Contains(t, p.log.String(), "that was made before")
}

func TestAssembly_FreshPodGoesOnWithTheStoredOne(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	first := p.deployment()
	require.Equal(t, "1", p.made(first))
	first.removeAssemblies()
	p.private = t.TempDir()
	p.synth.under = p.private
	require.Equal(t, "1", p.made(p.deployment()), "nothing is synthesized again in one execution")
	require.Equal(t, 1, p.synth.made)
}

// An app does not see what the one before it wrote, whether a process died
// between the two or not.
func TestAssembly_EachAppSeesCommitAndSnapshotAlone(t *testing.T) {
	t.Parallel()
	p, files := newPod(t), &viewed{}
	first := p.deployment()
	first.stage.cfg.Workspace = files
	for n, app := range []string{"a", "b", "c"} {
		_, err := first.assembly(t.Context(), group{app: app})
		require.NoError(t, err)
		require.Len(t, files.resets, n, "the stage begins with a view that nobody has used")
	}
	require.Equal(t, record.SnapshotKey("u1"), files.resets[0])

	files.resets = nil
	second := p.deployment()
	second.stage.cfg.Workspace = files
	for _, app := range []string{"a", "b", "c", "d", "e"} {
		_, err := second.assembly(t.Context(), group{app: app})
		require.NoError(t, err)
	}
	require.Len(t, files.resets, 1, "before the last one only: d is the first that is synthesized here")
}

func TestAssembly_IsStoredBeforeItIsAnnounced(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	p.journal.Fail = io.ErrClosedPipe
	_, err := p.deployment().assembly(t.Context(), group{app: "."})
	require.ErrorIs(t, err, io.ErrClosedPipe)
	stored, err := p.bucket.List(t.Context(), "runs/u1/assemblies/")
	require.NoError(t, err)
	require.Len(t, stored, 1)

	p.journal.Fail = nil
	require.Equal(t, "2", p.made(p.deployment()), "what was not announced was never deployed from")
}

func TestAssembly_OneThatIsGoneIsMadeAnew(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	require.Equal(t, "1", p.made(p.deployment()))
	p.private = t.TempDir()
	p.synth.under = p.private
	p.bucket = store.NewDir(t.TempDir())
	require.Equal(t, "2", p.made(p.deployment()))
	require.Contains(t, p.log.String(), "warning: the assembly of the app that was made before cannot be used")
}

func TestAssembly_EqualOnesAreStoredOnce(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	d := p.deployment()
	var keys []string
	for range 2 {
		p.synth.made = 0
		dir, err := p.synth.Synth(t.Context(), SynthRequest{}, io.Discard)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "performance-counters.json"), fmt.Append(nil, len(keys)), 0o600))
		k, err := d.keep(t.Context(), dir)
		require.NoError(t, err)
		keys = append(keys, k.Key)
		require.Equal(t, record.AssemblyKey("u1", k.SHA256), k.Key)
		require.NoError(t, os.RemoveAll(dir))
	}
	require.Equal(t, keys[0], keys[1])
}

// Whatever earlier executions of the run have synthesized, the next one makes
// its own.
//
// Feature: aphex-pipeline, Property 23: Just-in-time synthesis
func TestAssembly_EveryExecutionMakesItsOwn(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	for n := 1; n <= 3; n++ {
		p.journal = &effects.Memory{}
		require.Equal(t, strconv.Itoa(n), p.made(p.deployment()))
	}
}
