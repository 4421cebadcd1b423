package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

// TestShop_TwoAccounts is the main job: one commit of the sample application
// goes through Argo and aphex into two accounts, with the plugin in one pod; a
// second one updates the stack it changes and leaves the other alone. The
// second environment's tests and app read the outputs of the first one. The
// second runner finds the stacks that the first one made.
//
// Feature: aphex-pipeline, Property 11: Stack output capture
// Feature: aphex-pipeline, Property 14: Cross-account role assumption
// Feature: aphex-pipeline, Property 24: Stage output propagation
func TestShop_TwoAccounts(t *testing.T) {
	t.Parallel()
	shopTwoAccounts(t, pluginRunner(), 1)
	shopTwoAccounts(t, containerRunner(), 8)
}

func shopTwoAccounts(t *testing.T, r runner, pods int) {
	t.Helper()
	l := needLab(t)
	p, err := l.NewPipeline(t.Context(), "shop"+r.suffix, r.use)
	require.NoError(t, err)
	source := filepath.Join("..", "examples", "shop")
	tree := t.TempDir()
	require.NoError(t, lab.CheckedOut(t.Context(), source, tree))
	commit, err := p.Push(t.Context(), gitserver.Change{Dir: tree, Message: "first"})
	require.NoError(t, err)
	cfg, err := os.ReadFile(filepath.Join(source, "aphex-config.yaml"))
	require.NoError(t, err)
	require.NoError(t, p.Apply(t.Context(), cfg))

	watch, err := l.WatchPods(t.Context(), p.Installation.Namespace)
	require.NoError(t, err)
	run, status := finish(t, p, commit)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	created, err := watch.Stop(run)
	require.NoError(t, err)
	require.Len(t, created, pods, "%s", created)
	requirePhases(t, status, map[string]string{
		"validate": "Succeeded", "build": "Succeeded", "deploy-pipeline": "Succeeded",
		"deploy-dev": "Succeeded", "test-dev": "Succeeded", "deploy-prod": "Succeeded", "test-prod": "Succeeded",
	})
	requireOutputs(t, l, status.Node("deploy-dev"), aws.AccountTools, "eu-west-1")
	requireOutputs(t, l, status.Node("deploy-prod"), aws.AccountTarget, "eu-central-1")
	requireRecord(t, l, p, status, commit)
	require.Contains(t, object(t, l, status.Node("test-prod").Output("log-url")), "prod: orders of its own, not those of dev\n")

	second, err := p.Push(t.Context(), gitserver.Change{Write: map[string]string{"lib/greeting.ts": secondGreeting}})
	require.NoError(t, err)
	_, status = finish(t, p, second)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	for _, name := range []string{"deploy-dev", "deploy-prod"} {
		require.Regexp(t, `shop-data.*no change`, status.Node(name).Message)
		require.Regexp(t, `shop-api.*updated`, status.Node(name).Message)
	}
	require.Equal(t, "Welcome back to the shop", parameter(t, l, "/shop/dev/greeting"))
	require.Equal(t, "Welcome back to the shop, as in /shop/dev/greeting", parameterIn(t, l, aws.AccountTarget, "eu-central-1", "/shop/prod/greeting"))
	require.Empty(t, changeSets(t, l, aws.AccountTools, "eu-west-1", "shop-data"), "no change set stays behind")
}

// secondGreeting is another one where dev has been deployed before.
const secondGreeting = `import * as fs from 'node:fs';

const dev = process.env.APHEX_OUTPUTS_DIR + '/dev.json';
const before = fs.existsSync(dev) ? ', as in ' + JSON.parse(fs.readFileSync(dev, 'utf8'))['shop-api'].GreetingParameter : '';
export const greeting = 'Welcome back to the shop' + before;
`

// requireOutputs compares the stage's outputs with what CloudFormation says.
func requireOutputs(t *testing.T, l *lab.Lab, node lab.Node, account, region string) {
	t.Helper()
	var got map[string]map[string]string
	require.NoError(t, json.Unmarshal([]byte(node.Output("stack-outputs")), &got), "%q", node.Output("stack-outputs"))
	require.Len(t, got, 2)
	for stack, outputs := range got {
		require.Equal(t, stackOutputs(t, l, account, region, stack), outputs, stack)
		require.NotEmpty(t, outputs)
	}
	require.JSONEq(t, node.Output("stack-outputs"), object(t, l, node.Output("stack-outputs-url")))
}

// requireRecord reads the run's record and its artifacts back.
func requireRecord(t *testing.T, l *lab.Lab, p *lab.Pipeline, status lab.Status, commit string) {
	t.Helper()
	var run record.Run
	require.NoError(t, json.Unmarshal([]byte(object(t, l, "s3://"+p.Installation.Bucket+"/"+record.RunKey(status.UID))), &run))
	require.Equal(t, record.Succeeded, run.Status)
	require.Equal(t, commit, run.CommitSHA)
	require.Equal(t, "main", run.Branch)
	require.NotNil(t, run.CompletedAt)
	require.Len(t, run.Stages, 7)

	var artifacts []record.Artifact
	require.NoError(t, json.Unmarshal([]byte(object(t, l, "s3://"+p.Installation.Bucket+"/"+record.ArtifactsKey(status.UID))), &artifacts))
	require.Len(t, artifacts, 1)
	require.Equal(t, commit, artifacts[0].CommitSHA)
	require.True(t, strings.HasSuffix(artifacts[0].S3Path, "/"+commit+"/site/index.html"), artifacts[0].S3Path)
	require.Contains(t, object(t, l, artifacts[0].S3Path), "<h1>Shop</h1>")
}
