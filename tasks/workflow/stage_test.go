package workflow_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/handover"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/revision"
	"github.com/aphex-pipeline/aphex/internal/testkit/effects"
	"github.com/aphex-pipeline/aphex/internal/workspace"
	"github.com/aphex-pipeline/aphex/tasks/task"
	"github.com/aphex-pipeline/aphex/tasks/workflow"
)

// commit is the checkout of one commit that holds one file, and perhaps the
// cdk.json of an app.
type commit struct {
	path, content, app string
	prepared           []workspace.Source
}

func (c *commit) Prepare(_ context.Context, src workspace.Source, _ io.Writer) error {
	c.prepared = append(c.prepared, src)
	return nil
}

func (c *commit) File(_ context.Context, path string) ([]byte, error) {
	switch path {
	case c.path:
		return []byte(c.content), nil
	case c.app:
		return []byte("{}"), nil
	}
	return nil, fmt.Errorf("read %s of the commit: %w", path, fs.ErrNotExist)
}

func (c *commit) IsAncestor(context.Context, string, string) (bool, error) { return false, nil }

// decided is a guard whose answer the test gives; internal/revision tests how
// it comes about.
type decided struct {
	revision.Decision
	entered []revision.State
	// err refuses entering.
	err error
}

func (d *decided) Check(_ context.Context, _ revision.Ancestry, environment, _ string, _ bool) (revision.Decision, error) {
	if environment != revision.Pipeline {
		return revision.Decision{}, fmt.Errorf("asked for %q", environment)
	}
	return d.Decision, nil
}

func (d *decided) Enter(_ context.Context, _ string, _, next revision.State) error {
	if d.err != nil {
		return d.err
	}
	d.entered = append(d.entered, next)
	return nil
}

// handovers counts what was handed over; internal/handover tests how.
type handovers struct {
	runs []handover.Run
	err  error
}

func (h *handovers) Begin(_ context.Context, run handover.Run) (string, error) {
	h.runs = append(h.runs, run)
	return "shop-next", h.err
}

// bench is a pipeline "shop" with its installation in a cluster.
type bench struct {
	api    *apiServer
	client *kube.Client
	commit *commit
	guard  *decided
	handed handovers
	apps   deployedApps
	// topology is what the next run starts with.
	topology   string
	configPath string
	log        bytes.Buffer
}

func newBench(t *testing.T) *bench {
	t.Helper()
	api, client := serve(t)
	config, err := os.ReadFile(filepath.Join(goldenDir, "shop", pipeline.DefaultFile))
	require.NoError(t, err)
	inst, err := os.ReadFile(filepath.Join(goldenDir, "shop", pipeline.InstallationKey))
	require.NoError(t, err)
	b := &bench{api: api, client: client, commit: &commit{path: pipeline.DefaultFile, content: string(config)}, guard: &decided{}, configPath: pipeline.DefaultFile}
	b.apps.applied = api.applied
	b.install(string(inst))
	cfg, err := pipeline.Load(pipeline.DefaultFile, config)
	require.NoError(t, err)
	b.topology = pipeline.TopologyDigest(cfg)
	return b
}

func (b *bench) install(content string) {
	indented := strings.ReplaceAll(strings.TrimSpace(content), "\n", "\n    ")
	b.api.put(installationPath, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: aphex-pipeline-shop, namespace: shop}\ndata:\n  installation.yaml: |\n    "+indented+"\n")
}

// run runs the stage as one execution whose journal is done.
func (b *bench) run(t *testing.T, done *effects.Memory) (task.Result, error) {
	t.Helper()
	stage := workflow.NewStage(workflow.Config{Kube: b.client, Workspace: b.commit, Guard: b.guard, Successors: &b.handed, Apps: &b.apps})
	return stage.Run(t.Context(), task.Request{
		Run:   task.Run{Namespace: "shop", Name: "shop-x7k2p", UID: "u"},
		Stage: task.StageDeployPipeline, Pipeline: "shop", ConfigPath: b.configPath,
		RepoURL: "https://git.example.com/shop.git", Commit: strings.Repeat("a", 40), Branch: "main",
		Topology: b.topology,
	}, task.Env{Output: &b.log, Logger: slog.New(slog.DiscardHandler), Progress: func(string) {}, Effects: done})
}

