package gitserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DefaultBranch is the branch that HEAD of a new repository names.
const DefaultBranch = "main"

// epoch is the date of the first commit. Each later one is a minute younger,
// so that equal content made in equal order has equal ids.
const epoch = 1_767_225_600 // 2026-01-01T00:00:00Z

var repoName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$`)

// Change is one commit.
type Change struct {
	// Branch receives the commit. Empty means DefaultBranch.
	Branch string
	// Message is the commit message. Empty means "change".
	Message string
	// Parent is the commit or branch to build on. Empty means the tip of
	// Branch, or none if there is no such branch. Anything else than the tip
	// rewrites the branch, as a forced push does.
	Parent string
	// Dir, if set, is a directory whose files are the whole tree of the commit
	// (files that a .gitignore names too; a .git directory is left out).
	Dir string
	// Write maps slash-separated paths to content, written over the tree.
	Write map[string]string
	// Delete lists paths removed from the tree.
	Delete []string
	// Executable lists paths of Write that get the executable bit.
	Executable []string
}

// Create makes an empty bare repository. Its name may hold slashes and has no
// ".git" suffix.
func (s *Server) Create(ctx context.Context, name string) error {
	if !repoName.MatchString(name) || strings.HasSuffix(name, ".git") {
		return fmt.Errorf("repository name %q: allowed are letters, digits, dots, dashes, underscores and slashes, without .git", name)
	}
	path := s.Path(name)
	if _, err := os.Stat(path); err == nil {
		return fmt.Errorf("repository %s: %w", name, os.ErrExist)
	}
	if _, err := s.run(ctx, "", nil, "init", "--quiet", "--bare", "--initial-branch="+DefaultBranch, path); err != nil {
		return err
	}
	settings := map[string]bool{
		"http.receivepack":                    true,
		"uploadpack.allowFilter":              s.config.Filter,
		"uploadpack.allowAnySHA1InWant":       s.config.AnySHA1,
		"uploadpack.allowReachableSHA1InWant": s.config.AnySHA1,
	}
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		if _, err := s.Git(ctx, name, "config", key, strconv.FormatBool(settings[key])); err != nil {
			return err
		}
	}
	return nil
}

// Path is where the bare repository lies on disk.
func (s *Server) Path(name string) string {
	return filepath.Join(s.dir, filepath.FromSlash(name)+".git")
}

// Push commits the files of dir as the whole tree of a branch and returns the
// commit's id. It makes the repository if there is none.
func (s *Server) Push(ctx context.Context, name, branch, dir string) (string, error) {
	return s.Commit(ctx, name, Change{Branch: branch, Dir: dir, Message: "push " + filepath.Base(dir)})
}

// Commit makes a commit and returns its id. It makes the repository if there
// is none. Hooks and work trees play no part.
func (s *Server) Commit(ctx context.Context, name string, change Change) (string, error) {
	if _, err := os.Stat(s.Path(name)); errors.Is(err, os.ErrNotExist) {
		if err := s.Create(ctx, name); err != nil {
			return "", err
		}
	}
	if change.Branch == "" {
		change.Branch = DefaultBranch
	}
	if change.Message == "" {
		change.Message = "change"
	}
	parent, err := s.parent(ctx, name, change)
	if err != nil {
		return "", err
	}
	tree, err := s.tree(ctx, name, parent, change)
	if err != nil {
		return "", err
	}
	args := []string{"commit-tree", "-m", change.Message}
	if parent != "" {
		args = append(args, "-p", parent)
	}
	commit, err := s.run(ctx, s.Path(name), s.identity(), append(args, tree)...)
	if err != nil {
		return "", err
	}
	if _, err := s.Git(ctx, name, "update-ref", "refs/heads/"+change.Branch, commit); err != nil {
		return "", err
	}
	return commit, nil
}

// Git runs git in a bare repository and returns what it printed, trimmed: for
// the questions and set-ups that have no method of their own.
func (s *Server) Git(ctx context.Context, name string, args ...string) (string, error) {
	return s.run(ctx, s.Path(name), nil, args...)
}

// parent returns the id of the commit to build on, empty for a first one.
func (s *Server) parent(ctx context.Context, name string, change Change) (string, error) {
	if change.Parent != "" {
		return s.Git(ctx, name, "rev-parse", "--verify", change.Parent+"^{commit}")
	}
	out, err := s.Git(ctx, name, "for-each-ref", "--format=%(objectname)", "refs/heads/"+change.Branch)
	return out, err
}

// tree writes the tree of a change and returns its id.
func (s *Server) tree(ctx context.Context, name, parent string, change Change) (string, error) {
	scratch, err := os.MkdirTemp("", "aphex-gitserver-index-")
	if err != nil {
		return "", fmt.Errorf("make directory for the index: %w", err)
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	repo := s.Path(name)
	index := []string{"GIT_INDEX_FILE=" + filepath.Join(scratch, "index")}
	switch {
	case change.Dir != "":
		env := append(index, "GIT_DIR="+repo, "GIT_WORK_TREE=.")
		_, err = s.run(ctx, change.Dir, env, "add", "--all", "--force", ".")
	case parent != "":
		_, err = s.run(ctx, repo, index, "read-tree", parent)
	}
	if err != nil {
		return "", err
	}
	var entries strings.Builder // see git update-index --index-info
	for _, path := range slices.Sorted(maps.Keys(change.Write)) {
		blob, err := s.feed(ctx, repo, nil, change.Write[path], "hash-object", "-w", "--stdin")
		if err != nil {
			return "", err
		}
		mode := "100644"
		if slices.Contains(change.Executable, path) {
			mode = "100755"
		}
		fmt.Fprintf(&entries, "%s %s\t%s\x00", mode, blob, path)
	}
	for _, path := range change.Delete {
		fmt.Fprintf(&entries, "0 %s\t%s\x00", strings.Repeat("0", 40), path)
	}
	if _, err := s.feed(ctx, repo, index, entries.String(), "update-index", "-z", "--index-info"); err != nil {
		return "", err
	}
	return s.run(ctx, repo, index, "write-tree")
}

// feed runs git with input on its standard input.
func (s *Server) feed(ctx context.Context, repo string, env []string, input string, args ...string) (string, error) {
	cmd := s.command(ctx, repo, env, args...)
	cmd.Stdin = strings.NewReader(input)
	return output(cmd)
}

// identity is the author of the next commit.
func (s *Server) identity() []string {
	s.mu.Lock()
	date := time.Unix(epoch, 0).UTC().Add(time.Duration(s.commits) * time.Minute).Format(time.RFC3339)
	s.commits++
	s.mu.Unlock()
	var env []string
	for _, role := range []string{"AUTHOR", "COMMITTER"} {
		env = append(env, "GIT_"+role+"_NAME=Ada Example", "GIT_"+role+"_EMAIL=ada@example.com", "GIT_"+role+"_DATE="+date)
	}
	return env
}

// env is the whole environment of a git process: nothing of the caller's
// configuration reaches it.
func (s *Server) env() []string {
	return []string{
		"PATH=" + filepath.Dir(s.git) + ":/usr/bin:/bin",
		"HOME=" + s.dir,
		"LANG=C.UTF-8",
		"GIT_CONFIG_NOSYSTEM=1",
		"GIT_CONFIG_GLOBAL=" + os.DevNull,
		"GIT_TERMINAL_PROMPT=0",
	}
}

func (s *Server) command(ctx context.Context, dir string, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.git, args...)
	cmd.Dir = dir
	cmd.Env = append(s.env(), env...)
	return cmd
}

func (s *Server) run(ctx context.Context, dir string, env []string, args ...string) (string, error) {
	return output(s.command(ctx, dir, env, args...))
}

func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", cmd.Args[1], err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// spoolBody copies a request's body to a file and returns it, ready to be
// read.
func spoolBody(dir string, body io.Reader) (*os.File, int64, error) {
	file, err := os.CreateTemp(dir, "request-")
	if err != nil {
		return nil, 0, err
	}
	size, err := io.Copy(file, body)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		removeSpool(file)
		return nil, 0, err
	}
	return file, size, nil
}

func removeSpool(file *os.File) {
	_ = file.Close()
	_ = os.Remove(file.Name())
}
