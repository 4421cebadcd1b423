package git_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/git"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

const password = "s3cret-p@ss/word"

func newClient(t *testing.T, cfg git.Config) *git.Client {
	t.Helper()
	if cfg.Home == "" {
		cfg.Home = filepath.Join(t.TempDir(), "home")
	}
	client, err := git.New(cfg)
	require.NoError(t, err)
	return client
}

func secretDir(t *testing.T, user, pass string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "username"), []byte(user+"\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "password"), []byte(pass+"\n"), 0o600))
	return dir
}

// shop is a repository with a line of three commits and one beside it.
type shop struct {
	server             *gitserver.Server
	url                string
	first, second, tip string
	side               string
}

func newShop(t *testing.T, cfg gitserver.Config) shop {
	t.Helper()
	s := shop{server: gitserver.New(t, cfg)}
	require.NoError(t, s.server.Create(t.Context(), "team/shop"))
	s.url = s.server.URL("team/shop")
	commit := func(change gitserver.Change) string {
		id, err := s.server.Commit(t.Context(), "team/shop", change)
		require.NoError(t, err)
		return id
	}
	s.first = commit(gitserver.Change{Write: map[string]string{"a.txt": "1", "old.txt": "old", "dir/run.sh": "#!/bin/sh\n"}, Executable: []string{"dir/run.sh"}})
	s.second = commit(gitserver.Change{Write: map[string]string{"a.txt": "2"}, Delete: []string{"old.txt"}})
	s.tip = commit(gitserver.Change{Write: map[string]string{"a.txt": "3", "new/deep/file": strings.Repeat("x", 5000)}})
	s.side = commit(gitserver.Change{Branch: "feature/side", Parent: s.first, Write: map[string]string{"side": "s"}})
	return s
}

func requireReason(t *testing.T, err error, reason fault.Reason, texts ...string) {
	t.Helper()
	f, ok := errors.AsType[*fault.Fault](err)
	require.True(t, ok, "%v is no fault", err)
	require.Equal(t, reason, f.Reason, "%v", err)
	for _, text := range texts {
		require.Contains(t, fault.Message(err), text)
	}
	require.NotContains(t, fault.Message(err), password)
}

// Feature: aphex-pipeline, Property 2: Repository cloning at specific commit
func TestClone_TakesExactlyTheCommitFromEveryKindOfServer(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]gitserver.Config{
		"partial clones":         {Filter: true},
		"full clones only":       {},
		"old protocol":           {ProtocolV0: true},
		"old protocol, any id":   {ProtocolV0: true, AnySHA1: true},
		"old protocol, partial":  {ProtocolV0: true, Filter: true, AnySHA1: true},
		"password":               {Username: "bot", Password: password, Filter: true},
		"password, old protocol": {Username: "bot", Password: password, ProtocolV0: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, cfg)
			client := newClient(t, git.Config{Credentials: secretDir(t, "bot", password)})
			dir, dst := filepath.Join(t.TempDir(), "clone"), filepath.Join(t.TempDir(), "dst")
			require.NoError(t, client.Clone(t.Context(), dir, s.url, s.second))
			require.NoError(t, client.Checkout(t.Context(), dir, s.second, "main", dst))
			require.Equal(t, map[string]string{"a.txt": "2", "dir/run.sh": "#!/bin/sh\n"}, filesOf(t, dst))
			info, err := os.Stat(filepath.Join(dst, "dir/run.sh"))
			require.NoError(t, err)
			require.NotZero(t, info.Mode()&0o100)

			content, err := client.Show(t.Context(), dir, s.second, "a.txt", 100)
			require.NoError(t, err)
			require.Equal(t, "2", string(content))
			older, err := client.IsAncestor(t.Context(), dir, s.second, s.tip)
			require.NoError(t, err)
			require.True(t, older)
			requireNoSecret(t, dir, dst)
		})
	}
}

func filesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && d.Name() == ".git" {
				return fs.SkipDir
			}
			return err
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[name] = string(content)
		return err
	}))
	return files
}

func requireNoSecret(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			content, err := os.ReadFile(path)
			require.False(t, bytes.Contains(content, []byte(password)), "%s holds the password", path)
			return err
		}))
	}
}

