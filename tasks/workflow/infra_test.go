package workflow_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/revision"
	"github.com/aphex-pipeline/aphex/internal/testkit/effects"
	"github.com/aphex-pipeline/aphex/tasks/task"
	"github.com/aphex-pipeline/aphex/tasks/workflow"
)

// deployedApps deploys apps as the test wants it; tasks/deploy tests how.
type deployedApps struct {
	apps []workflow.App
	// early and late are errors before and after the first write.
	early, late error
	// applied counts the applies of templates; all are those at the time of
	// each deployment.
	applied func() int
	all     []int
}

func (d *deployedApps) DeployApp(ctx context.Context, _ task.Request, _ task.Env, app workflow.App) (string, error) {
	d.all = append(d.all, d.applied())
	enter := app.Enter
	app.Enter = nil
	d.apps = append(d.apps, app)
	if d.early != nil {
		return "", d.early
	}
	if err := enter(ctx); err != nil {
		return "", err
	}
	return app.Folder + ": 1 stack in 3 s: infra created; 9 AWS calls", d.late
}

// state is the revision of the pipeline in a phase.
func inPhase(phase string) revision.State {
	return revision.State{Commit: strings.Repeat("a", 40), Run: "shop-x7k2p", RunUID: "u", Phase: phase}
}

func TestInfra_ComesBeforeTheTemplate(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.commit.app = "pipeline-infra/cdk.json"
	result, err := b.run(t, &effects.Memory{})
	require.NoError(t, err)
	require.Equal(t, []workflow.App{{Name: pipeline.Own, Folder: "pipeline-infra", Region: "us-east-1", Artifacts: pipeline.DefaultArtifacts}}, b.apps.apps)
	require.Equal(t, []int{0}, b.apps.all, "the template comes after it")
	require.Equal(t, 1, b.api.applied())
	require.Equal(t, fmt.Sprintf("pipeline-infra: 1 stack in 3 s: infra created; 9 AWS calls; WorkflowTemplate shop created, topology unchanged (%.19s)", b.topology), result.Message)
	require.Equal(t, result.Message+"\n", b.log.String())
	require.Equal(t, []revision.State{inPhase(revision.Deploying), inPhase(revision.Deployed)}, b.guard.entered)
}

func TestInfra_IsBesideTheConfiguration(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.commit.path, b.commit.app, b.configPath = "services/shop/aphex.yaml", "pipeline-infra/cdk.json", "services/shop/aphex.yaml"
	_, err := b.run(t, &effects.Memory{})
	require.NoError(t, err)
	require.Empty(t, b.apps.apps, "it is that of another pipeline of the repository")

	b.commit.app = "services/shop/pipeline-infra/cdk.json"
	_, err = b.run(t, &effects.Memory{})
	require.NoError(t, err)
	require.Equal(t, "services/shop/pipeline-infra", b.apps.apps[0].Folder)
}

func TestInfra_OneThatFailsLeavesTheTemplateAsItIs(t *testing.T) {
	t.Parallel()
	broken := fault.Newf(fault.User, fault.StackFailed, "deploy stack infra (eu-west-1)", "Mend it", "no such type")
	for name, tt := range map[string]struct {
		spoil   func(*deployedApps)
		entered []revision.State
	}{
		"before its first write": {func(d *deployedApps) { d.early = broken }, nil},
		"later":                  {func(d *deployedApps) { d.late = broken }, []revision.State{inPhase(revision.Deploying)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.commit.app = "pipeline-infra/cdk.json"
			b.commit.content += "\nselfModification: same-run\n"
			b.topology = "sha256:another"
			tt.spoil(&b.apps)
			_, err := b.run(t, &effects.Memory{})
			require.Equal(t, fault.StackFailed, fault.From(err).Reason)
			require.Equal(t, "deploy pipeline-infra, without which the pipeline stays as it is: deploy stack infra (eu-west-1): no such type. Mend it [StackFailed]", fault.Message(err))
			require.Zero(t, b.api.applied())
			require.Empty(t, b.handed.runs)
			require.Equal(t, tt.entered, b.guard.entered, "an older commit may not overwrite what has begun, and only that")

			b.apps.early, b.apps.late = nil, nil
			_, err = b.run(t, &effects.Memory{})
			require.NoError(t, err)
			require.Equal(t, 1, b.api.applied())
		})
	}
}

// What is known to be wrong with the template's part, and an older commit, keep
// the app from being deployed.
func TestInfra_IsNotDeployedInVain(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*bench){
		"older commit": func(b *bench) {
			b.guard.Decision = revision.Decision{Superseded: true, Previous: revision.State{Commit: strings.Repeat("b", 40), Run: "shop-newer"}}
		},
		"no installation":       func(b *bench) { delete(b.api.objects, installationPath) },
		"invalid configuration": func(b *bench) { b.commit.content = "version: 2" },
		"template of another pipeline": func(b *bench) {
			b.api.put(templatePath, `{apiVersion: argoproj.io/v1alpha1, kind: WorkflowTemplate, metadata: {name: shop, namespace: shop}}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.commit.app = "pipeline-infra/cdk.json"
			spoil(b)
			result, err := b.run(t, &effects.Memory{})
			require.True(t, err != nil || result.Reason == string(fault.Superseded))
			require.Empty(t, b.apps.apps)
			require.Empty(t, b.guard.entered)
		})
	}
}

// A run that was overtaken while its app was synthesized writes nothing.
func TestInfra_EntersBeforeItsFirstWrite(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.commit.app = "pipeline-infra/cdk.json"
	b.guard.err = fault.Newf(fault.Transient, fault.StackBusy, "record the revision", "", "run shop-other began")
	_, err := b.run(t, &effects.Memory{})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StackBusy, Err: errors.New("busy")})
	require.Zero(t, b.api.applied())
	_, err = b.client.WorkflowTemplate(t.Context(), "shop", "shop")
	require.ErrorIs(t, err, kube.ErrNotFound)
}
