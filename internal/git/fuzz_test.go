package git

import (
	"net/url"
	"path"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/testkit/bounded"
)

// FuzzOutside: URLs and names come from a webhook or a form, the lines from git
// and, through it, from a server. What is accepted holds nothing that git could
// take for something else, and no message shows a password.
func FuzzOutside(f *testing.F) {
	for _, seed := range [][2]string{
		{"https://github.com/acme/shop.git", "100644 blob 0123456789abcdef0123456789abcdef01234567     120\taphex-config.yaml\x00"},
		{"git@github.com:acme/shop.git", "fatal: repository 'https://x/' not found\n"},
		{"ssh://-oProxyCommand=x@host/y", "error: RPC failed; HTTP 503 curl 22 The requested URL returned error: 503\nfatal: early EOF"},
		{"https://user:hunter2hunter2@host/repo?token=a#b", "120000 blob x -\ty"},
		{"ext::sh -c id", "remote: Enumerating objects: 5\rhint: x\nfatal: could not read Username"},
		{"https://[::1]:8080/shop", "040000 tree x -\tdir"},
		{"feature/x-1", "{{body.after}}"},
		{"%ssh://git@h/p", "1700000000\n"},
	} {
		f.Add(seed[0], seed[1])
	}
	client := &Client{schemes: []string{"https", "http", "ssh"}}
	f.Fuzz(func(t *testing.T, raw, line string) {
		bounded.Here(t)
		checkRemote(t, client, raw)
		checkPassword(t, client, raw)
		if validBranch(raw) {
			require.False(t, strings.ContainsAny(raw, " ~^:?*[\\\x00\x7f") || strings.HasPrefix(raw, "-") || strings.Contains(raw, ".."), "%q", raw)
			require.Equal(t, raw, path.Clean(raw))
		}
		if err := CheckCommit(raw); err != nil {
			require.Equal(t, fault.CommitInvalid, fault.From(err).Reason)
			require.Less(t, len(err.Error()), 1000)
		} else {
			require.Len(t, raw, 40)
		}
		if entry, err := parseEntry(line); err == nil {
			require.False(t, strings.ContainsFunc(entry.id, unicode.IsSpace))
			require.NotEmpty(t, entry.id)
			require.GreaterOrEqual(t, entry.size, int64(0))
		}
		checkClassify(t, client, line)
	})
}

func checkRemote(t *testing.T, client *Client, raw string) {
	t.Helper()
	r, err := client.remote(raw)
	if err != nil {
		require.Equal(t, fault.RepositoryInvalid, fault.From(err).Reason)
		require.NotEmpty(t, fault.From(err).Remedy)
		return
	}
	again, err := client.remote(r.url)
	require.NoError(t, err)
	require.Equal(t, r, again, "what was accepted is accepted again, unchanged")
	require.False(t, strings.HasPrefix(r.url, "-") || strings.Contains(r.url, "{{"), "%q", r.url)
	require.False(t, strings.ContainsFunc(r.url, func(c rune) bool { return unicode.IsControl(c) || unicode.IsSpace(c) }), "%q", r.url)
	u, err := url.Parse(r.url)
	require.NoError(t, err)
	require.True(t, u.User == nil || r.ssh, "%q", r.url)
	require.True(t, strings.HasPrefix(r.url, u.Scheme+"://"))
}

// checkPassword puts a password before raw.
func checkPassword(t *testing.T, client *Client, raw string) {
	t.Helper()
	const password = "hunter9hunter9"
	if strings.ContainsAny(raw, "/@") {
		return // the password would belong to something else
	}
	for _, scheme := range []string{"https", "ssh", "x"} {
		_, err := client.remote(scheme + "://user:" + password + "@" + raw + "/repo")
		require.Error(t, err)
		require.NotContains(t, fault.Message(err), password)
	}
}

func checkClassify(t *testing.T, client *Client, output string) {
	t.Helper()
	for _, r := range []*remote{nil, {ssh: true}, {}} {
		found := fault.From(client.classify(command{op: "fetch", remote: r}, output))
		require.NotEqual(t, fault.Internal, found.Reason)
		require.NotEmpty(t, found.Err.Error())
		require.Less(t, len(found.Error()), 1000)
	}
}
