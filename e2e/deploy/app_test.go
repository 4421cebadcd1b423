package deploy_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/tasks/deploy"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// app is an app that is deployed as a whole, in fresh pods that share a bucket.
type app struct {
	*stage

	bucket  *store.Dir
	entered int
	refuse  error
}

// newApp has the stacks of newStage, and one in a stage of the app that is
// named so that it comes last by its dependency alone.
func newApp(t *testing.T) *app {
	t.Helper()
	a := &app{stage: newStage(t, emulator(t)), bucket: store.NewDir(t.TempDir())}
	a.config = "" // it is in no configuration
	a.replace("manifest.json", `"artifacts": {`, `"artifacts": {"a-prod": {"type": "cdk:cloud-assembly", "properties": {"directoryName": "assembly-prod"}, "dependencies": ["api"]}, `)
	a.files["assembly-prod/manifest.json"] = a.expand(`{"version": "55.0.0", "artifacts": {"web": {"type": "aws:cloudformation:stack", "displayName": "prod/web",
	  "environment": "aws://111111111111/eu-west-1", "properties": {"templateFile": "web.template.json", "stackName": "PREFIX-web"}}}}`)
	a.files["assembly-prod/web.template.json"] = `{"Resources": {"Value": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "one"}}}}`
	return a
}

func (a *app) deploy() (string, error) {
	a.t.Helper()
	written := len(a.writes())
	return a.new(a.bucket).DeployApp(a.t.Context(), a.request(task.StageDeployPipeline, "", "b"), a.env(), deploy.App{
		Name: pipeline.Own, Folder: "pipeline-infra", Region: region, Artifacts: "dist",
		Enter: func(context.Context) error {
			require.Len(a.t, a.writes(), written, "before the first write")
			a.entered++
			return a.refuse
		},
	})
}

func TestApp_DeploysEveryStack(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	summary, err := a.deploy()
	require.NoError(t, err, a.log.String())
	require.Regexp(t, `^pipeline-infra: 3 stacks in \d+ s: PREFIX-data created, PREFIX-api created, PREFIX-web created; \d+ AWS calls$`, strings.ReplaceAll(summary, a.prefix, "PREFIX"))
	require.Equal(t, 1, a.entered)
	require.Empty(t, a.phases, "the revision is the caller's")
	require.Contains(t, a.progress, a.expand("pipeline: deploying PREFIX-web (3/3)"))
	synth := a.synths[0]
	require.Equal(t, pipeline.Environment{Name: pipeline.Own, Account: account, Region: region}, synth.Environment)
	require.Equal(t, []string{"pipeline-infra", "dist"}, []string{synth.App, synth.Artifacts})
	require.Empty(t, synth.Stacks, "all of them")
	for _, e := range a.kept {
		require.Equal(t, []string{pipeline.Own, account}, []string{e.Environment, e.Account})
	}
	outputs, _, err := a.bucket.Get(t.Context(), record.OutputsKey("uid-"+a.prefix, pipeline.Own))
	require.NoError(t, err)
	require.NoError(t, outputs.Close())

	writes, synths := len(a.writes()), len(a.synths)
	again, err := a.deploy()
	require.NoError(t, err, a.log.String())
	require.Contains(t, again, a.prefix+"-web created", "the same execution has the same result")
	require.Len(t, a.synths, synths)
	require.Len(t, a.writes(), writes)

	a.journal = newMemory()
	summary, err = a.deploy()
	require.NoError(t, err, a.log.String())
	require.Contains(t, summary, a.expand("PREFIX-data no change, PREFIX-api no change, PREFIX-web no change"))
	require.Len(t, a.writes(), writes)
}

// An execution that is resumed in another pod deploys what it has synthesized,
// whatever the app would say by now.
func TestApp_ResumedDeploysItsOwnAssembly(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	a.refuse = errDied
	_, err := a.deploy()
	require.ErrorIs(t, err, errDied)
	require.Empty(t, a.writes())

	a.refuse = nil
	a.replace("assembly-prod/manifest.json", "PREFIX-web", "PREFIX-other")
	summary, err := a.deploy()
	require.NoError(t, err, a.log.String())
	require.Contains(t, summary, a.prefix+"-web created")
	require.Len(t, a.synths, 1)
}

func TestApp_RefusesBeforeAnyWrite(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		edit   func(*app)
		reason fault.Reason
		text   string
	}{
		"another account": {func(a *app) { a.replace("assembly-prod/manifest.json", "111111111111", "333333333333") }, fault.EnvironmentMismatch, "333333333333"},
		"another region":  {func(a *app) { a.replace("assembly-prod/manifest.json", "eu-west-1", "us-east-1") }, fault.EnvironmentMismatch, "us-east-1"},
		"annotated error": {func(a *app) {
			a.replace("assembly-prod/manifest.json", `"displayName": "prod/web",`, `"displayName": "prod/web", "metadata": {"/prod/web": [{"type": "aws:cdk:error", "data": "quota"}]},`)
		}, fault.SynthAnnotation, "quota"},
		"missing context": {func(a *app) {
			a.replace("manifest.json", `"version": "55.0.0",`, `"version": "55.0.0", "missing": [{"key": "vpc-1", "provider": "vpc-provider", "props": {}}],`)
		}, fault.ContextMissing, "vpc-1"},
		"no stacks":       {func(a *app) { a.files["manifest.json"] = `{"version": "55.0.0"}` }, fault.StackUnknown, "defines no stacks"},
		"two of one name": {func(a *app) { a.replace("assembly-prod/manifest.json", "PREFIX-web", "PREFIX-api") }, fault.StackAmbiguous, "prod/web"},
		"not bootstrapped": {func(a *app) {
			a.base = "444444444444"
			delete(a.files, "assembly-prod/manifest.json")
			a.replace("manifest.json", `"type": "cdk:cloud-assembly"`, `"type": "cdk:tree"`)
		}, fault.NotBootstrapped, "cdk bootstrap aws://444444444444/eu-west-1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t)
			tt.edit(a)
			_, err := a.deploy()
			require.ErrorIs(t, err, &fault.Fault{Reason: tt.reason, Err: errors.New(string(tt.reason))})
			require.Contains(t, fault.Message(err), tt.text)
			require.NotContains(t, fault.Message(err), "in the configuration")
			require.Zero(t, a.entered)
			require.Empty(t, a.writes())
		})
	}
}