func TestClone_AgainFetchesOnlyWhatIsMissing(t *testing.T) {
	t.Parallel()
	s := newShop(t, gitserver.Config{Filter: true})
	client := newClient(t, git.Config{})
	dir := filepath.Join(t.TempDir(), "clone")
	require.NoError(t, client.Clone(t.Context(), dir, s.url, s.tip))
	before := len(s.server.Requests())
	require.NoError(t, client.Clone(t.Context(), dir, s.url, s.tip))
	require.NoError(t, client.Clone(t.Context(), dir, s.url, s.first), "an ancestor came along")
	require.Len(t, s.server.Requests(), before)
	require.NoError(t, client.Clone(t.Context(), dir, s.url, s.side))
	require.Greater(t, len(s.server.Requests()), before)

	lock := filepath.Join(dir, "refs", "aphex", s.second+".lock")
	require.NoError(t, os.WriteFile(lock, nil, 0o600))
	require.NoError(t, client.Clone(t.Context(), dir, s.url, s.second))
	require.NoFileExists(t, lock, "left by a git that was killed")

	other := newShop(t, gitserver.Config{})
	require.NoError(t, client.Clone(t.Context(), dir, other.url, other.tip), "another repository replaces it")
	require.NoError(t, os.Remove(filepath.Join(dir, "HEAD")))
	require.NoError(t, os.Remove(filepath.Join(dir, "aphex-clone.json")), "as if killed while it was made")
	require.NoError(t, client.Clone(t.Context(), dir, other.url, other.tip))
}

func TestCheckout_FetchesMissingFilesInOneGo(t *testing.T) {
	t.Parallel()
	s := newShop(t, gitserver.Config{Filter: true})
	files := map[string]string{}
	for name := range strings.SplitSeq("abcdefghijklmnopqrst", "") {
		files["many/"+name] = "content of " + name
	}
	id, err := s.server.Commit(t.Context(), "team/shop", gitserver.Change{Write: files})
	require.NoError(t, err)
	client := newClient(t, git.Config{})
	dir := filepath.Join(t.TempDir(), "clone")
	require.NoError(t, client.Clone(t.Context(), dir, s.url, id))
	before := len(s.server.Requests())
	require.NoError(t, client.Checkout(t.Context(), dir, id, "main", filepath.Join(t.TempDir(), "dst")))
	require.LessOrEqual(t, len(s.server.Requests())-before, 4)
}