func TestStage_CreatesThenLeavesAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	result, err := b.run(t, &effects.Memory{})
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("WorkflowTemplate shop created, topology unchanged (%.19s)", b.topology), result.Message)
	require.Equal(t, b.topology, result.Outputs[task.OutputTopology])
	require.Equal(t, result.Message+"\n", b.log.String())
	require.Equal(t, []workspace.Source{{RepoURL: "https://git.example.com/shop.git", Commit: strings.Repeat("a", 40), Branch: "main"}}, b.commit.prepared)

	stored, err := b.client.WorkflowTemplate(t.Context(), "shop", "shop")
	require.NoError(t, err)
	require.Equal(t, b.topology, stored.GetAnnotations()[pipeline.AnnotationTopology])

	result, err = b.run(t, &effects.Memory{})
	require.NoError(t, err)
	require.Contains(t, result.Message, "WorkflowTemplate shop unchanged")
}

func TestStage_LeavesANewerPipelineAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.guard.Decision = revision.Decision{Superseded: true, Previous: revision.State{Commit: strings.Repeat("b", 40), Run: "shop-newer"}}
	result, err := b.run(t, &effects.Memory{})
	require.NoError(t, err)
	require.Equal(t, string(fault.Superseded), result.Reason)
	require.Contains(t, result.Message, "shop-newer")
	require.Contains(t, result.Message, "allow-older=true")
	require.Empty(t, b.guard.entered)
	_, err = b.client.WorkflowTemplate(t.Context(), "shop", "shop")
	require.ErrorIs(t, err, kube.ErrNotFound, "nothing was applied")

	b.guard.Decision = revision.Decision{}
	_, err = b.run(t, &effects.Memory{})
	require.NoError(t, err)
	require.Equal(t, []revision.State{{Commit: strings.Repeat("a", 40), Run: "shop-x7k2p", RunUID: "u", Phase: revision.Deployed}}, b.guard.entered)
}

// Feature: aphex-pipeline, Property 7: Self-modification visibility
func TestStage_SaysWhatTheNextRunWillHave(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, err := b.run(t, &effects.Memory{})
	require.NoError(t, err)
	b.commit.content = strings.Replace(b.commit.content, "name: prod", "name: live", 1)
	journal := &effects.Memory{}
	result, err := b.run(t, journal)
	require.NoError(t, err)
	require.Contains(t, result.Message, "WorkflowTemplate shop configured, topology sha256:")
	require.Contains(t, result.Message, "; added, waits for the next run: deploy-live; removed, passed over in this run: deploy-prod")
	require.NotEqual(t, b.topology, result.Outputs[task.OutputTopology])
	require.Equal(t, string(fault.TopologyDeferred), result.Reason, "what is announced goes by it")

	// The process dies after the apply: the same execution, asked again, tells
	// the same although the cluster has the new template by now.
	again, err := b.run(t, journal)
	require.NoError(t, err)
	require.Equal(t, strings.Replace(result.Message, "configured", "unchanged", 1), again.Message)

	retried, err := b.run(t, &effects.Memory{})
	require.NoError(t, err)
	require.Contains(t, retried.Message, "the template has it already, by an earlier try of this run or another run")

	b.commit.content = strings.Replace(b.commit.content, "name: live", "name: late", 1)
	other, err := b.run(t, &effects.Memory{})
	require.NoError(t, err)
	require.Contains(t, other.Message, "changed by somebody else")
}

func TestStage_SameRunHandsOverWhenTheTopologyChanged(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.commit.content += "\nselfModification: same-run\n"
	result, err := b.run(t, &effects.Memory{})
	require.NoError(t, err)
	require.Empty(t, b.handed.runs, "the run has the topology its commit needs")
	require.Empty(t, result.Reason)

	b.commit.content = strings.Replace(b.commit.content, "name: prod", "name: live", 1)
	for range 2 { // asked again, as after a death
		result, err = b.run(t, &effects.Memory{})
		require.NoError(t, err)
		require.Equal(t, string(fault.HandedOver), result.Reason)
		require.Contains(t, result.Message, "in run shop-next: handed over to it")
		require.NotEqual(t, b.topology, result.Outputs[task.OutputTopology])
	}
	own := handover.Run{Namespace: "shop", Name: "shop-x7k2p", UID: "u", Pipeline: "shop"}
	require.Equal(t, []handover.Run{own, own}, b.handed.runs)

	b.handed.err = fault.Newf(fault.Transient, fault.KubernetesRejected, "start the successor of the run", "", "away")
	_, err = b.run(t, &effects.Memory{})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.KubernetesRejected})

	b.handed = handovers{}
	b.guard.Decision = revision.Decision{Superseded: true, Previous: revision.State{Commit: strings.Repeat("b", 40), Run: "shop-newer"}}
	_, err = b.run(t, &effects.Memory{})
	require.NoError(t, err)
	require.Empty(t, b.handed.runs, "an older commit neither changes the pipeline nor hands over")
}

