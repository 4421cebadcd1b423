package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/workspace"
)

// checkoutOf is the folder with .git at or above a file; empty if there is
// none.
func checkoutOf(file string) (string, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	for dir := filepath.Dir(file); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", nil
		}
	}
}

// checkoutFiles reads a checkout on this machine as a stage reads the commit.
type checkoutFiles struct{ root *os.Root }

var _ pipeline.Files = checkoutFiles{}

// File returns the content of a file. As in a commit, links are no files.
func (c checkoutFiles) File(_ context.Context, name string) ([]byte, error) {
	info, err := c.root.Lstat(filepath.FromSlash(name))
	if errors.Is(err, syscall.ENOTDIR) {
		return nil, fmt.Errorf("read %s: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: it is not a regular file: %w", name, fs.ErrNotExist)
	}
	file, err := c.root.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, workspace.MaxFile+1))
	if err == nil && len(data) > workspace.MaxFile {
		err = fmt.Errorf("read %s: it is larger than %d bytes", name, workspace.MaxFile)
	}
	return data, err
}
