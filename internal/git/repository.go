package git

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// markFile says that a clone is whole. It is written last.
const markFile = "aphex-clone.json"

type mark struct {
	URL string `json:"url"`
}

// fetchTries bounds fetching in the face of a server that breaks off: one
// retry meets a lost connection, a second a restarted server.
const fetchTries = 3

// Clone makes dir a private bare clone of the repository at rawURL that has
// commit and its whole history: all commits and folders, and the files that
// were needed so far where the server can leave out the rest. Called again,
// also after having been killed, it does what is left to do. Nobody else may
// use dir meanwhile.
//
// Errors: CommitInvalid, CommitUnknown, RepositoryInvalid,
// RepositoryUnreachable, RepositoryDenied, CloneFailed; Cancelled.
func (c *Client) Clone(ctx context.Context, dir, rawURL, commit string) error {
	if err := CheckCommit(commit); err != nil {
		return err
	}
	r, err := c.remote(rawURL)
	if err != nil {
		return err
	}
	if readMark(dir).URL != r.url {
		err = c.create(ctx, dir, r)
	} else {
		err = unlock(dir)
	}
	if err != nil {
		return err
	}
	return c.ensure(ctx, dir, r, commit)
}

// unlock removes the locks of a git that was killed. The clone has one user at
// a time, so nobody holds one.
func unlock(dir string) error {
	const op = "open the clone"
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fault.Wrap(fault.System, fault.CloneFailed, op, "", err)
	}
	defer func() { _ = root.Close() }()
	err = fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == "objects":
			return fs.SkipDir
		case !entry.IsDir() && strings.HasSuffix(entry.Name(), ".lock"):
			return root.Remove(name)
		}
		return nil
	})
	return fault.Wrap(fault.System, fault.CloneFailed, op, "", err)
}

func readMark(dir string) mark {
	var m mark
	text, err := os.ReadFile(filepath.Join(dir, markFile))
	if err != nil || json.Unmarshal(text, &m) != nil {
		return mark{}
	}
	return m
}

