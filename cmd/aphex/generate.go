package main

import (
	"github.com/spf13/cobra"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/tasks/workflow"
)

func newGenerate() *cobra.Command {
	var config, installation string
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Print the WorkflowTemplate of a pipeline",
		Long: `Prints the WorkflowTemplate that configuration and installation make, to be
applied with kubectl. Equal input gives equal bytes: deploy-pipeline makes the
same template inside a run.`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(config)
			if err != nil {
				return err
			}
			inst, err := loadInstallation(installation)
			if err != nil {
				return err
			}
			template, err := workflow.Generate(cfg, inst)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(template)
			return err
		},
	}
	cmd.Flags().StringVarP(&config, "config", "c", pipeline.DefaultFile, "the repository's configuration")
	cmd.Flags().StringVarP(&installation, "installation", "i", "installation.yaml", "the pipeline's settings in the cluster")
	return cmd
}

func loadInstallation(name string) (pipeline.Installation, error) {
	data, err := readFile(name)
	if err != nil {
		return pipeline.Installation{}, err
	}
	inst, err := pipeline.LoadInstallation(name, data)
	return inst, fault.Wrap(fault.User, fault.ConfigInvalid, "read the installation", "Mend the file", err)
}
