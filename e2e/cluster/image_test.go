package cluster

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"
)

func TestPack_WritesADockerArchiveWithTheProgram(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "p")
	require.NoError(t, os.WriteFile(program, []byte("binary"), 0o755))
	out := filepath.Join(t.TempDir(), "image.tar")
	require.NoError(t, packedImage{tag: "example.test/p:v1", program: program, path: "bin/p", user: "8737"}.pack(out))

	image, err := tarball.ImageFromPath(out, nil)
	require.NoError(t, err)
	config, err := image.ConfigFile()
	require.NoError(t, err)
	require.Equal(t, []string{"/bin/p"}, config.Config.Entrypoint)
	require.Equal(t, "8737", config.Config.User)
	require.Equal(t, "linux", config.OS)
	layers, err := image.Layers()
	require.NoError(t, err)
	require.Len(t, layers, 1)
	name, err := indexName(out)
	require.NoError(t, err)
	require.Empty(t, name, "a docker archive names its images itself")
}

func TestIndexName_OfArchives(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		files map[string]string
		want  string
		err   string
	}{
		{"short name", map[string]string{"index.json": `{"manifests":[{"annotations":{"org.opencontainers.image.ref.name":"aphex/worker:dev"}}]}`}, "docker.io/aphex/worker:dev", ""},
		{"name with registry", map[string]string{"./index.json": `{"manifests":[{"annotations":{"org.opencontainers.image.ref.name":"quay.io/a/b:1"}}]}`}, "quay.io/a/b:1", ""},
		{"one word", map[string]string{"index.json": `{"manifests":[{"annotations":{"io.containerd.image.name":"busybox:1"}}]}`}, "docker.io/library/busybox:1", ""},
		{"built by buildah", map[string]string{"index.json": `{"manifests":[{"annotations":{"org.opencontainers.image.ref.name":"localhost/w:dev"}}]}`}, "localhost/w:dev", ""},
		{"a tag alone", map[string]string{"index.json": `{"manifests":[{"annotations":{"org.opencontainers.image.ref.name":"latest"}}]}`}, "", "names no image"},
		{"neither", map[string]string{"x": ""}, "", "neither a docker archive"},
		{"no json", map[string]string{"index.json": "<"}, "", "index.json"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var archive bytes.Buffer
			w := tar.NewWriter(&archive)
			for name, data := range tt.files {
				require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}))
				_, err := w.Write([]byte(data))
				require.NoError(t, err)
			}
			require.NoError(t, w.Close())
			path := filepath.Join(t.TempDir(), "a.tar")
			require.NoError(t, os.WriteFile(path, archive.Bytes(), 0o644))
			got, err := indexName(path)
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
}
