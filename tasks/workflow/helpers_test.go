package workflow_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	"github.com/argoproj/argo-workflows/v3/workflow/validate"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kyaml "sigs.k8s.io/yaml"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// requirer is what *testing.T and *rapid.T share.
type requirer interface {
	require.TestingT
	Helper()
}

// load reads the configuration and installation of a golden case.
func load(t *testing.T, dir string) (*pipeline.Config, pipeline.Installation) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, pipeline.DefaultFile))
	require.NoError(t, err)
	cfg, err := pipeline.Load(pipeline.DefaultFile, data)
	require.NoError(t, err)
	data, err = os.ReadFile(filepath.Join(dir, pipeline.InstallationKey))
	require.NoError(t, err)
	inst, err := pipeline.LoadInstallation(pipeline.InstallationKey, data)
	require.NoError(t, err)
	return cfg, inst
}

// golden compares got with a golden file, or rewrites it with -update.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(file, got, 0o600))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

// decode reads a generated template the way the API server does, refusing
// fields Argo does not have.
func decode(t requirer, data []byte) *wfv1.WorkflowTemplate {
	t.Helper()
	tmpl := &wfv1.WorkflowTemplate{}
	require.NoError(t, kyaml.UnmarshalStrict(data, tmpl))
	return tmpl
}

// stored is a cluster that holds one template.
type stored struct{ template *wfv1.WorkflowTemplate }

// Get returns the template, whatever it is called.
func (s stored) Get(string) (*wfv1.WorkflowTemplate, error) { return s.template, nil }

// none is a cluster without cluster-wide templates.
type none struct{}

// Get fails.
func (none) Get(name string) (*wfv1.ClusterWorkflowTemplate, error) {
	return nil, fmt.Errorf("no cluster-wide template %s", name)
}

// validator guards Argo's validator, which counts placeholders in a variable
// of its package.
var validator sync.Mutex

// validateArgo runs Argo's own validator over the template, and over a
// Workflow made from it as a submission would.
func validateArgo(t requirer, tmpl *wfv1.WorkflowTemplate) {
	t.Helper()
	validator.Lock()
	defer validator.Unlock()
	templates, clusterTemplates := stored{tmpl}, none{}
	require.NoError(t, validate.ValidateWorkflowTemplate(templates, clusterTemplates, tmpl, nil, validate.ValidateOpts{}))
	wf := &wfv1.Workflow{
		ObjectMeta: metav1.ObjectMeta{Name: "run", Namespace: tmpl.Namespace},
		Spec: wfv1.WorkflowSpec{
			WorkflowTemplateRef: &wfv1.WorkflowTemplateRef{Name: tmpl.Name},
			Arguments: wfv1.Arguments{Parameters: []wfv1.Parameter{
				{Name: pipeline.ArgumentCommit, Value: wfv1.AnyStringPtr("0123456789012345678901234567890123456789")},
			}},
		},
	}
	require.NoError(t, validate.ValidateWorkflow(templates, clusterTemplates, wf, nil, validate.ValidateOpts{}))
	wf.Spec.Arguments = wfv1.Arguments{}
	require.ErrorContains(t, validate.ValidateWorkflow(templates, clusterTemplates, wf, nil, validate.ValidateOpts{}), pipeline.ArgumentCommit)
}