func TestCheckout_TriesAgainWhenTheServerBreaksOff(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	s := newShop(t, gitserver.Config{Filter: true, Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if broken.CompareAndSwap(true, false) {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	client := newClient(t, git.Config{})
	dir, dst := filepath.Join(t.TempDir(), "clone"), filepath.Join(t.TempDir(), "dst")
	broken.Store(true)
	require.NoError(t, client.Clone(t.Context(), dir, s.url, s.tip))
	require.False(t, broken.Load())
	broken.Store(true)
	require.NoError(t, client.Checkout(t.Context(), dir, s.tip, "main", dst))
	require.False(t, broken.Load())
	require.Equal(t, "3", filesOf(t, dst)["a.txt"])
}

func TestCheckout_IsARepositoryOfItsOwn(t *testing.T) {
	t.Parallel()
	s := newShop(t, gitserver.Config{Filter: true, Username: "bot", Password: password})
	client := newClient(t, git.Config{Credentials: secretDir(t, "bot", password)})
	dir, dst := filepath.Join(t.TempDir(), "clone"), filepath.Join(t.TempDir(), "dst")
	require.NoError(t, client.Clone(t.Context(), dir, s.url, s.tip))
	require.NoError(t, client.Checkout(t.Context(), dir, s.tip, "feature/x", dst))
	require.NoError(t, os.RemoveAll(dir), "nothing of the private clone is needed")
	ask := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = dst
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GIT_CONFIG_NOSYSTEM=1"}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return strings.TrimSpace(string(out))
	}
	require.Equal(t, s.tip, ask("rev-parse", "HEAD"))
	require.Equal(t, "feature/x", ask("rev-parse", "--abbrev-ref", "HEAD"))
	require.Empty(t, ask("status", "--porcelain"))
	require.NotEmpty(t, ask("describe", "--always", "--dirty"))
	require.Equal(t, "1", ask("rev-list", "--count", "HEAD"))
	require.Empty(t, ask("fsck", "--full"))
	require.Equal(t, s.url, ask("remote", "get-url", "origin"))

	require.NoError(t, client.Clone(t.Context(), dir, s.url, s.tip))
	require.NoError(t, os.WriteFile(filepath.Join(dst, "left-over"), nil, 0o600))
	require.NoError(t, client.Checkout(t.Context(), dir, s.first, "../../evil", dst))
	require.Equal(t, "HEAD", ask("rev-parse", "--abbrev-ref", "HEAD"), "an unusable branch detaches HEAD")
	require.Equal(t, s.first, ask("rev-parse", "HEAD"))
	require.NotContains(t, filesOf(t, dst), "left-over")
}

func TestClone_ExplainsRefusals(t *testing.T) {
	t.Parallel()
	locked := newShop(t, gitserver.Config{Username: "bot", Password: password})
	open := newShop(t, gitserver.Config{})
	gone := httptest.NewServer(nil)
	gone.Close()
	status := func(code int) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
		t.Cleanup(server.Close)
		return server.URL + "/team/shop.git"
	}
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(tls.Close)
	unknown := strings.Repeat("ab", 20)
	blob, err := open.server.Git(t.Context(), "team/shop", "rev-parse", "main:a.txt")
	require.NoError(t, err)
	tests := []struct {
		name, url, commit string
		credentials       string
		reason            fault.Reason
		texts             []string
	}{
		{"needs credentials", locked.url, locked.tip, "", fault.RepositoryDenied, []string{"Create Secret shop/git", "username and password"}},
		{"refuses credentials", locked.url, locked.tip, secretDir(t, "bot", "wr0ng-"+password), fault.RepositoryDenied, []string{"refuses", "Renew", "Secret shop/git"}},
		{"secret without files", locked.url, locked.tip, t.TempDir(), fault.RepositoryDenied, []string{"Secret shop/git"}},
		{"no such repository", strings.Replace(open.url, "shop", "nope", 1), open.tip, "", fault.RepositoryDenied, []string{"does not exist or is private"}},
		{"forbidden", status(http.StatusForbidden), open.tip, "", fault.RepositoryDenied, []string{"403"}},
		{"server down", gone.URL + "/shop.git", open.tip, "", fault.RepositoryUnreachable, []string{"retry"}},
		{"server error", status(http.StatusServiceUnavailable), open.tip, "", fault.RepositoryUnreachable, []string{"503"}},
		{"unknown certificate", tls.URL + "/shop.git", open.tip, "", fault.RepositoryUnreachable, []string{"certificate authority"}},
		{"unknown commit", open.url, unknown, "", fault.CommitUnknown, []string{"abababababab", "force push"}},
		{"not a commit", open.url, blob, "", fault.CommitUnknown, []string{"blob, not a commit"}},
		{"literal tag", open.url, "{{body.after}}", "", fault.CommitInvalid, []string{"dataKey: body.after"}},
		{"short id", open.url, open.tip[:12], "", fault.CommitInvalid, []string{"40 hexadecimal digits"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			client := newClient(t, git.Config{Credentials: tt.credentials, SecretName: "shop/git"})
			dir := filepath.Join(t.TempDir(), "clone")
			err := client.Clone(t.Context(), dir, tt.url, strings.TrimSpace(tt.commit))
			requireReason(t, err, tt.reason, tt.texts...)
			requireNoSecret(t, filepath.Dir(dir))
		})
	}
}

func TestClone_UnknownCommitInTheOldProtocol(t *testing.T) {
	t.Parallel()
	s := newShop(t, gitserver.Config{ProtocolV0: true})
	client := newClient(t, git.Config{})
	err := client.Clone(t.Context(), filepath.Join(t.TempDir(), "c"), s.url, strings.Repeat("ab", 20))
	requireReason(t, err, fault.CommitUnknown, "no branch or tag contains it")
}

func TestClone_GivesCredentialsToNoOtherHost(t *testing.T) {
	t.Parallel()
	got := make(chan string, 10)
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Get("Authorization")
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(thief.Close)
	s := newShop(t, gitserver.Config{Username: "bot", Password: password, Wrap: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, thief.URL+r.URL.RequestURI(), http.StatusFound)
		})
	}})
	client := newClient(t, git.Config{Credentials: secretDir(t, "bot", password)})
	err := client.Clone(t.Context(), filepath.Join(t.TempDir(), "c"), s.url, s.tip)
	requireReason(t, err, fault.RepositoryDenied)
	close(got)
	require.NotEmpty(t, got)
	for header := range got {
		require.Empty(t, header)
	}
}

