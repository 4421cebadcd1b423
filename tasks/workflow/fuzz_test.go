package workflow_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/testkit/bounded"
	"github.com/aphex-pipeline/aphex/tasks/workflow"
)

// FuzzGenerate: every configuration and every installation that is accepted
// gives a template, the same bytes each time, that Argo accepts too.
func FuzzGenerate(f *testing.F) {
	cases, err := os.ReadDir(goldenDir)
	require.NoError(f, err)
	var configs, installations [][]byte
	for _, c := range cases {
		for file, list := range map[string]*[][]byte{pipeline.DefaultFile: &configs, pipeline.InstallationKey: &installations} {
			data, err := os.ReadFile(filepath.Join(goldenDir, c.Name(), file))
			require.NoError(f, err)
			*list = append(*list, data)
		}
		f.Add(configs[len(configs)-1], installations[len(installations)-1])
	}
	const known = 2 // "minimal", in order of names
	validated := map[string]bool{}
	f.Fuzz(func(t *testing.T, config, installation []byte) {
		bounded.Here(t)
		cfg, err := pipeline.Load("c", config)
		inst, instErr := pipeline.LoadInstallation("i", installation)
		if err != nil && instErr != nil {
			return
		}
		if err != nil {
			cfg, err = pipeline.Load("c", configs[known])
			require.NoError(t, err)
		}
		if instErr != nil {
			inst, err = pipeline.LoadInstallation("i", installations[known])
			require.NoError(t, err)
		}
		got, err := workflow.Generate(cfg, inst)
		require.NoError(t, err)
		again, err := workflow.Generate(cfg, inst)
		require.NoError(t, err)
		require.Equal(t, string(got), string(again))
		if !validated[string(got)] { // a change of what does not reach the template is no news to Argo
			validated[string(got)] = true
			validateArgo(t, decode(t, got))
		}
	})
}
