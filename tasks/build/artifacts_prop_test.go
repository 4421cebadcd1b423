package build

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// Round trip: what was uploaded can be read at its path, is the same, and its
// record tells the truth about it.
//
// Feature: aphex-pipeline, Property 4: Artifact tagging
// Feature: aphex-pipeline, Property 5: Artifact storage and retrieval
func TestUpload_RoundTrip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := time.Date(2026, 11, 24, 6, 0, 0, 123, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		// Folders have names of their own: a folder store cannot keep both
		// "a" and "a/b".
		files := rapid.MapOfN(
			rapid.StringMatching(`(d[a-z]{0,2}/){0,2}[A-CE-Za-ce-z0-9 ._+=@ä-]{1,12}x`),
			rapid.SliceOfN(rapid.Byte(), 0, 3000), 0, 4,
		).Draw(t, "files")
		commit := strings.Repeat(rapid.StringMatching(`[0-9a-f]{8}`).Draw(t, "commit"), 5)
		var tree bytes.Buffer
		w := tar.NewWriter(&tree)
		for name, content := range files {
			require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(content))}))
			_, err := w.Write(content)
			require.NoError(t, err)
		}
		require.NoError(t, w.Close())

		bucket := store.NewDir(dir)
		s := &Stage{cfg: Config{Store: bucket}, now: func() time.Time { return at }}
		list, err := s.uploadTar(t.Context(), task.Request{Commit: commit}, &tree, io.Discard)
		require.NoError(t, err)
		require.Len(t, list, len(files))
		for _, artifact := range list {
			name, found := strings.CutPrefix(artifact.S3Path, bucket.URL(commit)+"/")
			require.True(t, found)
			want, known := files[name]
			require.True(t, known, name)
			body, object, err := bucket.Get(t.Context(), commit+"/"+name)
			require.NoError(t, err)
			got, err := io.ReadAll(body)
			require.NoError(t, err)
			require.NoError(t, body.Close())
			require.True(t, bytes.Equal(want, got), name)
			sum := sha256.Sum256(got)
			require.Equal(t, "sha256:"+hex.EncodeToString(sum[:]), artifact.Checksum)
			require.Equal(t, artifact.S3Path, object.URL)
			require.Equal(t, at, artifact.Timestamp)
			tags, err := bucket.Tags(t.Context(), commit+"/"+name)
			require.NoError(t, err)
			require.Equal(t, map[string]string{"commit-sha": commit, "timestamp": "2026-11-24T06:00:00Z"}, tags)
		}
	})
}

func TestSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 4404019: "4.2 MiB", 5 << 40: "5.0 TiB", 5 << 50: "5120.0 TiB"} {
		require.Equal(t, want, size(n))
	}
}

func TestArtifactType(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"app": "binary", "win/app.exe": "binary", "fw.bin": "binary", "my-layer.zip": "lambda-layer",
		"layers/x.zip": "lambda-layer", "x.zip": "package", "layer.tar.gz": "package", "v1.2/app": "binary",
	} {
		require.Equal(t, want, artifactType(name), name)
	}
}
