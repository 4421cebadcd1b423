package diff_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/internal/diff"
)

// summary is what changes of a stack, in one line each.
func summary(s diff.Stack) []string {
	var out []string
	for _, c := range s.Changes {
		line := fmt.Sprintf("%s %s %s", c.Action, c.Kind, c.ID)
		if c.Replacement != "" {
			line += " replaced:" + string(c.Replacement)
		}
		out = append(out, line)
	}
	return out
}

func TestDiff_WritesNothingAndAssumesTheLookUpRoleAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deploy("shop-data", oldData, func(in *cfnsdk.CreateStackInput) {
		in.Tags = []cfntypes.Tag{{Key: awssdk.String("team"), Value: awssdk.String("data")}}
		in.EnableTerminationProtection = awssdk.Bool(true)
	})
	w.forget()
	report := w.report(0)
	require.Equal(t, diff.Version, report.Version)
	require.Equal(t, diff.Templates, report.Strength)
	require.True(t, report.Differences)
	require.Len(t, report.Stacks, 2)
	data, api := report.Stacks[0], report.Stacks[1]
	require.Equal(t, "shop-data", data.Name)
	require.Equal(t, "Shop/Data", data.Path)
	require.Equal(t, "CREATE_COMPLETE", data.Status)
	require.Equal(t, []string{
		"remove resource Gone", "change resource Param", "change resource Role",
		"add output Name", "change parameter Secret", "change tag team", "remove setting terminationProtection",
	}, summary(data), "the topic's name is beyond ASCII: it cannot be told to differ")
	require.Equal(t, "Shop/Data/Param/Resource", data.Changes[1].ConstructPath)
	require.Equal(t, []diff.Detail{{Path: "Properties.Name", Old: []byte(`"/shop/old"`), New: []byte(`"/shop/new"`)}}, data.Changes[1].Details)
	require.Len(t, data.Security, 2)
	require.Equal(t, diff.Narrower, data.Security[0].Reach)
	require.Equal(t, diff.Wider, data.Security[1].Reach)
	require.JSONEq(t, `{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}`, string(data.Security[1].New))
	require.True(t, api.New)
	require.Equal(t, []string{"add resource Copy", "add setting terminationProtection"}, summary(api))

	reading := []string{"GetCallerIdentity", "AssumeRole", "GetParameter", "DescribeStacks", "GetTemplate", "ListStackResources"}
	for _, c := range w.all() {
		require.Contains(t, reading, c.Operation, "only what reads")
	}
	require.NotEmpty(t, w.calls("GetTemplate"))
	require.Equal(t, map[string]bool{w.roleARN("lookup"): true}, w.roles())

	table, log, code := w.run("--exit-code")
	require.Equal(t, 3, code)
	require.Contains(t, table, `Properties.Name: "/shop/old" → "/shop/new"`)
	require.Contains(t, table, "+  access wider     Role  Allow s3:* on *")
	require.NotContains(t, table+log, "hunter", "parameters with NoEcho")
	_, _, code = w.run("--exit-code=security", "--stack", "shop-api")
	require.Equal(t, 0, code, "nothing of the new stack grants access")
	markdown, _, code := w.run("dev", "-o", "markdown", "--stack", "shop-data")
	require.Equal(t, 0, code)
	require.True(t, strings.HasPrefix(markdown, diff.Marker))
	require.NotContains(t, markdown, "shop-api")
	require.NoDirExists(t, filepath.Join(w.dir, "infra", "cdk.out"))
}

func TestDiff_NoDifferences(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deploy("shop-data", dataTemplate, func(in *cfnsdk.CreateStackInput) {
		in.Tags = []cfntypes.Tag{{Key: awssdk.String("team"), Value: awssdk.String("shop")}}
	})
	w.deploy("shop-api", apiTemplate, func(in *cfnsdk.CreateStackInput) { in.EnableTerminationProtection = awssdk.Bool(true) })
	report := w.report(0, "--exit-code")
	require.False(t, report.Differences)
	for _, s := range report.Stacks {
		require.Empty(t, s.Changes, s.Name)
	}
	report = w.report(0, "--exit-code", "--change-set")
	require.False(t, report.Differences)
	require.Equal(t, diff.Empty, report.Stacks[0].ChangeSet.Status)
	w.clean("shop-data", "shop-api")
}

func TestDiff_ReadsAsItDeploysWithoutTheLookUpRole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deploy("shop-data", oldData)
	w.on(func(c aws.Call) verdict {
		if c.Operation == "AssumeRole" && c.Form.Get("RoleArn") == w.roleARN("lookup") {
			return refuse
		}
		return pass
	})
	w.forget()
	out, log, code := w.run("--stack", "shop-data")
	require.Equal(t, 0, code, log)
	require.Contains(t, out, "Properties.Name")
	require.Equal(t, 1, strings.Count(log, "warning: look-up role "+w.roleARN("lookup")+" is of no use"), log)
	require.Equal(t, map[string]bool{w.roleARN("lookup"): true, w.roleARN("deploy"): true}, w.roles())
	require.NotZero(t, w.faults())
	for _, c := range w.all() {
		require.NotContains(t, []string{"CreateChangeSet", "DeleteChangeSet", "DeleteStack", "PutObject"}, c.Operation)
	}
}

