package deploy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/outputs"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/tasks/deploy"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// parameterOf is an assembly of one stack with one parameter that has a value.
func (s *stage) parameterOf(stack, value string) map[string]string {
	return map[string]string{
		"manifest.json": fmt.Sprintf(`{"version": "55.0.0", "artifacts": {"one": {"type": "aws:cloudformation:stack", "environment": "aws://unknown-account/unknown-region",
  "properties": {"templateFile": "one.json", "stackName": %q, "assumeRoleArn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/cdk-hnb659fds-deploy-role-${AWS::AccountId}-${AWS::Region}"}}}}`, stack),
		"one.json": fmt.Sprintf(`{"Resources": {"Value": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Name": "/%s", "Value": %q}}},
  "Outputs": {"Name": {"Value": {"Ref": "Value"}}, "Value": {"Value": {"Fn::GetAtt": ["Value", "Value"]}}}}`, stack, value),
	}
}

// An app that is deployed after another one in the same stage is synthesized
// when the other one's stacks are there: what it looks up is what they made.
// The stack that comes last is the first app's, which is not synthesized again.
//
// Feature: aphex-pipeline, Property 9: Stack deployment ordering
// Feature: aphex-pipeline, Property 23: Just-in-time synthesis
func TestStage_AnAppLooksUpWhatTheOneBeforeHasDeployed(t *testing.T) {
	t.Parallel()
	s := newStage(t, emulator(t))
	s.config = strings.Replace(s.config, s.expand("  - {name: PREFIX-api, path: infra}\n"), s.expand("  - {name: PREFIX-web, path: web}\n  - {name: PREFIX-api, path: infra}\n"), 1)
	infra := s.files
	s.synth = func(req deploy.SynthRequest) {
		s.files = infra
		if req.App != "web" {
			return
		}
		found, err := ssm.NewFromConfig(config(s.emulator, target)).GetParameter(t.Context(), &ssm.GetParameterInput{Name: awssdk.String(s.expand("/PREFIX/greeting"))})
		require.NoError(t, err, "the first app's stack is there")
		s.files = s.parameterOf(s.prefix+"-web", *found.Parameter.Value+" again")
	}
	got, err := s.run("b")
	require.NoError(t, err, s.log.String())
	require.Contains(t, got.Message, s.expand("PREFIX-data created, PREFIX-web created, PREFIX-api created"))
	require.Contains(t, got.Outputs[task.OutputStacks], `"Value": "hello again"`)
	require.Len(t, s.synths, 2)
}

// The app of an environment reads what the run has deployed before, of another
// account, and deploys something that is made of it.
//
// Feature: aphex-pipeline, Property 24: Stage output propagation
func TestStage_AnAppReadsTheOutputsOfTheEnvironmentBefore(t *testing.T) {
	t.Parallel()
	s := newStage(t, emulator(t))
	s.config = s.expand(s.config + fmt.Sprintf("- name: prod\n  region: %s\n  account: \"%s\"\n  stacks:\n  - {name: PREFIX-replica, path: infra}\n", region, account))
	root, bucket := t.TempDir(), store.NewDir(t.TempDir())
	files, err := worker.NewLocal(t.TempDir(), root, nil)
	require.NoError(t, err)
	environments := deploy.New(deploy.Config{
		Workspace: s, Synth: s, Store: bucket, Private: t.TempDir(), Outputs: outputs.NewWriter(bucket, files),
		Base: func(context.Context) (awssdk.Config, error) { return config(s.emulator, s.base), nil },
	})
	first, err := environments.Run(t.Context(), s.request(task.StageDeployEnv, "dev", "b"), s.env())
	require.NoError(t, err, s.log.String())

	s.synth = func(req deploy.SynthRequest) {
		text, err := os.ReadFile(filepath.Join(root, req.Outputs, "dev.json"))
		require.NoError(t, err)
		require.Equal(t, first.Outputs[task.OutputStacks], string(text))
		var dev map[string]map[string]string
		require.NoError(t, json.Unmarshal(text, &dev))
		s.files = s.parameterOf(s.prefix+"-replica", "replica of "+dev[s.prefix+"-data"]["Ref"])
	}
	s.journal = newMemory()
	got, err := environments.Run(t.Context(), s.request(task.StageDeployEnv, "prod", "b"), s.env())
	require.NoError(t, err, s.log.String())
	require.JSONEq(t, s.expand(`{"PREFIX-replica": {"Name": "/PREFIX-replica", "Value": "replica of /PREFIX/greeting"}}`), got.Outputs[task.OutputStacks])
}
