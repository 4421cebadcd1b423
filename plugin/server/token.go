package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"
)

// DefaultTokenFile is where Argo puts the plugin's token.
const DefaultTokenFile = "/var/run/argo/token" //nolint:gosec // a path, not a token

// tokenDelay is the pause before a token file that is not there yet is looked
// for again.
const tokenDelay = 100 * time.Millisecond

// ReadToken returns the content of the token file. While there is none, or it
// is empty, it waits: the file is written by another container of the pod.
//
// Errors: the cause of ctx; a file that may not be read, which is permanent.
func ReadToken(ctx context.Context, path string, logger *slog.Logger) (string, error) {
	waiting := false
	for {
		raw, err := os.ReadFile(path)
		token := strings.TrimSpace(string(raw))
		switch {
		case err == nil && token != "":
			return token, nil
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("read the agent's token (the container needs uid 8737 or group 0): %w", err)
		}
		if !waiting {
			waiting = true
			logger.InfoContext(ctx, "waiting for the agent's token", slog.String("path", path))
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(tokenDelay):
		}
	}
}
