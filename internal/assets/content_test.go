package assets_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/assets"
)

// An asset that goes to several places is read and packaged before the first of
// them gets it, and never again.
func TestPublish_ReadsOnceForSeveralDestinations(t *testing.T) {
	t.Parallel()
	b, dir := newBucket(t), assembly(t)
	var once sync.Once
	b.onPut = func(string) {
		once.Do(func() {
			if err := os.RemoveAll(filepath.Join(dir, "asset.site")); err != nil {
				t.Error(err)
			}
		})
	}
	var files []assets.File
	for i := range 200 { // more than are looked for at a time
		files = append(files, b.file("asset.site", fmt.Sprintf("%d.zip", i), true))
	}
	got, err := assets.New(dir, owner, nil).Publish(t.Context(), files)
	require.NoError(t, err)
	require.Equal(t, assets.Summary{Published: len(files)}, got)
	for _, f := range files {
		require.NotEmpty(t, b.objects[f.Key])
		require.Equal(t, b.objects["0.zip"], b.objects[f.Key])
	}
}

// Of several destinations only those get an asset that lack it.
func TestPublish_SomeDestinationsHaveIt(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.objects["one.json"] = bytes.Repeat([]byte("x"), 100)
	got, err := assets.New(assembly(t), owner, nil).Publish(t.Context(), []assets.File{b.file("t.json", "one.json", false), b.file("t.json", "two.json", false)})
	require.NoError(t, err)
	require.Equal(t, assets.Summary{Published: 1, Present: 1}, got)
	require.Equal(t, bytes.Repeat([]byte("x"), 100), b.objects["one.json"])
	require.Contains(t, string(b.objects["two.json"]), "Resources")
}

// gate counts what is under way, and lets nobody pass until enough came
// together, or did not for too long.
type gate struct {
	mu         sync.Mutex
	open, most int
	enough     int
	patience   time.Duration
	lift       func()
	lifted     chan struct{}
}

func newGate(enough int, patience time.Duration) *gate {
	g := &gate{enough: enough, patience: patience, lifted: make(chan struct{})}
	g.lift = sync.OnceFunc(func() { close(g.lifted) })
	return g
}

func (g *gate) pass(string) {
	g.mu.Lock()
	g.open++
	if g.most = max(g.most, g.open); g.open == g.enough {
		g.lift()
	}
	g.mu.Unlock()
	select {
	case <-g.lifted:
	case <-time.After(g.patience): // what was counted says the rest
		g.lift()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
}

// Small assets are sent many at a time.
func TestPublish_SmallAssetsGoTogether(t *testing.T) {
	t.Parallel()
	b, dir := newBucket(t), t.TempDir()
	var files []assets.File
	for i := range 40 {
		name := fmt.Sprintf("%d.txt", i)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600))
		files = append(files, b.file(name, name, false))
	}
	g := newGate(len(files), 10*time.Second)
	b.onPut = g.pass
	got, err := assets.New(dir, owner, nil).Publish(t.Context(), files)
	require.NoError(t, err)
	require.Equal(t, assets.Summary{Published: len(files)}, got)
	require.Equal(t, len(files), g.most)
}

// Large ones wait until there is memory: at most two of them are sent at a time,
// each in at most two parts at a time, whatever comes beside them.
func TestPublish_LargeAssetsTakeTurns(t *testing.T) {
	t.Parallel()
	b, dir := newBucket(t), t.TempDir()
	var files []assets.File
	for i := range 5 {
		name := fmt.Sprintf("%d.bin", i)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte{byte(i)}, 20<<20), 0o600))
		files = append(files, b.file(name, name, false))
	}
	g := newGate(5, time.Second)
	b.onPut = g.pass
	got, err := assets.New(dir, owner, nil).Publish(t.Context(), files)
	require.NoError(t, err)
	require.Equal(t, assets.Summary{Published: len(files)}, got)
	require.LessOrEqual(t, g.most, 4, "two assets, two parts of each")
	for i, f := range files {
		require.Len(t, b.objects[f.Key], 20<<20)
		require.Equal(t, 20<<20, bytes.Count(b.objects[f.Key], []byte{byte(i)}))
	}
}
