package workspace_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/git"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/internal/workspace"
)

const key = "runs/1/snapshot.tar.zst"

// pod is one agent pod: a worker with its files and a private directory.
type pod struct {
	ws      *workspace.Workspace
	worker  *worker.Client
	private string
	root    string // the worker's
	config  workspace.Config
}

func (p *pod) source(name ...string) string {
	return filepath.Join(append([]string{p.root, worker.SourceDir}, name...)...)
}

// again is the pod after its sidecar was restarted.
func (p *pod) again() *workspace.Workspace { return workspace.New(p.config) }

type objects interface {
	Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error)
	Get(ctx context.Context, key string) (io.ReadCloser, store.Object, error)
}

func newPod(t testing.TB, objects objects) *pod {
	t.Helper()
	dir, err := os.MkdirTemp("", "aphex-ws-") //nolint:usetesting // short, for the socket
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &pod{private: filepath.Join(dir, "private"), root: filepath.Join(dir, "workspace")}
	require.NoError(t, os.Mkdir(p.private, 0o700))
	require.NoError(t, os.Mkdir(p.root, 0o755))
	socket := filepath.Join(dir, "w.sock")
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() {
		served <- worker.Serve(ctx, worker.ServerConfig{Socket: socket, Root: p.root, Version: "test"})
	}()
	t.Cleanup(func() { stop(); require.NoError(t, <-served) })
	p.worker = worker.NewClient(socket)
	require.Eventually(t, func() bool { _, err := p.worker.Ping(ctx); return err == nil }, 10*time.Second, 5*time.Millisecond)
	client, err := git.New(git.Config{Home: filepath.Join(p.private, "home")})
	require.NoError(t, err)
	p.config = workspace.Config{Private: p.private, Worker: p.worker, Store: objects, Git: client}
	p.ws = workspace.New(p.config)
	return p
}

// newRepository serves a repository with one line of two commits.
func newRepository(t testing.TB) (src workspace.Source, first string) {
	t.Helper()
	server := gitserver.New(t, gitserver.Config{Filter: true})
	require.NoError(t, server.Create(t.Context(), "shop"))
	first, err := server.Commit(t.Context(), "shop", gitserver.Change{Write: map[string]string{"a": "old"}})
	require.NoError(t, err)
	commit, err := server.Commit(t.Context(), "shop", gitserver.Change{
		Write: map[string]string{
			"a": "commit a", "b": "commit b", "dir/a": "dir a", "dir/b": "dir b", "dir/dir/a": "deep",
			"run.sh": "#!/bin/sh\n", ".gitignore": "node_modules\n", "aphex-config.yaml": "version: \"1.0\"\n",
		},
		Executable: []string{"run.sh"},
	})
	require.NoError(t, err)
	return workspace.Source{RepoURL: server.URL("shop"), Commit: commit, Branch: "main"}, first
}

// describe lists everything below dir but .git, times of files included.
func describe(t require.TestingT, dir string) map[string]string {
	tree := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, full)
		if name == ".git" {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil || name == "." {
			return err
		}
		text := info.Mode().String()
		switch info.Mode().Type() {
		case fs.ModeSymlink:
			target, _ := os.Readlink(full)
			text += " -> " + target
		case 0:
			content, err := os.ReadFile(full)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %s %q", info.ModTime().UTC().Format(time.RFC3339Nano), content)
		default: // the mode says it all
		}
		tree[name] = text
		return nil
	}))
	return tree
}

func gitOutput(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1"}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return strings.TrimSpace(string(out))
}

