package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

// infraApp is an app of the pipeline's own, whose only value is of a type. It
// stands for a CDK app as testdata/small does.
func infraApp(stack, kind, value string) map[string]string {
	return map[string]string{
		"pipeline-infra/cdk.json": `{"app": "sh app.sh"}`,
		"pipeline-infra/app.sh": `set -eu
mkdir -p "$CDK_OUTDIR"
cp manifest.json "$CDK_OUTDIR"
sed "s/ENVIRONMENT/$APHEX_ENVIRONMENT/" template.json > "$CDK_OUTDIR/template.json"
`,
		"pipeline-infra/manifest.json": fmt.Sprintf(`{"version": "48.0.0", "artifacts": {%[1]q: {"type": "aws:cloudformation:stack",
  "environment": "aws://unknown-account/unknown-region", "displayName": %[1]q, "properties": {"templateFile": "template.json", "stackName": %[1]q,
    "assumeRoleArn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/cdk-hnb659fds-deploy-role-${AWS::AccountId}-${AWS::Region}",
    "cloudFormationExecutionRoleArn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/cdk-hnb659fds-cfn-exec-role-${AWS::AccountId}-${AWS::Region}"}}}}`, stack),
		"pipeline-infra/template.json": fmt.Sprintf(`{"Resources": {"Own": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": %q, "Value": %q}}},
  "Outputs": {"Value": {"Value": {"Fn::GetAtt": ["Own", "Value"]}}, "Environment": {"Value": "ENVIRONMENT"}}}`, kind, value),
	}
}

// infraScenario is a pipeline with an app of its own.
type infraScenario struct {
	t           *testing.T
	l           *lab.Lab
	p           *lab.Pipeline
	name, stack string
	mail        *mailbox
}

// run pushes a change, whose configuration has a second environment or has
// not, and runs it to its good end.
func (s *infraScenario) run(write map[string]string, prod bool) (*lab.Run, lab.Status) {
	s.t.Helper()
	write[pipeline.DefaultFile] = s.config(prod)
	commit, err := s.p.Push(s.t.Context(), gitserver.Change{Write: write})
	require.NoError(s.t, err)
	run, status := finish(s.t, s.p, commit)
	require.Equal(s.t, "Succeeded", status.Phase, "%+v", status)
	require.Equal(s.t, "true", status.Node("deploy-dev").Output("deployed"), "%+v", status)
	return run, status
}

func (s *infraScenario) config(prod bool) string {
	environments := []environment{dev(s.name)}
	if prod {
		environments = append(environments, environment{name: "prod", region: "eu-central-1", account: aws.AccountTarget, stack: s.name})
	}
	return config([]string{". ./ledger.sh; did build"}, environments...) + "notifications: [{type: webhook, target: \"ssm:/e2e/hook-" + s.name + "\"}]\n"
}

// topology is that of the template in the cluster.
func (s *infraScenario) topology() string {
	s.t.Helper()
	out, err := s.l.Kubectl(s.t.Context(), nil, "get", "workflowtemplate", s.name, "-n", s.p.Installation.Namespace, "-o", `jsonpath={.metadata.annotations.aphex\.dev/topology}`)
	require.NoError(s.t, err)
	require.NotEmpty(s.t, out)
	return out
}

// breaks runs a commit with a broken app and a new environment: everything but
// the pipeline itself is delivered, and everybody hears of it.
func (s *infraScenario) breaks(write map[string]string, reason fault.Reason, text string) *lab.Run {
	s.t.Helper()
	before := s.topology()
	run, status := s.run(write, true)
	node := status.Node("deploy-pipeline")
	require.Equal(s.t, "Failed", node.Phase, node.Message)
	require.Contains(s.t, node.Message, "deploy pipeline-infra, without which the pipeline stays as it is: ")
	require.Contains(s.t, node.Message, text)
	require.Contains(s.t, node.Message, "["+string(reason)+"]")
	require.Empty(s.t, status.Node("deploy-prod").Phase)
	require.Equal(s.t, before, s.topology(), "the pipeline is the old one")

	rec, err := s.p.Record(s.t.Context(), status.UID)
	require.NoError(s.t, err)
	require.Equal(s.t, []string{"succeeded", string(reason)}, []string{string(rec.Status), rec.Reason})
	failed := record.FirstFailed(rec.Stages)
	require.NotNil(s.t, failed)
	require.NotEmpty(s.t, *failed.ErrorMessage)
	require.True(s.t, strings.HasSuffix(node.Message, *failed.ErrorMessage), "Argo says before it how a pod ended: %s", node.Message)
	all := s.mail.received("/hook")
	var told notify.Event
	require.NoError(s.t, json.Unmarshal([]byte(all[len(all)-1]), &told))
	require.Equal(s.t, []string{run.Name, pipeline.EventDeferred}, []string{told.Run, told.Event})
	require.NotNil(s.t, told.Failed)
	require.Equal(s.t, []string{"deploy-pipeline", string(reason), *failed.ErrorMessage}, []string{told.Failed.Stage, told.Failed.Reason, told.Failed.Message})
	return run
}

// TestSelfModification_PipelineInfra: a commit deploys the app of the
// pipeline's own; commits that break it, before and after its first write, go
// on with the stages they have and say so; the next good one heals both the app
// and the template.
//
// Feature: aphex-pipeline, Property 7: Self-modification visibility
func TestSelfModification_PipelineInfra(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	for _, r := range []runner{pluginRunner(), containerRunner()} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			name := "infra" + r.suffix
			s := &infraScenario{t: t, l: l, name: name, stack: name + "-own", mail: &mailbox{mail: map[string][]string{}}}
			putParameter(t, l, "/e2e/hook-"+name, listen(t, l, s.mail)+"/hook")
			s.p, _, _ = newSmall(t, l, name, r.use)
			require.NoError(t, s.p.Apply(t.Context(), []byte(s.config(false))))

			_, status := s.run(infraApp(s.stack, "String", "one"), false)
			require.Regexp(t, `^pipeline-infra: 1 stack in \d+ s: `+s.stack+` created; \d+ AWS calls; WorkflowTemplate `+name+` `, status.Node("deploy-pipeline").Message)
			require.Equal(t, map[string]string{"Value": "one", "Environment": "pipeline"}, stackOutputs(t, l, aws.AccountTools, "eu-west-1", s.stack))

			if r == pluginRunner() {
				s.breaks(map[string]string{"pipeline-infra/app.sh": "echo boom from the pipeline >&2\nexit 1\n"}, fault.SynthFailed, "boom from the pipeline")
				require.Equal(t, "one", stackOutputs(t, l, aws.AccountTools, "eu-west-1", s.stack)["Value"])
			}
			run := s.breaks(infraApp(s.stack, "Bogus", "two"), fault.StackFailed, s.stack)
			events, err := l.Aphex(t.Context(), "events", run.Name, s.stack, "--pipeline", name, "-n", s.p.Installation.Namespace)
			require.NoError(t, err)
			require.Contains(t, events, "_FAILED")

			_, status = s.run(infraApp(s.stack, "String", "three"), true)
			require.Contains(t, status.Node("deploy-pipeline").Message, s.stack+" updated; ")
			require.Contains(t, status.Node("deploy-pipeline").Message, "added, waits for the next run: deploy-prod")
			require.Equal(t, "three", stackOutputs(t, l, aws.AccountTools, "eu-west-1", s.stack)["Value"])
		})
	}
}