func TestStage_SaysThatOnlyTheOrderChanged(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const config = `
version: "1.0"
build: {commands: [make]}
environments:
  - {name: %s, region: eu-west-1, account: "111111111111", stacks: [{name: app, path: .}]}
  - {name: %s, region: eu-west-1, account: "111111111111", stacks: [{name: app, path: .}]}
`
	b.commit.content = fmt.Sprintf(config, "a", "b")
	result, err := b.run(t, &effects.Memory{})
	require.NoError(t, err)
	b.topology = result.Outputs[task.OutputTopology]
	b.commit.content = fmt.Sprintf(config, "b", "a")
	result, err = b.run(t, &effects.Memory{})
	require.NoError(t, err)
	require.Contains(t, result.Message, "the same stages in another order")
}

func TestStage_Faults(t *testing.T) {
	t.Parallel()
	conflict := status(409, metav1.StatusReasonConflict, "Apply failed with 1 conflict")
	conflict.Details = &metav1.StatusDetails{Causes: []metav1.StatusCause{{
		Type: metav1.CauseTypeFieldManagerConflict, Field: ".spec.onExit", Message: `conflict with "argocd-controller" using argoproj.io/v1alpha1`,
	}}}
	const owned = `{apiVersion: argoproj.io/v1alpha1, kind: WorkflowTemplate, metadata: {name: shop, namespace: shop, labels: {aphex.dev/pipeline: %q}}}`
	tests := map[string]struct {
		spoil   func(*bench)
		reason  fault.Reason
		message string
		applies int
	}{
		"no installation": {
			func(b *bench) { delete(b.api.objects, installationPath) },
			fault.InstallationMissing, "ConfigMap shop/aphex-pipeline-shop", 0,
		},
		"installation without its key": {
			func(b *bench) { b.api.put(installationPath, "{apiVersion: v1, kind: ConfigMap, data: {other: x}}") },
			fault.InstallationMissing, "no key installation.yaml", 0,
		},
		"invalid installation": {
			func(b *bench) { b.install("pipeline: shop\nbucket: UPPER") }, fault.ConfigInvalid, `"UPPER"`, 0,
		},
		"installation of another pipeline": {
			func(b *bench) {
				b.install(strings.TrimSpace(`
pipeline: other
namespace: shop
repoUrl: https://git.example.com/other.git
bucket: bucket
region: eu-west-1
images: {plugin: p, worker: w}
`))
			}, fault.ConfigInvalid, "describes pipeline other in namespace shop", 0,
		},
		"no configuration": {
			func(b *bench) { b.commit.path = "elsewhere.yaml" }, fault.ConfigMissing, "aphex-config.yaml", 0,
		},
		"invalid configuration": {
			func(b *bench) { b.commit.content = "version: 2" }, fault.ConfigInvalid, "version", 0,
		},
		"environment with a stage's name": {
			func(b *bench) {
				b.commit.content = strings.Replace(b.commit.content, "name: prod", "name: pipeline", 1)
			},
			fault.ConfigInvalid, "pipeline", 0,
		},
		"template of another pipeline": {
			func(b *bench) { b.api.put(templatePath, fmt.Sprintf(owned, "other")) },
			fault.KubernetesRejected, `is "other", not "shop"`, 0,
		},
		"template of nobody": {
			func(b *bench) { b.api.put(templatePath, fmt.Sprintf(owned, "")) }, fault.KubernetesRejected, `is ""`, 0,
		},
		"fields of another manager": {
			func(b *bench) { b.api.refusal = conflict }, fault.KubernetesRejected, `.spec.onExit is owned by "argocd-controller"`, 1,
		},
		"no rights": {
			func(b *bench) { b.api.refusal = status(403, metav1.StatusReasonForbidden, "not allowed") },
			fault.KubernetesRejected, "aphex-executor-plugin", 1,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			tt.spoil(b)
			_, err := b.run(t, &effects.Memory{})
			require.Error(t, err)
			require.Equal(t, tt.reason, fault.From(err).Reason, err)
			require.Contains(t, fault.Message(err), tt.message)
			require.Equal(t, tt.applies, b.api.applied())
		})
	}
}
