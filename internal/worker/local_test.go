package worker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

func newLocal(t *testing.T, environ ...string) (local *worker.Local, source, root string) {
	t.Helper()
	source, root = t.TempDir(), filepath.Join(t.TempDir(), "root")
	local, err := worker.NewLocal(source, root, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + source}, environ...))
	require.NoError(t, err)
	return local, source, root
}

func TestLocal_CommandsSeeTheCheckoutAndNoCredentials(t *testing.T) {
	t.Parallel()
	local, source, root := newLocal(t, "AWS_SECRET_ACCESS_KEY=hush", "AWS_PROFILE=prod", "NVM_DIR=/opt/nvm")
	require.NoError(t, os.MkdirAll(filepath.Join(source, "app"), 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(source, "app", "file"), []byte("hello"), 0o600))
	var out bytes.Buffer
	exit, err := local.Exec(t.Context(), worker.Command{
		Argv: []string{"sh", "-c", `cat file; cat "$ROOT/source/app/file"; env; exit 3`}, Dir: "source/app", Env: map[string]string{"ROOT": root, "GIVEN": "1"},
	}, &out)
	require.NoError(t, err)
	require.Equal(t, 3, exit.Code)
	require.Contains(t, out.String(), "hellohello", "also by the path below the root")
	require.Equal(t, out.String(), string(exit.Tail))
	require.NotContains(t, out.String(), "hush")
	require.NotContains(t, out.String(), "AWS_PROFILE")
	for _, line := range []string{"HOME=" + source, "NVM_DIR=/opt/nvm", "GIVEN=1", "PWD=" + filepath.Join(source, "app"), "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null"} {
		require.Contains(t, strings.Split(out.String(), "\n"), line)
	}

	_, err = local.Exec(t.Context(), worker.Command{Argv: []string{"no-such-program"}, Dir: "source"}, io.Discard)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.ToolMissing})
	_, err = local.Exec(t.Context(), worker.Command{Argv: []string{"sh", "-c", "true"}, Dir: "source/gone"}, io.Discard)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.DirectoryMissing})
}

func TestLocal_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	local, _, _ := newLocal(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	reader, writer := io.Pipe()
	go func() {
		_, _ = io.ReadFull(reader, make([]byte, 2))
		cancel(enough)
		_, _ = io.Copy(io.Discard, reader)
	}()
	_, err := local.Exec(ctx, worker.Command{Argv: []string{"sh", "-c", "echo on; read never </dev/zero"}, Dir: "source"}, writer)
	require.ErrorIs(t, err, enough)
	require.NoError(t, writer.Close())
}

func TestLocal_FilesAreThoseOfCheckoutAndScratch(t *testing.T) {
	t.Parallel()
	local, source, root := newLocal(t)
	var tree bytes.Buffer
	w := tar.NewWriter(&tree)
	require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "a.json", Mode: 0o644, Size: 2}))
	_, err := w.Write([]byte("{}"))
	require.NoError(t, errors.Join(err, w.Close()))
	archive := tree.Bytes()
	for dir, folder := range map[string]string{"source/app": filepath.Join(source, "app"), "out/x": filepath.Join(root, "out", "x")} {
		require.NoError(t, local.WriteTree(t.Context(), dir, bytes.NewReader(archive), worker.WriteOptions{}))
		require.FileExists(t, filepath.Join(folder, "a.json"))
		entries, err := local.Stat(t.Context(), []string{dir + "/a.json", dir + "/b.json"})
		require.NoError(t, err)
		require.Len(t, entries, 1)
		require.Equal(t, dir+"/a.json", entries[0].Path)
		stream, err := local.ReadTree(t.Context(), dir, []string{"a.json"})
		require.NoError(t, err)
		read := tar.NewReader(stream)
		header, err := read.Next()
		require.NoError(t, err)
		require.Equal(t, "a.json", header.Name)
		require.NoError(t, stream.Close())
		require.NoError(t, local.Remove(t.Context(), dir, []string{"a.json"}))
		require.NoFileExists(t, filepath.Join(folder, "a.json"))
	}
	stream, err := local.ReadTree(t.Context(), "source/missing", nil)
	require.NoError(t, err)
	_, err = io.ReadAll(stream)
	require.Error(t, err)
}
