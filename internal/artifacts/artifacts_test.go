package artifacts_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/artifacts"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
	"github.com/aphex-pipeline/aphex/internal/testkit/holes"
	"github.com/aphex-pipeline/aphex/internal/testkit/pod"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/internal/workspace"
)

func checksum(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// built is a run whose build has left files in dist, of which list was
// published.
type built struct {
	*pod.Pod
	source workspace.Source
	out    bytes.Buffer
}

func newBuilt(t *testing.T, committed map[string]string, script string, published map[string]string) *built {
	t.Helper()
	server := gitserver.New(t, gitserver.Config{Filter: true})
	commit, err := server.Commit(t.Context(), "shop", gitserver.Change{Write: committed})
	require.NoError(t, err)
	b := &built{Pod: pod.New(t, pod.Config{}), source: workspace.Source{RepoURL: server.URL("shop"), Commit: commit, Branch: "main"}}
	require.NoError(t, b.Workspace.Prepare(t.Context(), b.source, io.Discard))
	require.NoError(t, b.Workspace.Materialize(t.Context(), io.Discard))
	exit, err := b.Worker.Exec(t.Context(), worker.Command{Script: script, Dir: worker.SourceDir}, io.Discard)
	require.NoError(t, err)
	require.Zero(t, exit.Code, string(exit.Tail))
	var list []record.Artifact
	for name, content := range published {
		list = append(list, record.Artifact{Path: name, Checksum: checksum(content)})
	}
	require.NoError(t, record.New(b.Objects).PutArtifacts(t.Context(), "uid-1", commit, time.Unix(0, 0), list))
	_, err = b.Workspace.Snapshot(t.Context(), record.SnapshotKey("uid-1"), workspace.Selection{}, io.Discard)
	require.NoError(t, err)
	return b
}

// verify does what a stage in a fresh pod does.
func (b *built) verify(t *testing.T, folder string) error {
	t.Helper()
	later := pod.New(t, pod.Config{Objects: b.Objects})
	require.NoError(t, later.Workspace.Prepare(t.Context(), b.source, io.Discard))
	require.NoError(t, later.Workspace.Reset(t.Context(), record.SnapshotKey("uid-1"), io.Discard))
	return artifacts.NewVerifier(later.Worker, later.Workspace, record.New(b.Objects)).Verify(t.Context(), "uid-1", folder, &b.out)
}

func TestVerify_ThePublishedFilesAreThere(t *testing.T) {
	t.Parallel()
	b := newBuilt(t, map[string]string{"dist/kept": "old", "dist/.npmrc": "registry=x\n"},
		"mkdir dist/d; printf new > 'dist/d/a b'; printf secret > dist/.env; echo _authToken=1 > dist/.npmrc; ln -s kept dist/link",
		map[string]string{"d/a b": "new", "kept": "old", ".env": "secret", ".npmrc": "_authToken=1\n"})
	require.NoError(t, b.verify(t, "./dist/"))
	require.Regexp(t, `^artifacts: 2 verified in \S+, 1 not in the snapshot, 1 as the commit has them\n$`, b.out.String())
}

func TestVerify_OtherFilesAreNamed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		published map[string]string
		want      string
	}{
		"changed after it was published": {map[string]string{"app": "other"}, `"dist/app" has ` + checksum("app") + ", but published was " + checksum("other")},
		"made after all was published":   {nil, `"dist/app" has ` + checksum("app") + ", but it was not published"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBuilt(t, map[string]string{"x": ""}, "mkdir dist; printf app > dist/app", tt.published)
			err := b.verify(t, "dist")
			require.ErrorIs(t, err, &fault.Fault{Reason: fault.SnapshotInvalid})
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestVerify_WithoutAFolderThereIsNothingToDo(t *testing.T) {
	t.Parallel()
	b := newBuilt(t, map[string]string{"x": "", "file": ""}, "true", nil)
	for _, folder := range []string{"dist", "file", "file/dist"} {
		require.NoError(t, b.verify(t, folder))
	}
	require.Empty(t, b.out.String())
}

// scripted is a worker's folder that no worker is needed for.
type scripted map[string]string

func (s scripted) Stat(_ context.Context, paths []string) ([]worker.Entry, error) {
	return []worker.Entry{{Path: paths[0], Mode: fs.ModeDir | 0o755}}, nil
}

func (s scripted) ReadTree(context.Context, string, []string) (io.ReadCloser, error) {
	var tree bytes.Buffer
	w := tar.NewWriter(&tree)
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(s[name])), Format: tar.FormatPAX}); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, s[name]); err != nil {
			return nil, err
		}
	}
	return io.NopCloser(&tree), w.Close()
}

func (s scripted) File(_ context.Context, name string) ([]byte, error) {
	return nil, fs.ErrNotExist
}

// TestVerify_AnyDifferenceIsMet: whatever is in the folder, it passes as it was
// published, and not with one bit changed anywhere.
func TestVerify_AnyDifferenceIsMet(t *testing.T) {
	t.Parallel()
	lists := record.New(store.NewDir(t.TempDir()))
	rapid.Check(t, func(t *rapid.T) {
		files := scripted(rapid.MapOfN(
			rapid.StringMatching(`[a-zA-Z0-9 ._+ä'"-]{1,12}x`), rapid.StringOfN(rapid.Rune(), 1, 50, -1), 1, 4,
		).Draw(t, "files"))
		var list []record.Artifact
		for name, content := range files {
			list = append(list, record.Artifact{Path: name, Checksum: checksum(content)})
		}
		require.NoError(t, lists.PutArtifacts(t.Context(), "u1", "c1", time.Unix(0, 0), list))
		v := artifacts.NewVerifier(files, files, lists)
		require.NoError(t, v.Verify(t.Context(), "u1", "dist", io.Discard))

		name := rapid.SampledFrom(slices.Sorted(maps.Keys(files))).Draw(t, "changed")
		content := []byte(files[name])
		content[rapid.IntRange(0, len(content)-1).Draw(t, "at")] ^= byte(1 << rapid.IntRange(0, 7).Draw(t, "bit"))
		files[name] = string(content)
		err := v.Verify(t.Context(), "u1", "dist", io.Discard)
		require.ErrorIs(t, err, &fault.Fault{Reason: fault.SnapshotInvalid})
		require.ErrorContains(t, err, strconv.Quote(path.Join("dist", name)))
	})
}

// holed is a worker that sends little and means a lot.
type holed struct {
	scripted

	tree []byte
}

func (h holed) ReadTree(context.Context, string, []string) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(h.tree)), nil
}

func TestVerify_RefusesFilesWithHoles(t *testing.T) {
	t.Parallel()
	lists := record.New(store.NewDir(t.TempDir()))
	require.NoError(t, lists.PutArtifacts(t.Context(), "u1", "c1", time.Unix(0, 0), nil))
	err := artifacts.NewVerifier(holed{tree: holes.Archive(t)}, scripted{}, lists).Verify(t.Context(), "u1", "dist", io.Discard)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.SnapshotInvalid})
	require.ErrorContains(t, err, `"big" was sent with holes`)
}

func TestFolder(t *testing.T) {
	t.Parallel()
	require.Equal(t, "/workspace/source/out/dist", artifacts.Folder("/workspace", "./out/dist/"))
}
