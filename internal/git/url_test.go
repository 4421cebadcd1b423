package git

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

func TestRemote_AcceptsOrdinaryURLs(t *testing.T) {
	t.Parallel()
	client := &Client{schemes: []string{"https", "http", "ssh"}}
	for raw, want := range map[string]string{
		"https://github.com/acme/shop.git":      "https://github.com/acme/shop.git",
		"http://git.internal:8080/acme/shop":    "http://git.internal:8080/acme/shop",
		"ssh://git@github.com:22/acme/shop.git": "ssh://git@github.com:22/acme/shop.git",
		"https://[::1]:8080/shop":               "https://[::1]:8080/shop",
		"git@github.com:acme/shop.git":          "ssh://git@github.com/acme/shop.git",
	} {
		r, err := client.remote(raw)
		require.NoError(t, err, raw)
		require.Equal(t, want, r.url)
	}
}

func TestRemote_RefusesWhatGitCouldMistake(t *testing.T) {
	t.Parallel()
	client := &Client{schemes: []string{"https", "http", "ssh"}}
	for name, raw := range map[string]string{
		"empty":              "",
		"option":             "--upload-pack=touch /tmp/x",
		"option host":        "ssh://-oProxyCommand=x/y",
		"option user":        "ssh://-oProxyCommand=x@host/y",
		"option path":        "ssh://host/-x",
		"helper":             "ext::sh -c id",
		"helper with scheme": "fd::7",
		"file":               "file:///etc",
		"local path":         "/srv/repo",
		"relative path":      "../repo",
		"git protocol":       "git://host/repo",
		"ftp":                "ftp://host/repo",
		"password":           "https://user:hunter2hunter2@host/repo",
		"token as user":      "https://hunter2hunter2@host/repo",
		"scp with password":  "user:hunter2hunter2@host:repo",
		"newline":            "https://host/repo\nx",
		"control":            "https://host/\x1b[31mrepo",
		"space":              "https://host/a b",
		"no repository":      "https://host/",
		"no host":            "https:///repo",
		"zone":               "https://[fe80::1%25eth0]/repo",
		"query":              "https://host/repo?token=hunter2hunter2",
		"fragment":           "https://host/repo#x",
		"literal tag":        "{{body.repository.clone_url}}",
		"tag and password":   "https://user:hunter2hunter2@{{body.host}}/repo",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := client.remote(raw)
			require.ErrorIs(t, err, &fault.Fault{Reason: fault.RepositoryInvalid, Err: errors.New("any")})
			require.NotContains(t, fault.Message(err), "hunter2")
			require.NotEmpty(t, fault.From(err).Remedy)
		})
	}
}

func TestHidePassword_NeverShowsIt(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		secret := "S" + rapid.StringMatching(`[a-zA-Z0-9:@._-]{8,20}`).Draw(rt, "secret") + "S"
		scheme := rapid.SampledFrom([]string{"https", "http", "ftp"}).Draw(rt, "scheme")
		user := rapid.StringMatching(`[a-z]{0,5}`).Draw(rt, "user")
		require.NotContains(rt, hidePassword(scheme+"://"+user+":"+secret+"@host/repo"), secret)
		require.NotContains(rt, hidePassword(scheme+"://"+secret+"@host/repo"), secret)
	})
}

func TestCheckCommit(t *testing.T) {
	t.Parallel()
	require.NoError(t, CheckCommit(strings.Repeat("0a", 20)))
	for commit, text := range map[string]string{
		"":                       "40 hexadecimal",
		"main":                   "40 hexadecimal",
		"HEAD":                   "40 hexadecimal",
		strings.Repeat("A", 40):  "lower case",
		strings.Repeat("a", 41):  "40 hexadecimal",
		strings.Repeat("0", 40):  "deleted",
		"{{body.after}}":         "dataKey: body.after",
		"--output=/tmp/x":        "40 hexadecimal",
		strings.Repeat("x", 999): "…",
	} {
		err := CheckCommit(commit)
		require.ErrorIs(t, err, &fault.Fault{Reason: fault.CommitInvalid, Err: errors.New("any")})
		require.Contains(t, fault.Message(err), text)
	}
}

func TestValidBranch(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"main", "feature/x-1", "release/1.2", "user@host", "a#1"} {
		require.True(t, validBranch(name), name)
	}
	for _, name := range []string{"", "-x", "../x", "a..b", "a//b", "/a", "a/", "a.lock", "a/.b", "@", "a b", "a\nb", "a:b", "a~1", "refs\\x", strings.Repeat("a", 201), "a."} {
		require.False(t, validBranch(name), name)
	}
}
