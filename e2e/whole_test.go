package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	cwsdk "github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	cwtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/cluster"
	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/cloudwatch"
	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// accountThird is a third account, whose bootstrap trusts that of the pipelines.
const accountThird = "333333333333"

// TestRun_ThreeAccountsAreTold: one commit through three environments in three
// accounts, with artifacts, test reports and three kinds of channels; the
// record, the command line, the bucket, the channels and CloudWatch all tell of
// the same run.
//
// Feature: aphex-pipeline, Property 16: Workflow metadata recording
// Feature: aphex-pipeline, Property 17: Deployment metrics emission
// Feature: aphex-pipeline, Property 18: Notification delivery
func TestRun_ThreeAccountsAreTold(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	const name = "whole"
	p, _, ledger := newSmall(t, l, name, func(i *pipeline.Installation) { i.ChannelSecrets = []string{"whole-hook"} })
	ctx := limited(t)
	require.NoError(t, l.AWS.QuickBootstrap(ctx, accountThird, "eu-west-1", []string{aws.AccountTools}))
	mail := &mailbox{mail: map[string][]string{}}
	address := listen(t, l, mail)
	topic, err := sns.NewFromConfig(l.AWS.Config(aws.AccountTools, p.Installation.Region)).CreateTopic(ctx, &sns.CreateTopicInput{Name: awssdk.String(name)})
	require.NoError(t, err)
	_, err = l.Kubectl(ctx, nil, "create", "secret", "generic", "whole-hook", "-n", p.Installation.Namespace, "--from-literal=url="+address+"/hook")
	require.NoError(t, err)
	putParameter(t, l, "/e2e/whole-slack", address+"/slack")
	environments := []environment{
		dev(name, ". ./ledger.sh; did test", "mkdir -p reports; cp smoke.xml reports/"),
		{name: "staging", region: "eu-central-1", account: aws.AccountTarget, stack: name, tests: []string{"mkdir -p reports; cp smoke.xml reports/", "cmp page.html \"$APHEX_ARTIFACTS/site/page.html\""}},
		{name: "prod", region: "eu-west-1", account: accountThird, stack: name},
	}
	environments[0].reports, environments[1].reports = []string{"reports/*.xml"}, []string{"reports/*.xml"}
	cfg := config([]string{". ./ledger.sh; did build", `mkdir -p "$APHEX_ARTIFACTS/site"; cp page.html "$APHEX_ARTIFACTS/site/"`}, environments...) + `
notifications:
  - {type: webhook, target: "kubernetes:whole-hook#url"}
  - {type: slack, target: "ssm:/e2e/whole-slack"}
  - {type: sns, target: "` + awssdk.ToString(topic.TopicArn) + `"}
`
	page := strings.Repeat("<p>käse</p>\n", 100)
	commit, err := p.Push(ctx, gitserver.Change{Message: "all of it", Write: map[string]string{"aphex-config.yaml": cfg, "smoke.xml": passingReport, "page.html": page}})
	require.NoError(t, err)
	require.NoError(t, p.Apply(ctx, []byte(cfg)))

	run, status := finish(t, p, commit)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Equal(t, 1, ledger.ran()["build"])
	for _, e := range environments {
		require.NotNil(t, stackOutputs(t, l, e.account, e.region, name), "no stack in %s", e.name)
	}
	requireShown(t, l, run, commit)
	requireTold(t, l, mail, awssdk.ToString(topic.TopicArn), commit)
	requireFigures(t, l, p)
	requireCounted(t, l, p)
	out := filepath.Join(t.TempDir(), "out")
	_, err = l.Aphex(ctx, "artifacts", "get", run.Name, "-n", run.Namespace, "--dir", out)
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(out, "site", "page.html"))
	require.NoError(t, err)
	require.Equal(t, page, string(got))
}

// requireShown reads the run back as people and as programs do.
func requireShown(t *testing.T, l *lab.Lab, run *lab.Run, commit string) {
	t.Helper()
	text, err := l.Aphex(t.Context(), "run", "show", run.Name, "-n", run.Namespace)
	require.NoError(t, err)
	t.Log("\n" + text)
	for _, pattern := range []string{
		`(?m)^Commit +` + commit + `$`, `(?m)^Status +succeeded$`, `(?m)^Artifacts +1, 1\.\d KiB$`, `(?m)^Metrics +sent$`,
		`(?m)^deploy-env-dev +succeeded .*whole created; \d+ AWS calls$`, `(?m)^deploy-env-staging +succeeded .*whole created`, `(?m)^deploy-env-prod +succeeded .*whole created`,
		`(?m)^test-dev +2 +0 +1 +-$`, `(?m)^test-staging +2 +0 +1 +-$`,
		`(?m)^webhook +sent +kubernetes:whole-hook#url$`, `(?m)^slack +sent +ssm:/e2e/whole-slack$`, `(?m)^sns +sent +arn:aws:sns:`,
	} {
		require.Regexp(t, pattern, text)
	}
	text, err = l.Aphex(t.Context(), "run", "show", run.Name, "-n", run.Namespace, "-o", "json")
	require.NoError(t, err)
	var rec record.Run
	require.NoError(t, json.Unmarshal([]byte(text), &rec))
	require.Equal(t, record.Succeeded, rec.Status)
	require.Equal(t, 1, rec.Artifacts.Count)
	require.Len(t, rec.Notifications, 3)
	require.True(t, rec.Metrics.Sent, "%+v", rec.Metrics)
	for _, stage := range rec.Stages {
		require.NotNil(t, stage.CompletedAt, stage.StageName)
		require.Contains(t, stage.LogURL, "/runs/"+rec.WorkflowID+"/logs/", stage.StageName)
		require.Equal(t, stage.Stage == task.StageDeployEnv, len(stage.EventURLs) > 0, stage.StageName)
	}
}

