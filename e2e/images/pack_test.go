package images

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"
)

// saved writes an image with a configuration as an engine saves one.
func saved(t *testing.T, dir string) string {
	t.Helper()
	image, err := random.Image(4096, 2)
	require.NoError(t, err)
	image, err = mutate.Config(image, v1.Config{User: "8737:8737", Entrypoint: []string{"/usr/local/bin/aphex"}})
	require.NoError(t, err)
	ref, err := name.NewTag("localhost/other:tag")
	require.NoError(t, err)
	path := filepath.Join(dir, "raw.tar")
	require.NoError(t, tarball.WriteToFile(path, ref, image))
	return path
}

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "aphex")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o755))
	return path
}

func layerDigests(t *testing.T, image v1.Image) []string {
	t.Helper()
	file, err := image.ConfigFile()
	require.NoError(t, err)
	var ids []string
	for _, id := range file.RootFS.DiffIDs {
		ids = append(ids, id.String())
	}
	return ids
}

func TestPack_KeepsLayersAndConfigurationUnderTheNewName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	raw := saved(t, dir)
	before, err := tarball.ImageFromPath(raw, nil)
	require.NoError(t, err)
	want := layerDigests(t, before)

	out := filepath.Join(dir, "image.tar")
	require.NoError(t, pack(raw, out, PluginTag))
	require.NoFileExists(t, raw)
	tag, err := name.NewTag(PluginTag)
	require.NoError(t, err)
	packed, err := tarball.ImageFromPath(out, &tag)
	require.NoError(t, err)
	require.Equal(t, want, layerDigests(t, packed))
	file, err := packed.ConfigFile()
	require.NoError(t, err)
	require.Equal(t, "8737:8737", file.Config.User)
	require.Equal(t, []string{"/usr/local/bin/aphex"}, file.Config.Entrypoint)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

func TestAddBinary_AddsOneLayerAndFollowsTheContent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	base := filepath.Join(dir, "image.tar")
	require.NoError(t, pack(saved(t, dir), base, PluginTag))
	out := filepath.Join(dir, "plugin")

	first, err := addBinary(base, writeFile(t, "one"), out)
	require.NoError(t, err)
	again, err := addBinary(base, writeFile(t, "one"), out)
	require.NoError(t, err)
	require.Equal(t, first, again)
	second, err := addBinary(base, writeFile(t, "two"), out)
	require.NoError(t, err)
	require.NotEqual(t, first, second)

	tag, err := name.NewTag(PluginTag)
	require.NoError(t, err)
	image, err := tarball.ImageFromPath(second, &tag)
	require.NoError(t, err)
	layers, err := image.Layers()
	require.NoError(t, err)
	require.Len(t, layers, 3)
	content, err := layers[2].Uncompressed()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, content.Close()) })
	reader := tar.NewReader(content)
	header, err := reader.Next()
	require.NoError(t, err)
	require.Equal(t, "usr/local/bin/aphex", header.Name)
	require.Equal(t, int64(0o755), header.Mode)
	require.Zero(t, header.Uid)
	var program bytes.Buffer
	_, err = io.Copy(&program, reader)
	require.NoError(t, err)
	require.Equal(t, "two", program.String())
	_, err = reader.Next()
	require.ErrorIs(t, err, io.EOF)
	file, err := image.ConfigFile()
	require.NoError(t, err)
	require.Equal(t, "8737:8737", file.Config.User)
}

func TestPrune_KeepsTheNewestAndTheRecentlyUsed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Now()
	for name, age := range map[string]time.Duration{
		"a": 0, "b": time.Minute, "c": 2 * time.Minute, "recent": 30 * time.Minute, "old": 2 * time.Hour, ".writing-x": 48 * time.Hour,
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, nil, 0o644))
		require.NoError(t, os.Chtimes(path, time.Time{}, now.Add(-age)))
	}
	require.NoError(t, prune(dir))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var left []string
	for _, entry := range entries {
		left = append(left, entry.Name())
	}
	require.Equal(t, []string{"a", "b", "c", "recent"}, left)
}

func TestAddUpdates_PutsTheSecurityArchiveBesideTheMainOne(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sources.list")
	require.NoError(t, os.WriteFile(path, []byte("deb http://archive.example/debian trixie main\n"), 0o644))
	require.NoError(t, addUpdates(path))
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, `deb http://archive.example/debian trixie main
deb http://archive.example/debian trixie-updates main
deb http://archive.example/debian-security trixie-security main
`, string(data))
	require.NoError(t, os.WriteFile(path, []byte("nonsense"), 0o644))
	require.ErrorContains(t, addUpdates(path), "nonsense")
}
