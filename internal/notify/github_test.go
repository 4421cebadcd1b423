package notify

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStatusURL(t *testing.T) {
	t.Parallel()
	for repo, want := range map[string]string{
		"https://github.com/team/shop.git":         "https://api.github.com/repos/team/shop/statuses/c0ffee",
		"https://github.com/team/shop":             "https://api.github.com/repos/team/shop/statuses/c0ffee",
		"https://git.example.com/team/shop.git/":   "https://git.example.com/api/v3/repos/team/shop/statuses/c0ffee",
		"http://user@127.0.0.1:3000/team/shop.git": "http://127.0.0.1:3000/api/v3/repos/team/shop/statuses/c0ffee",
	} {
		got, err := statusURL(repo, "c0ffee")
		require.NoError(t, err, repo)
		require.Equal(t, want, got)
	}
	for _, repo := range []string{"git@github.com:team/shop.git", "https://github.com/shop", "https://github.com/a/b/c", "ssh://git@github.com/team/shop", ""} {
		_, err := statusURL(repo, "c0ffee")
		require.ErrorContains(t, err, "repository", repo)
	}
}