func TestWorkspace_FromCommitToSnapshotAndBack(t *testing.T) {
	t.Parallel()
	src, first := newRepository(t)
	bucket := store.NewDir(t.TempDir())
	p := newPod(t, bucket)
	var out bytes.Buffer
	require.NoError(t, p.ws.Prepare(t.Context(), src, &out))
	content, err := p.ws.File(t.Context(), "aphex-config.yaml")
	require.NoError(t, err)
	require.Equal(t, "version: \"1.0\"\n", string(content))
	_, err = p.ws.File(t.Context(), "nope.yaml")
	require.ErrorIs(t, err, fs.ErrNotExist)
	older, err := p.ws.IsAncestor(t.Context(), first, src.Commit)
	require.NoError(t, err)
	require.True(t, older)

	require.NoError(t, os.WriteFile(p.source("left-over"), nil, 0o600))
	require.NoError(t, p.ws.Materialize(t.Context(), &out))
	require.Equal(t, src.Commit, gitOutput(t, p.source(), "rev-parse", "HEAD"))
	require.Empty(t, gitOutput(t, p.source(), "status", "--porcelain"))
	require.NoFileExists(t, p.source("left-over"))

	exit, err := p.worker.Exec(t.Context(), worker.Command{Dir: "source", Script: `
		mkdir -p node_modules/x dist && echo built > dist/app.js && echo m > node_modules/x/index.js
		ln -s ../x node_modules/x/self && rm b && echo changed > a && chmod 755 dir/a && git status`}, io.Discard)
	require.NoError(t, err)
	require.Zero(t, exit.Code, "%s", exit.Tail)
	object, err := p.ws.Snapshot(t.Context(), key, workspace.Selection{}, &out)
	require.NoError(t, err)
	require.Equal(t, key, object.Key)
	built := describe(t, p.source())

	out.Reset()
	require.NoError(t, p.ws.Reset(t.Context(), key, &out))
	require.Contains(t, out.String(), ".git made anew", "git status wrote the index")
	out.Reset()
	require.NoError(t, p.ws.Reset(t.Context(), key, &out))
	require.Contains(t, out.String(), "unchanged")

	require.NoError(t, os.RemoveAll(p.source("node_modules")))
	require.NoError(t, os.WriteFile(p.source("a"), []byte("tampere"), 0o644))
	require.NoError(t, os.WriteFile(p.source("extra"), []byte("x"), 0o644))
	require.NoError(t, os.WriteFile(p.source("dir/b"), []byte("x"), 0o644))
	out.Reset()
	require.NoError(t, p.again().Prepare(t.Context(), src, &out))
	again := p.again()
	require.NoError(t, again.Prepare(t.Context(), src, &out))
	require.NoError(t, again.Reset(t.Context(), key, &out))
	require.Equal(t, built, describe(t, p.source()))
	require.Contains(t, out.String(), "1 removed")
	require.NotContains(t, out.String(), "as a whole")

	fresh := newPod(t, bucket)
	require.NoError(t, fresh.ws.Prepare(t.Context(), src, &out))
	require.NoError(t, fresh.ws.Reset(t.Context(), key, &out))
	require.Equal(t, built, describe(t, fresh.source()))
	require.Equal(t, src.Commit, gitOutput(t, fresh.source(), "rev-parse", "HEAD"))
	require.NoError(t, os.Remove(fresh.source("dist/app.js")))
	require.NoError(t, fresh.ws.Reset(t.Context(), key, &out), "a restored pod can repair too")
	require.Equal(t, built, describe(t, fresh.source()))

	require.NoError(t, fresh.ws.Reset(t.Context(), "", &out), "without a snapshot: the commit alone")
	require.Equal(t, "commit b", readFile(t, fresh.source("b")))
	require.NoFileExists(t, fresh.source("dist/app.js"))
}

func readFile(t testing.TB, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(content)
}

func requireReason(t *testing.T, err error, reason fault.Reason) {
	t.Helper()
	f, ok := errors.AsType[*fault.Fault](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, reason, f.Reason, "%v", err)
}

func TestWorkspace_NeedsItsStepsInOrder(t *testing.T) {
	t.Parallel()
	src, _ := newRepository(t)
	p := newPod(t, store.NewDir(t.TempDir()))
	_, err := p.ws.File(t.Context(), "a")
	requireReason(t, err, fault.WorkspaceFailed)
	requireReason(t, p.ws.Materialize(t.Context(), io.Discard), fault.WorkspaceFailed)
	require.NoError(t, p.ws.Prepare(t.Context(), src, io.Discard))
	_, err = p.ws.Snapshot(t.Context(), key, workspace.Selection{}, io.Discard)
	requireReason(t, err, fault.WorkspaceFailed)
	requireReason(t, p.ws.Reset(t.Context(), key, io.Discard), fault.SnapshotInvalid)

	bad := src
	bad.Commit = "{{body.after}}"
	requireReason(t, p.ws.Prepare(t.Context(), bad, io.Discard), fault.CommitInvalid)
}

func TestReset_RefusesASnapshotThatIsNotTheOneSaved(t *testing.T) {
	t.Parallel()
	src, first := newRepository(t)
	dir := t.TempDir()
	bucket := store.NewDir(dir)
	p := newPod(t, bucket)
	require.NoError(t, p.ws.Prepare(t.Context(), src, io.Discard))
	require.NoError(t, p.ws.Materialize(t.Context(), io.Discard))
	require.NoError(t, os.WriteFile(p.source("new"), []byte("x"), 0o600))
	_, err := p.ws.Snapshot(t.Context(), key, workspace.Selection{}, io.Discard)
	require.NoError(t, err)

	other := newPod(t, bucket)
	older := src
	older.Commit = first
	require.NoError(t, other.ws.Prepare(t.Context(), older, io.Discard))
	requireReason(t, other.ws.Reset(t.Context(), key, io.Discard), fault.SnapshotInvalid)

	stored := filepath.Join(dir, filepath.FromSlash(key))
	content := []byte(readFile(t, stored))
	content[len(content)/2] ^= 1
	require.NoError(t, os.WriteFile(stored, content, 0o600))
	fresh := newPod(t, bucket)
	require.NoError(t, fresh.ws.Prepare(t.Context(), src, io.Discard))
	err = fresh.ws.Reset(t.Context(), key, io.Discard)
	requireReason(t, err, fault.SnapshotInvalid)
	require.ErrorIs(t, err, store.ErrDamaged)
	require.NoFileExists(t, fresh.source("new"))
}

