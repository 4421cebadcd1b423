package pipeline

import (
	"context"
	"errors"
	"io/fs"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// Files reads files of the commit under way.
type Files interface {
	// File returns the content of a file by its slash-separated path. The
	// error for a file the commit does not have wraps fs.ErrNotExist.
	File(ctx context.Context, path string) ([]byte, error)
}

// Read loads the configuration at path in the commit.
//
// Errors: ConfigMissing if the commit has no such file, ConfigInvalid around an
// *InvalidError, and those of files.
func Read(ctx context.Context, files Files, path string) (*Config, error) {
	data, err := files.File(ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(fault.User, fault.ConfigMissing, "read the configuration",
			"Add the file to the commit, or correct the path (configPath of the pipeline's installation)", err)
	}
	if err != nil {
		return nil, err
	}
	cfg, err := Load(path, data)
	if err != nil {
		return nil, fault.Wrap(fault.User, fault.ConfigInvalid, "read the configuration",
			"Mend it and push again; `aphex validate "+path+"` shows the same findings before a push", err)
	}
	return cfg, nil
}
