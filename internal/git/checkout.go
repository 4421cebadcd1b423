package git

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// Checkout makes dst hold exactly the files of commit, from the clone in dir,
// and a repository of its own in dst/.git. That one is shallow: it has the one
// commit, HEAD is branch (detached if branch is empty or unusable), and its
// remote "origin" is the plain URL. What was in dst is removed.
//
// Files the clone left out are fetched in one go.
//
// Errors: those of Clone.
func (c *Client) Checkout(ctx context.Context, dir, commit, branch, dst string) error {
	op := fmt.Sprintf("check out commit %.12s", commit)
	if err := CheckCommit(commit); err != nil {
		return err
	}
	r, err := c.origin(dir)
	if err != nil {
		return err
	}
	wrap := func(err error) error { return fault.Wrap(fault.System, fault.CloneFailed, op, "", err) }
	if err := os.RemoveAll(dst); err != nil {
		return wrap(err)
	}
	gitDir := filepath.Join(dst, ".git")
	for _, sub := range []string{"objects/pack", "objects/info", "refs/heads", "refs/tags"} {
		if err := os.MkdirAll(filepath.Join(gitDir, sub), 0o750); err != nil {
			return wrap(err)
		}
	}
	// The index is written beside the files and moved in at the end.
	index := filepath.Join(gitDir, "index")
	err = patiently(ctx, func() error {
		return c.run(ctx, command{
			op: op, dir: dst, remote: &r,
			env:  []string{"GIT_DIR=" + dir, "GIT_WORK_TREE=" + dst, "GIT_INDEX_FILE=" + index},
			args: []string{"read-tree", "--reset", "-u", commit},
		})
	})
	if err != nil {
		return err
	}
	if err := c.pack(ctx, dir, commit, op, filepath.Join(gitDir, "objects", "pack", "pack")); err != nil {
		return err
	}
	if err := describeRepository(gitDir, r.url, commit, branch); err != nil {
		return wrap(err)
	}
	return c.verify(ctx, dst, commit, op)
}

// pack writes the objects of the one commit into a new pack.
func (c *Client) pack(ctx context.Context, dir, commit, op, prefix string) error {
	list, err := os.CreateTemp(c.cfg.Home, "objects-")
	if err != nil {
		return fault.Wrap(fault.System, fault.CloneFailed, op, "", err)
	}
	defer func() { _ = errors.Join(list.Close(), os.Remove(list.Name())) }()
	err = c.run(ctx, command{
		op: op, dir: dir, stdout: list,
		args: []string{"rev-list", "--objects", "--no-object-names", "--no-walk", "--end-of-options", commit},
	})
	if err != nil {
		return err
	}
	if _, err := list.Seek(0, 0); err != nil {
		return fault.Wrap(fault.System, fault.CloneFailed, op, "", err)
	}
	return c.run(ctx, command{op: op, dir: dir, stdin: list, args: []string{"pack-objects", "--quiet", "--", prefix}})
}

// describeRepository writes the small files that make gitDir a repository.
func describeRepository(gitDir, url, commit, branch string) error {
	config := "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n" +
		"[remote \"origin\"]\n\turl = " + quote(url) + "\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n"
	files := map[string]string{"config": config, "shallow": commit + "\n", "HEAD": commit + "\n"}
	if validBranch(branch) {
		files["HEAD"] = "ref: refs/heads/" + branch + "\n"
		files["refs/heads/"+branch] = commit + "\n"
	}
	for name, content := range files {
		full := filepath.Join(gitDir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(full), 0o750); err != nil {
			return err
		}
		if err := os.WriteFile(full, []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// quote returns s as a value of git's configuration format.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// verify asks the new repository what it holds.
func (c *Client) verify(ctx context.Context, dst, commit, op string) error {
	out, err := c.output(ctx, command{op: op, dir: dst, args: []string{"rev-parse", "--verify", "HEAD^{commit}"}})
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(out); got != commit {
		return fault.Newf(fault.System, fault.CloneFailed, op, "", "the checkout is at %q", got)
	}
	return nil
}