func TestClone_EndsASilentTransfer(t *testing.T) {
	t.Parallel()
	s := newShop(t, gitserver.Config{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				<-r.Context().Done()
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	client := newClient(t, git.Config{StallTime: time.Second})
	start := time.Now()
	err := client.Clone(t.Context(), filepath.Join(t.TempDir(), "c"), s.url, s.tip)
	requireReason(t, err, fault.RepositoryUnreachable)
	require.Less(t, time.Since(start), 60*time.Second)
}

func TestClone_StopsWithTheContext(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{}, 10)
	s := newShop(t, gitserver.Config{Wrap: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			entered <- struct{}{}
			<-r.Context().Done()
		})
	}})
	cause := fault.Newf(fault.Cancelled, fault.StageTimeout, "", "", "stage timeout 1m")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-entered; cancel(cause) }()
	err := newClient(t, git.Config{Grace: time.Second}).Clone(ctx, filepath.Join(t.TempDir(), "c"), s.url, s.tip)
	requireReason(t, err, fault.StageTimeout, "stage timeout 1m")
}

func TestIsAncestor(t *testing.T) {
	t.Parallel()
	s := newShop(t, gitserver.Config{Filter: true})
	client := newClient(t, git.Config{})
	dir := filepath.Join(t.TempDir(), "clone")
	require.NoError(t, client.Clone(t.Context(), dir, s.url, s.second))
	for _, tt := range []struct {
		name, a, b string
		want       bool
	}{
		{"parent", s.first, s.second, true},
		{"itself", s.second, s.second, true},
		{"child", s.second, s.first, false},
		{"fetched child", s.second, s.tip, true},
		{"fetched sibling", s.second, s.side, false},
		{"fetched sibling's parent", s.first, s.side, true},
	} {
		got, err := client.IsAncestor(t.Context(), dir, tt.a, tt.b)
		require.NoError(t, err, tt.name)
		require.Equal(t, tt.want, got, tt.name)
	}
	_, err := client.IsAncestor(t.Context(), dir, s.tip, strings.Repeat("cd", 20))
	requireReason(t, err, fault.CommitUnknown)
	_, err = client.IsAncestor(t.Context(), dir, strings.Repeat("cd", 20), s.tip)
	requireReason(t, err, fault.CommitUnknown)
	_, err = client.IsAncestor(t.Context(), dir, "--all", s.tip)
	requireReason(t, err, fault.CommitInvalid)
}

func TestShow(t *testing.T) {
	t.Parallel()
	s := newShop(t, gitserver.Config{Filter: true})
	client := newClient(t, git.Config{})
	dir := filepath.Join(t.TempDir(), "clone")
	require.NoError(t, client.Clone(t.Context(), dir, s.url, s.tip))
	content, err := client.Show(t.Context(), dir, s.tip, "./dir/run.sh", 100)
	require.NoError(t, err)
	require.Equal(t, "#!/bin/sh\n", string(content))
	for _, name := range []string{"nope", "dir", "../a.txt", "/a.txt", "", "*.txt", ":(glob)a*", "--help", "old.txt"} {
		_, err = client.Show(t.Context(), dir, s.tip, name, 100)
		require.ErrorIs(t, err, fs.ErrNotExist, name)
	}
	_, err = client.Show(t.Context(), dir, s.tip, "new/deep/file", 4999)
	require.ErrorIs(t, err, git.ErrTooLarge)
	_, err = client.Show(t.Context(), dir, s.tip, "new/deep/file", 5000)
	require.NoError(t, err)
}

func TestTime(t *testing.T) {
	t.Parallel()
	s := newShop(t, gitserver.Config{})
	client := newClient(t, git.Config{})
	dir := filepath.Join(t.TempDir(), "clone")
	require.NoError(t, client.Clone(t.Context(), dir, s.url, s.tip))
	first, err := client.Time(t.Context(), dir, s.first)
	require.NoError(t, err)
	second, err := client.Time(t.Context(), dir, s.second)
	require.NoError(t, err)
	require.Equal(t, time.Minute, second.Sub(first))
}