func TestDiff_FailsAsADeploymentWould(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.replace("infra/assembly/manifest.json", "aws://unknown-account/", "aws://333333333333/")
	out, log, code := w.run()
	require.Equal(t, 1, code)
	require.Empty(t, out)
	require.Contains(t, log, "[EnvironmentMismatch]")
	_, log, code = w.run("prod")
	require.Equal(t, 2, code)
	require.Contains(t, log, `no environment "prod"; the configuration has dev`)
	_, log, code = w.run("--stack", "shop-web")
	require.Equal(t, 2, code)
	require.Contains(t, log, "shop-web")
	_, _, code = w.run("-o", "xml")
	require.Equal(t, 2, code)
	w.write("infra/app.sh", "echo the app is broken; exit 4\n")
	_, log, code = w.run()
	require.Equal(t, 1, code)
	require.Contains(t, log, "the app is broken")
	require.Contains(t, log, "[SynthFailed]")
}

func TestDiff_LooksIntoNestedStacks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const inner = `{"Resources": {"Inner": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "VALUE"}, "Metadata": {"aws:cdk:path": "Shop/Data/Nest/Inner/Resource"}}}}`
	outer := func(key string) string {
		return fmt.Sprintf(`{"Resources": {"Nest": {"Type": "AWS::CloudFormation::Stack", "Properties": {"TemplateURL": "%s/cdk-hnb659fds-assets-%s-%s/%s"},
			"Metadata": {"aws:asset:path": "nest.template.json"}}}}`, w.url, w.target, region, key)
	}
	w.put("diff/old.json", strings.Replace(inner, "VALUE", "one", 1))
	w.deploy("shop-data", outer("diff/old.json"))
	w.write("infra/assembly/data.template.json", outer("diff/new.json"))
	w.write("infra/assembly/nest.template.json", strings.Replace(inner, "VALUE", "two", 1))
	w.write("infra/assembly/data.assets.json", assetsOf("nest.template.json", "diff/new.json"))

	data := w.report(0, "--stack", "shop-data").Stacks[0]
	require.Contains(t, summary(data), "change resource Nest/Inner")
	at := slices.IndexFunc(data.Changes, func(c diff.Change) bool { return c.ID == "Nest/Inner" })
	require.Equal(t, "Shop/Data/Nest/Inner/Resource", data.Changes[at].ConstructPath)
	require.Equal(t, []diff.Detail{{Path: "Properties.Value", Old: []byte(`"one"`), New: []byte(`"two"`)}}, data.Changes[at].Details)
	require.Empty(t, w.calls("PutObject"))

	data = w.report(0, "--stack", "shop-data", "--change-set").Stacks[0]
	require.Equal(t, diff.Created, data.ChangeSet.Status)
	puts := w.calls("PutObject")
	require.Len(t, puts, 1, "the nested template, which CloudFormation can read from a bucket only")
	require.Contains(t, puts[0].Path, "diff/new.json")
	w.clean("shop-data")
}

func TestDiff_AgreesWithTheCDKCommandLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deploy("shop-data", oldData)
	cdk, err := shared.CDK(t.Context())
	require.NoError(t, err)
	got := w.report(0, "--stack", "shop-data").Stacks[0]
	assembly := filepath.Join(w.dir, "infra", "assembly")
	w.replace("infra/assembly/manifest.json", "aws://unknown-account/unknown-region", "aws://"+w.target+"/"+region)
	out := w.tool(cdk, "--no-notices", "--no-color", "diff", "--app", assembly, "--method", "template", "Shop/Data")
	signs := map[diff.Action]string{diff.Add: "[+]", diff.Modify: "[~]", diff.Remove: "[-]"}
	resources := 0
	for _, c := range got.Changes {
		if c.Kind != diff.Resource {
			continue
		}
		resources++
		require.Regexp(t, `(?m)^\`+signs[c.Action]+` `+c.Type+` .*`+c.ID, out)
	}
	require.Equal(t, resources, strings.Count(out, " AWS::SSM::Parameter ")+strings.Count(out, "] AWS::IAM::Role ")+strings.Count(out, "] AWS::SQS::Queue ")+strings.Count(out, "] AWS::SNS::Topic "), out)
	require.Contains(t, out, "IAM Statement Changes")
	require.NoError(t, os.RemoveAll(assembly))
}
