package outputs_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/outputs"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

func TestBefore_OwnAppAndTheConfigurationsOrder(t *testing.T) {
	t.Parallel()
	cfg := &pipeline.Config{Environments: []pipeline.Environment{{Name: "zz"}, {Name: "aa"}, {Name: "mm"}}}
	require.Equal(t, []string{"pipeline"}, outputs.Before(cfg, "zz"))
	require.Equal(t, []string{"pipeline", "zz", "aa"}, outputs.Before(cfg, "mm"))
}

// bench is a bucket and a worker.
type bench struct {
	bucket *store.Dir
	root   string
	writer *outputs.Writer
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{bucket: store.NewDir(t.TempDir()), root: t.TempDir()}
	files, err := worker.NewLocal(t.TempDir(), b.root, nil)
	require.NoError(t, err)
	b.writer = outputs.NewWriter(b.bucket, files)
	return b
}

func (b *bench) put(t *testing.T, environment string, document io.Reader) {
	t.Helper()
	_, err := b.bucket.Put(t.Context(), record.OutputsKey("u1", environment), document, store.PutOptions{})
	require.NoError(t, err)
}

func TestWrite_LeavesNothingElseInTheFolder(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	dir := filepath.Join(b.root, "out", "deploy-prod")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "gone.json"), 0o700))
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(dir, "dev.json")))
	b.put(t, "dev", strings.NewReader("{ }"))
	documents, err := b.writer.Write(t.Context(), "u1", []string{"pipeline", "dev", "stage"}, "out/deploy-prod")
	require.NoError(t, err)
	require.Equal(t, map[string][]byte{"dev": []byte("{ }")}, documents)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.True(t, entries[0].Type().IsRegular())
	content, err := os.ReadFile(filepath.Join(dir, "dev.json"))
	require.NoError(t, err)
	require.Equal(t, "{ }", string(content), "byte for byte")
}

func TestWrite_DocumentsAreBounded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const limit = 16 << 20
	b.put(t, "dev", strings.NewReader(strings.Repeat(" ", limit)))
	documents, err := b.writer.Write(t.Context(), "u1", []string{"dev"}, "out/x")
	require.NoError(t, err)
	require.Len(t, documents["dev"], limit)

	b.put(t, "stage", strings.NewReader(strings.Repeat(" ", limit+1)))
	_, err = b.writer.Write(t.Context(), "u1", []string{"dev", "stage"}, "out/x")
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StoreFailed})
	require.ErrorContains(t, err, "read the stack outputs of stage")
	require.ErrorContains(t, err, "more than 16777216 bytes")
}

// An object that cannot be trusted is not taken for one that is not there.
func TestWrite_DamagedDocumentIsAnError(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.put(t, "dev", strings.NewReader("{}"))
	require.NoError(t, os.WriteFile(strings.TrimPrefix(b.bucket.URL(record.OutputsKey("u1", "dev")), "file://"), []byte("[]"), 0o600))
	_, err := b.writer.Write(t.Context(), "u1", []string{"dev"}, "out/x")
	require.ErrorIs(t, err, store.ErrDamaged)
}