// create makes an empty repository that knows its remote. Fetching into it
// only ever adds, so the mark is written before the first fetch.
func (c *Client) create(ctx context.Context, dir string, r remote) error {
	op := "prepare a clone of " + r.shown
	wrap := func(err error) error { return fault.Wrap(fault.System, fault.CloneFailed, op, "", err) }
	if err := os.RemoveAll(dir); err != nil {
		return wrap(err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return wrap(err)
	}
	if err := c.run(ctx, command{op: op, args: []string{"init", "--quiet", "--bare", "--template=", "--", dir}}); err != nil {
		return err
	}
	for _, setting := range [][2]string{
		{"remote.origin.url", r.url},
		{"remote.origin.promisor", "true"},
		{"remote.origin.partialclonefilter", "blob:none"},
		{"remote.origin.tagOpt", "--no-tags"},
	} {
		if err := c.run(ctx, command{op: op, dir: dir, args: []string{"config", setting[0], setting[1]}}); err != nil {
			return err
		}
	}
	text, err := json.Marshal(mark{URL: r.url})
	if err != nil {
		return wrap(err)
	}
	temp := filepath.Join(dir, markFile+".new")
	if err := os.WriteFile(temp, text, 0o600); err != nil {
		return wrap(err)
	}
	return wrap(os.Rename(temp, filepath.Join(dir, markFile)))
}

// ensure fetches commit unless it is there.
func (c *Client) ensure(ctx context.Context, dir string, r remote, commit string) error {
	if c.has(ctx, dir, commit) {
		return nil
	}
	op := fmt.Sprintf("fetch commit %.12s of %s", commit, r.shown)
	err := c.fetch(ctx, dir, r, op, commit)
	if errors.Is(err, errUnadvertised) {
		err = c.fetch(ctx, dir, r, op, "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
	}
	if err != nil {
		return err
	}
	kindOfObject, err := c.output(ctx, command{op: op, dir: dir, args: []string{"cat-file", "-t", commit}})
	if ctx.Err() != nil {
		return err
	}
	if err != nil {
		return fault.Newf(fault.User, fault.CommitUnknown, op,
			"Check that the commit was pushed to this repository; a force push removes commits", "no branch or tag contains it")
	}
	if got := strings.TrimSpace(kindOfObject); got != "commit" {
		return fault.Newf(fault.User, fault.CommitUnknown, op, "Give the id of the commit", "it is a %s, not a commit", got)
	}
	// A reference tells the server next time what is here already.
	return c.run(ctx, command{op: op, dir: dir, args: []string{"update-ref", "refs/aphex/" + commit, commit}})
}

// has reports whether commit is in the clone. Fetches bring commits with their
// whole history or not at all, so its ancestors are then there too.
func (c *Client) has(ctx context.Context, dir, commit string) bool {
	return c.run(ctx, command{op: "look for a commit", dir: dir, args: []string{"cat-file", "-e", commit + "^{commit}"}}) == nil
}

func (c *Client) fetch(ctx context.Context, dir string, r remote, op string, refs ...string) error {
	args := append([]string{
		"fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--filter=blob:none", "--end-of-options", "origin",
	}, refs...)
	return patiently(ctx, func() error { return c.run(ctx, command{op: op, dir: dir, args: args, remote: &r}) })
}

// patiently tries again what failed for a reason that passes.
func patiently(ctx context.Context, try func() error) error {
	for tries := 1; ; tries++ {
		err := try()
		f, ok := errors.AsType[*fault.Fault](err)
		if !ok || f.Class != fault.Transient || tries == fetchTries {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(tries) * time.Second):
		}
	}
}

// origin returns the remote that dir was cloned from.
func (c *Client) origin(dir string) (remote, error) {
	m := readMark(dir)
	if m.URL == "" {
		return remote{}, fault.Newf(fault.System, fault.CloneFailed, "open the clone", "", "%s is not a clone of ours", dir)
	}
	return c.remote(m.URL)
}

// IsAncestor reports whether ancestor is reachable from descendant; every
// commit is from itself. Commits the clone lacks are fetched.
//
// Errors: CommitInvalid, CommitUnknown if the repository lacks one of them,
// and those of Clone.
func (c *Client) IsAncestor(ctx context.Context, dir, ancestor, descendant string) (bool, error) {
	r, err := c.origin(dir)
	if err != nil {
		return false, err
	}
	for _, commit := range []string{descendant, ancestor} {
		if err := CheckCommit(commit); err != nil {
			return false, err
		}
		if err := c.ensure(ctx, dir, r, commit); err != nil {
			return false, err
		}
	}
	// Counting what only the ancestor has tells "no" from a failure by more
	// than an exit code.
	out, err := c.output(ctx, command{
		op: "compare commits", dir: dir, remote: &r,
		args: []string{"rev-list", "--count", "--max-count=1", "--end-of-options", ancestor, "^" + descendant},
	})
	return err == nil && strings.TrimSpace(out) == "0", err
}

// Time returns when commit was made, according to its committer.
func (c *Client) Time(ctx context.Context, dir, commit string) (time.Time, error) {
	op := "read the time of a commit"
	out, err := c.output(ctx, command{op: op, dir: dir, args: []string{"log", "-1", "--format=%ct", "--end-of-options", commit}})
	if err != nil {
		return time.Time{}, err
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		return time.Time{}, fault.Wrap(fault.System, fault.CloneFailed, op, "", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// Show returns the file name of commit, at most limit bytes large.
//
// Errors: an error that wraps fs.ErrNotExist if the commit has no such file or
// it is not an ordinary file; ErrTooLarge; those of Clone.
func (c *Client) Show(ctx context.Context, dir, commit, name string, limit int64) ([]byte, error) {
	op := fmt.Sprintf("read %s at commit %.12s", name, commit)
	clean := path.Clean(name)
	if !filepath.IsLocal(clean) || clean == "." || strings.ContainsRune(clean, 0) {
		return nil, fmt.Errorf("%s: the path must lie inside the repository: %w", op, fs.ErrNotExist)
	}
	r, err := c.origin(dir)
	if err != nil {
		return nil, err
	}
	out, err := c.output(ctx, command{
		op: op, dir: dir, remote: &r,
		args: []string{"ls-tree", "-z", "-l", "--full-tree", commit, "--", clean},
	})
	if err != nil {
		return nil, err
	}
	object, err := parseEntry(out)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	if object.size > limit {
		return nil, fmt.Errorf("%s: %w: %d bytes, allowed are %d", op, ErrTooLarge, object.size, limit)
	}
	var content strings.Builder
	err = c.run(ctx, command{
		op: op, dir: dir, remote: &r, args: []string{"cat-file", "blob", object.id},
		stdout: &limitedWriter{w: &content, left: int(limit)},
	})
	return []byte(content.String()), err
}

// ErrTooLarge is a file beyond the limit given to Show.
var ErrTooLarge = errors.New("file is too large")

type treeEntry struct {
	id   string
	size int64
}

// parseEntry reads one line of `ls-tree -l`: mode, type, id, size, tab, name.
func parseEntry(line string) (treeEntry, error) {
	if line == "" {
		return treeEntry{}, fs.ErrNotExist
	}
	head, _, _ := strings.Cut(line, "\t")
	fields := strings.Fields(head)
	if len(fields) != 4 {
		return treeEntry{}, fmt.Errorf("git answered %q", line)
	}
	switch {
	case fields[0] == "120000":
		return treeEntry{}, fmt.Errorf("it is a symbolic link, not a file: %w", fs.ErrNotExist)
	case fields[1] != "blob":
		return treeEntry{}, fmt.Errorf("it is a %s, not a file: %w", fields[1], fs.ErrNotExist)
	}
	size, err := strconv.ParseInt(fields[3], 10, 64)
	if err != nil || size < 0 {
		return treeEntry{}, fmt.Errorf("git answered %q", line)
	}
	return treeEntry{id: fields[2], size: size}, nil
}