func TestReset_MendsWhatCannotBeListed(t *testing.T) {
	t.Parallel()
	src, _ := newRepository(t)
	p := newPod(t, store.NewDir(t.TempDir()))
	require.NoError(t, p.ws.Prepare(t.Context(), src, io.Discard))
	require.NoError(t, p.ws.Materialize(t.Context(), io.Discard))
	require.NoError(t, os.MkdirAll(p.source("made/deep"), 0o755))
	require.NoError(t, os.WriteFile(p.source("made/deep/file"), []byte("x"), 0o600))
	require.NoError(t, os.Chmod(p.source("made"), 0o555)) // read-only for its owner, too
	_, err := p.ws.Snapshot(t.Context(), key, workspace.Selection{}, io.Discard)
	require.NoError(t, err)
	want := describe(t, p.source())

	require.NoError(t, os.Chmod(p.source("made"), 0o755))
	require.NoError(t, os.Remove(p.source("made/deep/file")))
	require.NoError(t, os.WriteFile(p.source("made/extra"), []byte("x"), 0o600))
	require.NoError(t, os.Chmod(p.source("made"), 0o555))
	require.NoError(t, os.Chmod(p.source("dir"), 0o000))
	require.NoError(t, p.ws.Reset(t.Context(), key, io.Discard))
	require.Equal(t, want, describe(t, p.source()))
	require.NoError(t, os.Chmod(p.source("made"), 0o755)) // so that it can be removed
}

// Links that lead out of the workspace are restored as they are and never
// followed, whoever put them there.
func TestReset_NeverFollowsLinks(t *testing.T) {
	t.Parallel()
	src, _ := newRepository(t)
	p := newPod(t, store.NewDir(t.TempDir()))
	outside := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "a"), []byte("intact"), 0o600))
	require.NoError(t, p.ws.Prepare(t.Context(), src, io.Discard))
	require.NoError(t, p.ws.Materialize(t.Context(), io.Discard))
	require.NoError(t, os.Symlink(outside, p.source("link")))
	_, err := p.ws.Snapshot(t.Context(), key, workspace.Selection{}, io.Discard)
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(p.source("dir")))
	require.NoError(t, os.Symlink(outside, p.source("dir")))
	require.NoError(t, os.RemoveAll(p.source(".git")))
	require.NoError(t, os.Symlink(outside, p.source(".git")))
	require.NoError(t, p.ws.Reset(t.Context(), key, io.Discard))
	require.Equal(t, "dir a", readFile(t, p.source("dir/a")))
	require.Equal(t, src.Commit, gitOutput(t, p.source(), "rev-parse", "HEAD"))
	left, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Len(t, left, 1)
	require.Equal(t, "intact", readFile(t, filepath.Join(outside, "a")))
}

func TestWorkspace_StopsWithTheContext(t *testing.T) {
	t.Parallel()
	src, _ := newRepository(t)
	p := newPod(t, store.NewDir(t.TempDir()))
	require.NoError(t, p.ws.Prepare(t.Context(), src, io.Discard))
	cause := fault.Newf(fault.Cancelled, fault.StageTimeout, "", "", "stage timeout")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	requireReason(t, p.ws.Materialize(ctx, io.Discard), fault.StageTimeout)
	requireReason(t, p.ws.Reset(ctx, key, io.Discard), fault.StageTimeout)
	require.NoError(t, p.ws.Materialize(t.Context(), io.Discard))
}

// brokenStore fails in the middle of an upload, then works.
type brokenStore struct {
	*store.Dir
	failures int
}

func (b *brokenStore) Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error) {
	if b.failures--; b.failures >= 0 {
		_, _ = io.CopyN(io.Discard, body, 10)
		return store.Object{}, fault.Newf(fault.Transient, fault.AWSUnavailable, "store", "", "away")
	}
	return b.Dir.Put(ctx, key, body, opts)
}

func TestSnapshot_CanBeTakenAgainAfterAFailure(t *testing.T) {
	t.Parallel()
	src, _ := newRepository(t)
	p := newPod(t, &brokenStore{Dir: store.NewDir(t.TempDir()), failures: 1})
	require.NoError(t, p.ws.Prepare(t.Context(), src, io.Discard))
	require.NoError(t, p.ws.Materialize(t.Context(), io.Discard))
	require.NoError(t, os.WriteFile(p.source("new"), []byte("x"), 0o600))
	_, err := p.ws.Snapshot(t.Context(), key, workspace.Selection{}, io.Discard)
	requireReason(t, err, fault.AWSUnavailable)
	requireReason(t, p.ws.Reset(t.Context(), key, io.Discard), fault.SnapshotInvalid)
	require.NoError(t, p.ws.Materialize(t.Context(), io.Discard))
	require.NoError(t, os.WriteFile(p.source("new"), []byte("x"), 0o600))
	_, err = p.ws.Snapshot(t.Context(), key, workspace.Selection{}, io.Discard)
	require.NoError(t, err)
	require.NoError(t, p.ws.Reset(t.Context(), key, io.Discard))
	require.Equal(t, "x", readFile(t, p.source("new")))
}
