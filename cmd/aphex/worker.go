package main

import (
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/aphex-pipeline/aphex/internal/version"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

func newWorker() *cobra.Command {
	var socket, root string
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Run user commands for the sidecar, in the toolchain container",
		Long: `Serves the worker protocol on a unix socket. It runs in the container whose
image has the toolchain, holds no credentials, and ends with its container.`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return worker.Serve(cmd.Context(), worker.ServerConfig{
				Socket: socket, Root: root, Environ: os.Environ(), Dedicated: true,
				Version: version.Get().Version,
				Logger:  slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), nil)),
			})
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "/aphex/run/worker.sock", "path of the unix socket")
	cmd.Flags().StringVar(&root, "root", "/workspace", "folder that all paths are relative to")
	return cmd
}
