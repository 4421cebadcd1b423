package workflow_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/tasks/workflow"
)

// Only the worker gets more rights, only where the installation says so, and
// they do not make it root.
func TestGenerate_RootlessImageBuilds(t *testing.T) {
	t.Parallel()
	cfg, inst := load(t, filepath.Join(goldenDir, "shop"))
	inst.Images.Rootless, inst.Images.Builder = true, pipeline.BuilderBuildah
	require.NoError(t, inst.Validate())
	data, err := workflow.Generate(cfg, inst)
	require.NoError(t, err)
	template := decode(t, data)
	validateArgo(t, template)
	patched := patchPod(t, agentPod, template.Spec.PodSpecPatch)
	unconfined := 0
	for _, c := range append(patched.InitContainers, patched.Containers...) {
		if c.SecurityContext == nil || c.SecurityContext.SeccompProfile == nil {
			continue
		}
		unconfined++
		require.Equal(t, "worker", c.Name)
		require.Equal(t, corev1.SeccompProfileTypeUnconfined, c.SecurityContext.SeccompProfile.Type)
		require.Equal(t, corev1.AppArmorProfileTypeUnconfined, c.SecurityContext.AppArmorProfile.Type)
		require.True(t, *c.SecurityContext.AllowPrivilegeEscalation)
		require.True(t, *c.SecurityContext.RunAsNonRoot)
		require.Equal(t, corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"SETUID", "SETGID"}}, *c.SecurityContext.Capabilities)
	}
	require.Equal(t, 1, unconfined)
	require.Contains(t, patched.Containers[0].Env, corev1.EnvVar{Name: "APHEX_IMAGE_BUILDER", Value: "buildah"})

	inst.Images.Builder = "kaniko"
	require.ErrorContains(t, inst.Validate(), "auto, docker or buildah")
}
