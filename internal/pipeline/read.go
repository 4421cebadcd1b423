package pipeline

import (
	"context"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// Files reads files of the commit under way.
type Files interface {
	// File returns the content of a file by its slash-separated path. A file
	// the commit does not have is a fault with reason ConfigMissing.
	File(ctx context.Context, path string) ([]byte, error)
}

// Read loads the configuration at path in the commit.
//
// Errors: ConfigMissing from files, ConfigInvalid around an *InvalidError.
func Read(ctx context.Context, files Files, path string) (*Config, error) {
	data, err := files.File(ctx, path)
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
