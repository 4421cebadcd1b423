// Package static builds small programs that need nothing of the container they
// run in: what an image from scratch can hold.
package static

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build compiles the source of a Go program and returns the executable.
func Build(ctx context.Context, source string) (_ string, err error) {
	dir, err := os.MkdirTemp("", "aphex-static-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file, out := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, file)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if said, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build a program: %w: %s", err, said)
	}
	data, err := os.ReadFile(out)
	return string(data), err
}
