package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/process"
)

// Local runs commands in a checkout that is somebody's own, on this machine and
// as this user, where Serve has a folder to itself. What a Client does for the
// synthesis of an app it does as well: paths below SourceDir are those of the
// checkout, all others are in a folder of its own.
//
// Commands see the user's environment, HOME included, without what Serve
// withholds: there are no AWS credentials in it, and the profiles of the AWS
// SDKs are out of sight.
type Local struct {
	source, root string
	env          map[string]string
}

// NewLocal returns a worker for the checkout in source. root is an empty folder
// for everything else, which the caller removes; environ is the user's
// environment.
//
// Errors: those of the file system.
func NewLocal(source, root string, environ []string) (*Local, error) {
	source, err := filepath.Abs(source)
	if err != nil {
		return nil, err
	}
	if root, err = filepath.Abs(root); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(root, OutDir), 0o700); err != nil {
		return nil, err
	}
	// Commands that are told of a path below the root's SourceDir find it.
	if err := os.Symlink(source, filepath.Join(root, SourceDir)); err != nil {
		return nil, err
	}
	env := inherited(environ)
	maps.Copy(env, map[string]string{
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	})
	return &Local{source: source, root: root, env: env}, nil
}

// Ping describes this process.
func (l *Local) Ping(context.Context) (Info, error) {
	return Info{UID: os.Getuid(), PID: os.Getpid(), Root: l.root}, nil
}

// Exec runs a command. Of its fields Argv, Dir, Env and Grace are heeded, of
// Exit all but Dir and Env are set.
//
// Errors: ToolMissing, DirectoryMissing, CommandFailed, and the cause of ctx.
// A command that ends with a code other than 0 is none.
func (l *Local) Exec(ctx context.Context, cmd Command, output io.Writer) (Exit, error) {
	dir := l.absolute(cmd.Dir)
	env := maps.Clone(l.env)
	maps.Copy(env, cmd.Env)
	path, err := lookPath(cmd.Argv[0], env["PATH"], dir)
	if err != nil {
		return Exit{}, fault.Newf(fault.User, fault.ToolMissing, "run "+cmd.Argv[0], "Install it, or build the project first", "there is no program %s: %w", cmd.Argv[0], err)
	}
	list := make([]string, 0, len(env)+1)
	for key, value := range env {
		list = append(list, key+"="+value)
	}
	p := process.Command{
		Name: filepath.Base(path), Path: path, Args: cmd.Argv[1:], Dir: dir, Env: append(list, "PWD="+dir), Output: output, Grace: cmd.Grace,
	}
	exit, err := process.Run(ctx, p)
	result := Exit{Code: exit.Code, Signal: exit.Signal, Tail: exit.Tail, Duration: exit.Duration, Warning: exit.Warning}
	if _, ended := errors.AsType[*process.ExitError](err); err == nil || ended && ctx.Err() == nil {
		return result, nil
	}
	if ctx.Err() != nil {
		return result, fmt.Errorf("run %s: %w", p.Name, context.Cause(ctx))
	}
	return result, startError(&prepared{Command: p, dir: cmd.Dir}, err)
}

// Stat describes those of paths that exist.
func (l *Local) Stat(_ context.Context, paths []string) ([]Entry, error) {
	var entries []Entry
	for _, p := range paths {
		err := l.within(p, func(root *os.Root, rest string) error {
			found, err := statPaths(root, []string{rest})
			for _, entry := range found {
				entry.Path = p
				entries = append(entries, entry)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// ReadTree returns files of a folder as a tar stream, all for nil; the caller
// closes it.
func (l *Local) ReadTree(ctx context.Context, dir string, paths []string) (io.ReadCloser, error) {
	reader, writer := io.Pipe()
	go func() {
		err := l.within(dir, func(root *os.Root, rest string) error {
			tree, err := openTree(root, rest, false)
			if err != nil {
				return err
			}
			defer func() { _ = tree.Close() }()
			return readTree(ctx, tree, paths, writer)
		})
		_ = writer.CloseWithError(err)
	}()
	return reader, nil
}

// WriteTree extracts a tar stream into a folder.
func (l *Local) WriteTree(ctx context.Context, dir string, tree io.Reader, opts WriteOptions) error {
	return l.within(dir, func(root *os.Root, rest string) error {
		return opErrorOrNil("write", dir, writeTree(ctx, root, rest, tree, opts))
	})
}

// Remove removes paths of a folder.
func (l *Local) Remove(_ context.Context, dir string, paths []string) error {
	return l.within(dir, func(root *os.Root, rest string) error {
		return opErrorOrNil("remove from", dir, removePaths(root, rest, paths))
	})
}

func opErrorOrNil(verb, dir string, err error) error {
	if err == nil {
		return nil
	}
	return opError(verb, dir, err)
}

// split returns the folder on disk that a path is in, and the path in it.
func (l *Local) split(p string) (root, rest string) {
	if p == SourceDir {
		return l.source, "."
	}
	if rest, ok := strings.CutPrefix(p, SourceDir+"/"); ok {
		return l.source, rest
	}
	return l.root, p
}

// absolute is where a path is on disk.
func (l *Local) absolute(p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	root, rest := l.split(p)
	return filepath.Join(root, rest)
}

// within calls do with the folder that a path is in.
func (l *Local) within(p string, do func(root *os.Root, rest string) error) error {
	folder, rest := l.split(p)
	root, err := os.OpenRoot(folder)
	if err != nil {
		return opError("open", p, err)
	}
	defer func() { _ = root.Close() }()
	return do(root, rest)
}
