package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/aphex-pipeline/aphex/internal/worker"
)

func newInstall() *cobra.Command {
	return &cobra.Command{
		Use:   "install FILE",
		Short: "Copy this binary to FILE, for the worker container",
		Long: `Copies the running binary to FILE, atomically and executable. An init container
uses it to bring aphex into a toolchain image that does not have it.`,
		Args: exactArgs(1, "one argument: the file to write"),
		RunE: func(_ *cobra.Command, args []string) error {
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find the running binary: %w", err)
			}
			return worker.Install(self, args[0])
		},
	}
}
