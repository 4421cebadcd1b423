package git_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/git"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

// Of a branch that went on, was rewritten and has others beside it, a run gets
// exactly its commit, whether the clone is new or has seen other commits.
//
// Feature: aphex-pipeline, Property 2: Repository cloning at specific commit
// Feature: aphex-pipeline, Property 25: Commit-specific CDK code usage
func TestClone_AnyCommitOfAnyHistory(t *testing.T) {
	t.Parallel()
	const history = 12
	s := gitserver.New(t, gitserver.Config{Filter: true})
	require.NoError(t, s.Create(t.Context(), "team/shop"))
	var commits []string
	for n := range history {
		change := gitserver.Change{Write: map[string]string{"commit.txt": strconv.Itoa(n), fmt.Sprintf("only/%d.txt", n): "x"}}
		parent := n - 1
		if n%4 == 3 { // the branch is rewritten from an older commit
			parent = n - 3
		}
		if parent >= 0 {
			change.Parent, change.Delete = commits[parent], []string{fmt.Sprintf("only/%d.txt", parent)}
		}
		if n%5 == 4 {
			change.Branch = fmt.Sprintf("side/%d", n)
		}
		id, err := s.Commit(t.Context(), "team/shop", change)
		require.NoError(t, err)
		commits = append(commits, id)
	}
	client, url := newClient(t, git.Config{}), s.URL("team/shop")
	dir := t.TempDir()
	clone, tries := filepath.Join(dir, "clone"), 0
	rapid.Check(t, func(t *rapid.T) {
		tries++
		n := rapid.IntRange(0, history-1).Draw(t, "commit")
		if rapid.IntRange(0, 4).Draw(t, "new clone") == 0 {
			clone = filepath.Join(dir, fmt.Sprintf("clone-%d", tries))
		}
		dst := filepath.Join(dir, fmt.Sprintf("dst-%d", tries))
		require.NoError(t, client.Clone(t.Context(), clone, url, commits[n]))
		require.NoError(t, client.Checkout(t.Context(), clone, commits[n], "main", dst))
		text, err := os.ReadFile(filepath.Join(dst, "commit.txt"))
		require.NoError(t, err)
		require.Equal(t, strconv.Itoa(n), string(text))
		only, err := os.ReadDir(filepath.Join(dst, "only"))
		require.NoError(t, err)
		require.Len(t, only, 1)
		require.Equal(t, fmt.Sprintf("%d.txt", n), only[0].Name())
	})
}
