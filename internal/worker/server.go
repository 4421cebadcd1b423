package worker

import (
	"context"
	"log/slog"
	"time"
)

type ServerConfig struct {
	Socket    string
	Root      string
	Environ   []string // the container's environment; nil: PATH only
	Dedicated bool     // the process is the worker and nothing else (cmd/aphex worker): umask, subreaper, not dumpable
	Version   string
	Grace     time.Duration
	Logger    *slog.Logger
}

func Serve(ctx context.Context, cfg ServerConfig) error { return errSoon }

func Install(src, dst string) error { return errSoon }
