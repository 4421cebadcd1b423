package synth

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/aphex-pipeline/aphex/internal/archive"
	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// copyOutput runs the program in its arguments, which prints the path of a
// file, and copies that file to $0.
const copyOutput = `file=$("$@") && cp -- "$file" "$0"`

// produce runs the programs that make assets, in the app's folder of the
// worker, and puts what they made into the assembly. Each runs once.
func (s *synthesis) produce(ctx context.Context, dir string, selected []*assembly.Stack) error {
	wanted := map[string]assembly.FileAsset{}
	for _, stack := range selected {
		for _, f := range stack.Files() {
			if f.Packaging == assembly.PackagingExecutable {
				wanted[f.ProducedPath()] = f
			}
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	if err := s.writeScratch(ctx, nil); err != nil {
		return fmt.Errorf("%s: %w", s.request.op(), err)
	}
	limited, stop := context.WithTimeoutCause(ctx, s.config.Timeout, errTimeout)
	defer stop()
	for name, f := range wanted {
		target := path.Join(s.root, s.scratch, path.Base(name))
		argv := append([]string{"sh", "-c", copyOutput, target}, f.Executable...)
		exit, err := s.worker.Exec(limited, worker.Command{Argv: argv, Dir: path.Join(worker.SourceDir, s.request.App), Env: s.baseEnv(), Grace: s.config.Grace}, s.out)
		switch {
		case err != nil:
			return fmt.Errorf("%s: make asset %s: %w", s.request.op(), f.DisplayName, err)
		case exit.Code != 0:
			return fault.Newf(fault.User, fault.AssetFailed, s.request.op(), "The program must print the path of a file it has made, and nothing else",
				"the program of asset %s (%v) ended with %s; %s", f.DisplayName, f.Executable, outcome(exit), exit.LastLines())
		}
	}
	return s.fetchProduced(ctx, dir, path.Dir(assembly.FileAsset{}.ProducedPath()))
}

// fetchProduced copies the scratch folder into the assembly and removes it.
func (s *synthesis) fetchProduced(ctx context.Context, dir, folder string) error {
	op := s.request.op()
	inside := filepath.Join(dir, folder)
	if err := os.MkdirAll(inside, 0o700); err != nil {
		return fault.Newf(fault.System, fault.WorkspaceFailed, op, "", "make a folder for assets: %w", err)
	}
	root, err := os.OpenRoot(inside)
	if err != nil {
		return fault.Newf(fault.System, fault.WorkspaceFailed, op, "", "open the folder of assets: %w", err)
	}
	defer func() { _ = root.Close() }()
	stream, err := s.worker.ReadTree(ctx, s.scratch, nil)
	if err != nil {
		return fmt.Errorf("%s: read the assets that programs made: %w", op, err)
	}
	_, err = archive.Extract(ctx, root, stream, archive.Limits{Entries: maxAssemblyFiles, Bytes: maxAssemblyBytes})
	if err := errors.Join(err, stream.Close()); err != nil {
		return fmt.Errorf("%s: copy the assets that programs made: %w", op, err)
	}
	return s.worker.Remove(ctx, path.Dir(s.scratch), []string{path.Base(s.scratch)})
}
