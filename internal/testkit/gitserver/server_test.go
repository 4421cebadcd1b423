package gitserver_test

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

// client runs git as a user's machine without any configuration would.
func client(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(),
		"HOME="+t.TempDir(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func clientOK(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := client(t, dir, args...)
	require.NoError(t, err, out)
	return out
}

// withUser puts credentials into a clone URL.
func withUser(t *testing.T, raw, user, password string) string {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	u.User = url.UserPassword(user, password)
	return u.String()
}

func writeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	}
	return dir
}

func TestPush_ClonesWithExactlyTheFilesOfTheDirectory(t *testing.T) {
	t.Parallel()
	server := gitserver.New(t, gitserver.Config{})
	dir := writeTree(t, map[string]string{"app/main.ts": "x", ".gitignore": "*.log\n", "a.log": "kept"})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "run.sh"), []byte("#!/bin/sh\n"), 0o755))

	commit, err := server.Push(t.Context(), "team/shop", "main", dir)
	require.NoError(t, err)
	require.Regexp(t, `^[0-9a-f]{40}$`, commit)

	target := filepath.Join(t.TempDir(), "clone")
	clientOK(t, t.TempDir(), "clone", "--quiet", server.URL("team/shop"), target)
	require.Equal(t, commit, clientOK(t, target, "rev-parse", "HEAD"))
	require.Equal(t, ".gitignore\na.log\napp/main.ts\nrun.sh", clientOK(t, target, "ls-files"))
	info, err := os.Stat(filepath.Join(target, "run.sh"))
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&0o100)

	requests := server.Requests()
	require.NotEmpty(t, requests)
	require.Equal(t, http.MethodGet, requests[0].Method)
	require.Equal(t, "/team/shop.git/info/refs?service=git-upload-pack", requests[0].Path)
	require.Equal(t, "version=2", requests[0].Protocol)
}

func TestCommit_BuildsOnTheBranchAndRewritesItFromAParent(t *testing.T) {
	t.Parallel()
	server := gitserver.New(t, gitserver.Config{})
	first, err := server.Commit(t.Context(), "r", gitserver.Change{Write: map[string]string{"a": "1", "dir/b": "1"}})
	require.NoError(t, err)
	second, err := server.Commit(t.Context(), "r", gitserver.Change{
		Write: map[string]string{"c": "2", "tool": "#!"}, Delete: []string{"dir/b"}, Executable: []string{"tool"}, Message: "second",
	})
	require.NoError(t, err)
	files, err := server.Git(t.Context(), "r", "ls-tree", "-r", "--format=%(objectmode) %(path)", second)
	require.NoError(t, err)
	require.Equal(t, "100644 a\n100644 c\n100755 tool", files)

	rewritten, err := server.Commit(t.Context(), "r", gitserver.Change{Parent: first, Write: map[string]string{"d": "3"}})
	require.NoError(t, err)
	parents, err := server.Git(t.Context(), "r", "log", "--format=%H", "main")
	require.NoError(t, err)
	require.Equal(t, rewritten+"\n"+first, parents)
}

func TestCommit_SameContentInSameOrderHasTheSameID(t *testing.T) {
	t.Parallel()
	ids := make([]string, 2)
	for i := range ids {
		server := gitserver.New(t, gitserver.Config{})
		id, err := server.Commit(t.Context(), "r", gitserver.Change{Write: map[string]string{"a": "1"}})
		require.NoError(t, err)
		ids[i] = id
	}
	require.Equal(t, ids[0], ids[1])
}

func TestAuthorization(t *testing.T) {
	t.Parallel()
	server := gitserver.New(t, gitserver.Config{Username: "ci", Password: "s3cret"})
	_, err := server.Commit(t.Context(), "r", gitserver.Change{Write: map[string]string{"a": "1"}})
	require.NoError(t, err)
	tests := []struct {
		name, url, refusal string
	}{
		{name: "right password", url: withUser(t, server.URL("r"), "ci", "s3cret")},
		{name: "wrong password", url: withUser(t, server.URL("r"), "ci", "wrong"), refusal: "Authentication failed"},
		{name: "wrong user", url: withUser(t, server.URL("r"), "other", "s3cret"), refusal: "Authentication failed"},
		{name: "none", url: server.URL("r"), refusal: "could not read Username"},
		{name: "no such repository", url: withUser(t, server.URL("missing"), "ci", "s3cret"), refusal: "not found"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			out, err := client(t, t.TempDir(), "clone", "--quiet", test.url, "clone")
			if test.refusal == "" {
				require.NoError(t, err, out)
				return
			}
			require.Error(t, err)
			require.Contains(t, out, test.refusal)
		})
	}
}

func TestFilter_IsObeyedOnlyWhenAllowed(t *testing.T) {
	t.Parallel()
	for name, allowed := range map[string]bool{"allowed": true, "refused": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := gitserver.New(t, gitserver.Config{Filter: allowed})
			_, err := server.Commit(t.Context(), "r", gitserver.Change{Write: map[string]string{"a": "1"}})
			require.NoError(t, err)
			dir := filepath.Join(t.TempDir(), "clone")
			out := clientOK(t, t.TempDir(), "clone", "--no-checkout", "--filter=blob:none", server.URL("r"), dir)
			missing := clientOK(t, dir, "rev-list", "--objects", "--missing=print", "HEAD")
			require.Equal(t, allowed, strings.Contains(missing, "?"), "missing objects of a blobless clone: %s", missing)
			require.Equal(t, !allowed, strings.Contains(out, "filtering not recognized"), out)
		})
	}
}

