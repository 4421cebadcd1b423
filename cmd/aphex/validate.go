package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

// maxFileBytes bounds a configuration or installation file.
const maxFileBytes = 1 << 20

func newValidate() *cobra.Command {
	var schema bool
	cmd := &cobra.Command{
		Use:   "validate [FILE]",
		Short: "Check a configuration and print every finding with its position",
		Long: `Checks FILE (default aphex-config.yaml) against the schema and all rules that
need neither a cluster nor AWS. Every finding is printed at once as
file:line:column: path: what, what is allowed. Exit code 2 if there are any.`,
		Args: atMostArgs(1, "at most one argument: the file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if schema {
				_, err := cmd.OutOrStdout().Write(pipeline.Schema())
				return err
			}
			name := pipeline.DefaultFile
			if len(args) == 1 {
				name = args[0]
			}
			cfg, err := loadConfig(name)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is valid: %d environments, topology %s\n",
				name, len(cfg.Environments), pipeline.TopologyDigest(cfg))
			return err
		},
	}
	cmd.Flags().BoolVar(&schema, "schema", false, "print the JSON schema instead, for editors")
	return cmd
}

func loadConfig(name string) (*pipeline.Config, error) {
	data, err := readFile(name)
	if err != nil {
		return nil, err
	}
	return pipeline.Load(name, data)
}

// readFile reads a bounded file.
func readFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fault.Wrap(fault.User, fault.ConfigMissing, "read "+name, "Give the path of an existing file", err)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil && len(data) > maxFileBytes {
		err = fmt.Errorf("it is larger than %d bytes", maxFileBytes)
	}
	return data, fault.Wrap(fault.User, fault.ConfigInvalid, "read "+name, "Give the path of a readable file of at most 1 MiB", err)
}