// requireTold looks at what each channel received.
func requireTold(t *testing.T, l *lab.Lab, mail *mailbox, topic, commit string) {
	t.Helper()
	require.Len(t, mail.received("/hook"), 1)
	var told notify.Event
	require.NoError(t, json.Unmarshal([]byte(mail.received("/hook")[0]), &told))
	require.Equal(t, "succeeded", told.Event)
	require.Equal(t, commit, told.Commit)
	require.Len(t, mail.received("/slack"), 1)
	requireSlack(t, mail.received("/slack")[0], "whole succeeded")
	published := slices.DeleteFunc(l.AWS.Calls(), func(c aws.Call) bool { return c.Operation != "Publish" || c.Form.Get("TopicArn") != topic })
	require.Len(t, published, 1)
	require.JSONEq(t, mail.received("/hook")[0], published[0].Form.Get("Message"), "the same event as the webhook's")
}

// requireSlack checks a message by what Slack takes: at most 50 blocks, of
// sections fields of at most 2,000 and texts of at most 3,000 characters.
// Source: docs.slack.dev/reference/block-kit/blocks.
func requireSlack(t *testing.T, body, title string) {
	t.Helper()
	type text struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	var message struct {
		Text   string `json:"text"`
		Blocks []struct {
			Type   string `json:"type"`
			Text   *text  `json:"text"`
			Fields []text `json:"fields"`
		} `json:"blocks"`
	}
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(&message))
	require.Contains(t, message.Text, title)
	require.NotEmpty(t, message.Blocks)
	require.LessOrEqual(t, len(message.Blocks), 50)
	for _, block := range message.Blocks {
		require.Equal(t, "section", block.Type)
		require.True(t, block.Text != nil || len(block.Fields) > 0)
		require.LessOrEqual(t, len(block.Fields), 10)
		all, limit := block.Fields, 2000
		if block.Text != nil {
			all, limit = append(all, *block.Text), 3000
		}
		for _, part := range all {
			require.Equal(t, "mrkdwn", part.Type)
			require.NotEmpty(t, part.Text)
			require.LessOrEqual(t, len(part.Text), limit)
		}
	}
}

// requireCounted looks at what Argo's controller gives to Prometheus.
func requireCounted(t *testing.T, l *lab.Lab, p *lab.Pipeline) {
	t.Helper()
	controller, err := l.Kubectl(t.Context(), nil, "get", "pods", "-n", cluster.ControllerNamespace, "-l", "app=workflow-controller", "-o", "jsonpath={.items[0].metadata.name}")
	require.NoError(t, err)
	labels := `{namespace="` + p.Installation.Namespace + `",pipeline="whole",status="Succeeded"}`
	for _, line := range []string{`argo_workflows_aphex_runs_total` + labels + ` 1`, `argo_workflows_aphex_run_duration_seconds_count` + labels + ` 1`} {
		require.Eventually(t, func() bool {
			page, err := l.Kubectl(t.Context(), nil, "get", "--raw", "/api/v1/namespaces/"+cluster.ControllerNamespace+"/pods/https:"+controller+":9090/proxy/metrics")
			return err == nil && slices.Contains(strings.Split(page, "\n"), line)
		}, 30*time.Second, time.Second, line)
	}
}

// requireFigures reads back what CloudWatch was told.
func requireFigures(t *testing.T, l *lab.Lab, p *lab.Pipeline) {
	t.Helper()
	client := cwsdk.NewFromConfig(l.AWS.Config(aws.AccountTools, p.Installation.Region))
	metrics, err := client.ListMetrics(t.Context(), &cwsdk.ListMetricsInput{Namespace: awssdk.String(cloudwatch.Namespace)})
	require.NoError(t, err)
	got := map[string]float64{}
	for _, m := range metrics.Metrics {
		var by []string
		of := ""
		for _, d := range m.Dimensions {
			by = append(by, awssdk.ToString(d.Value))
			if awssdk.ToString(d.Name) == "Pipeline" {
				of = awssdk.ToString(d.Value)
			}
		}
		if of != "whole" {
			continue
		}
		sum, err := client.GetMetricStatistics(t.Context(), &cwsdk.GetMetricStatisticsInput{
			Namespace: m.Namespace, MetricName: m.MetricName, Dimensions: m.Dimensions, Period: awssdk.Int32(3600),
			StartTime: awssdk.Time(time.Now().Add(-time.Hour)), EndTime: awssdk.Time(time.Now().Add(time.Hour)), Statistics: []cwtypes.Statistic{cwtypes.StatisticSum},
		})
		require.NoError(t, err)
		for _, point := range sum.Datapoints {
			got[awssdk.ToString(m.MetricName)+" "+strings.Join(by, "/")] += awssdk.ToFloat64(point.Sum)
		}
	}
	require.InDelta(t, 1, got["RunSucceeded whole"], 0, "%v", got)
	require.InDelta(t, 0, got["RunFailed whole"], 0)
	require.Positive(t, got["RunDuration whole"])
	require.InDelta(t, 1, got["ArtifactCount whole"], 0)
	require.Positive(t, got["ArtifactSize whole"])
	for _, environment := range []string{"dev", "staging", "prod"} {
		require.InDelta(t, 1, got["DeploymentSucceeded whole/"+environment+"/whole"], 0, "%v", got)
		require.Positive(t, got["StageDuration whole/deploy-env/"+environment])
	}
}