func TestAnySHA1_IsRefusedInTheOldProtocolUnlessAllowed(t *testing.T) {
	t.Parallel()
	for name, allowed := range map[string]bool{"allowed": true, "refused": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := gitserver.New(t, gitserver.Config{AnySHA1: allowed, ProtocolV0: true})
			old, err := server.Commit(t.Context(), "r", gitserver.Change{Write: map[string]string{"a": "1"}})
			require.NoError(t, err)
			_, err = server.Commit(t.Context(), "r", gitserver.Change{Write: map[string]string{"a": "2"}})
			require.NoError(t, err)
			dir := t.TempDir()
			clientOK(t, dir, "init", "--quiet")
			out, err := client(t, dir, "fetch", "--quiet", "--depth=1", server.URL("r"), old)
			if allowed {
				require.NoError(t, err, out)
				return
			}
			require.Error(t, err)
			require.Contains(t, out, "unadvertised object")
		})
	}
}

func TestPushOverHTTP_LargerThanGitSendsInOnePiece(t *testing.T) {
	t.Parallel()
	server := gitserver.New(t, gitserver.Config{})
	require.NoError(t, server.Create(t.Context(), "r"))
	dir := t.TempDir()
	clientOK(t, dir, "init", "--quiet", "--initial-branch=main")
	noise := make([]byte, 3<<20)
	state := uint32(1)
	for i := range noise { // incompressible, so that git has to send it in chunks
		state = state*1664525 + 1013904223
		noise[i] = byte(state >> 24)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "noise"), noise, 0o644))
	clientOK(t, dir, "add", ".")
	clientOK(t, dir, "commit", "--quiet", "-m", "noise")
	clientOK(t, dir, "push", "--quiet", server.URL("r"), "main")
	head, err := server.Git(t.Context(), "r", "rev-parse", "main")
	require.NoError(t, err)
	require.Equal(t, clientOK(t, dir, "rev-parse", "HEAD"), head)
}

func TestWrap_SeesRequestsFirst(t *testing.T) {
	t.Parallel()
	server := gitserver.New(t, gitserver.Config{Wrap: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "maintenance", http.StatusServiceUnavailable)
		})
	}})
	require.NoError(t, server.Create(t.Context(), "r"))
	out, err := client(t, t.TempDir(), "clone", server.URL("r"), "clone")
	require.Error(t, err)
	require.Contains(t, out, "503")
}

func TestStart_RefusesToServeTheNetworkWithoutAPassword(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		config gitserver.Config
		want   string
	}{
		"no password":    {gitserver.Config{Address: "0.0.0.0:0", Host: "10.0.0.1"}, "without a password"},
		"no host":        {gitserver.Config{Address: ":0", Username: "u", Password: "p"}, "needs Host"},
		"not an address": {gitserver.Config{Address: "nonsense"}, "missing port"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := gitserver.Start(t.Context(), test.config)
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestStart_OnAllInterfacesShowsTheGivenHost(t *testing.T) {
	t.Parallel()
	server := gitserver.New(t, gitserver.Config{Address: "0.0.0.0:0", Host: "127.0.0.1", Username: "u", Password: "p"})
	commit, err := server.Commit(t.Context(), "r", gitserver.Change{Write: map[string]string{"a": "1"}})
	require.NoError(t, err)
	out := clientOK(t, t.TempDir(), "ls-remote", withUser(t, server.URL("r"), "u", "p"), "main")
	require.True(t, strings.HasPrefix(out, commit), out)
}

func TestCreate_RefusesNamesThatLeaveTheServer(t *testing.T) {
	t.Parallel()
	server := gitserver.New(t, gitserver.Config{})
	for _, name := range []string{"", "../x", "a//b", "/abs", "a/../b", "-x", "x.git"} {
		require.Error(t, server.Create(t.Context(), name), name)
	}
	require.NoError(t, server.Create(t.Context(), "a"))
	require.ErrorIs(t, server.Create(t.Context(), "a"), os.ErrExist)
}

func TestClose_RemovesRepositoriesAndFreesThePort(t *testing.T) {
	t.Parallel()
	server, err := gitserver.Start(t.Context(), gitserver.Config{})
	require.NoError(t, err)
	require.NoError(t, server.Create(t.Context(), "r"))
	path, address := server.Path("r"), server.Addr().String()
	require.NoError(t, server.Close())
	require.NoDirExists(t, path)
	again, err := gitserver.Start(t.Context(), gitserver.Config{Address: address})
	require.NoError(t, err)
	require.NoError(t, again.Close())
}

func TestStart_GoesOnWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	server, err := gitserver.Start(ctx, gitserver.Config{})
	require.NoError(t, err)
	cancel()
	require.NoError(t, server.Create(t.Context(), "r"))
	clientOK(t, t.TempDir(), "ls-remote", server.URL("r"))
	require.NoError(t, server.Close())
	require.True(t, strings.HasPrefix(server.URL("r"), "http://127.0.0.1:"))
}
