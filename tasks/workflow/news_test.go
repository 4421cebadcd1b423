package workflow_test

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/reconcile"
	"github.com/aphex-pipeline/aphex/tasks/workflow"
)

// Whoever closes the record of a run from outside finds the channels where the
// generator has put them.
func TestGenerate_ReconcileFindsTheChannels(t *testing.T) {
	t.Parallel()
	for _, runner := range []string{pipeline.RunnerPlugin, pipeline.RunnerContainer} {
		cfg, inst := load(t, filepath.Join(goldenDir, "container"))
		inst.Runner = runner
		require.NotEmpty(t, cfg.Notifications)
		data, err := workflow.Generate(cfg, inst)
		require.NoError(t, err)
		var stored []kube.StoredTemplate
		for _, step := range decode(t, data).Spec.Templates {
			next := kube.StoredTemplate{Name: step.Name}
			if step.Plugin != nil {
				require.NoError(t, json.Unmarshal(step.Plugin.Value, &next.Plugin))
			}
			if step.Container != nil {
				next.Args = step.Container.Args
			}
			stored = append(stored, next)
		}
		plan, err := reconcile.Plan(stored)
		require.NoError(t, err)
		require.Equal(t, notify.Plan{ArgoURL: cfg.Argo.URL, Channels: cfg.Notifications}, plan)
	}
}

// mounting is what a container of the pod mounts.
type mounting struct {
	Name         string `json:"name"`
	VolumeMounts []struct {
		Name      string `json:"name"`
		MountPath string `json:"mountPath"`
	} `json:"volumeMounts"`
}

// Secrets of build commands and channels are the sidecar's to read, and nobody
// else's.
func TestGenerate_SecretsAreMountedInTheSidecarAlone(t *testing.T) {
	t.Parallel()
	for _, runner := range []string{pipeline.RunnerPlugin, pipeline.RunnerContainer} {
		cfg, inst := load(t, filepath.Join(goldenDir, "everything"))
		inst.Runner = runner
		data, err := workflow.Generate(cfg, inst)
		require.NoError(t, err)
		var pod struct {
			InitContainers []mounting `json:"initContainers"`
			Containers     []mounting `json:"containers"`
			Volumes        []struct {
				Name   string `json:"name"`
				Secret struct {
					SecretName string `json:"secretName"`
					Optional   bool   `json:"optional"`
				} `json:"secret"`
			} `json:"volumes"`
		}
		require.NoError(t, json.Unmarshal([]byte(decode(t, data).Spec.PodSpecPatch), &pod))
		for name, path := range map[string]string{"npm": "/var/run/secrets/aphex/build/npm", "chat": "/var/run/secrets/aphex/channels/chat"} {
			volume := ""
			for _, v := range pod.Volumes {
				if v.Secret.SecretName == name {
					volume = v.Name
					require.True(t, v.Secret.Optional, "a run begins without it, and says so")
				}
			}
			require.NotEmpty(t, volume)
			mounted := map[string]string{}
			for _, c := range append(pod.InitContainers, pod.Containers...) {
				for _, m := range c.VolumeMounts {
					if m.Name == volume {
						mounted[c.Name] = m.MountPath
					}
				}
			}
			sidecar := map[string]string{pipeline.RunnerPlugin: "aphex-executor-plugin", pipeline.RunnerContainer: "main"}[runner]
			require.Equal(t, map[string]string{sidecar: path}, mounted)
		}
	}
}
