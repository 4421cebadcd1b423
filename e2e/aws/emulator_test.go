package aws_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/internal/testkit/need"
)

const region = "eu-west-1"

func start(t *testing.T) *aws.Emulator {
	t.Helper()
	need.Require(t, need.Emulator)
	began := time.Now()
	emulator, err := aws.Start(t.Context(), aws.Config{Log: t.Output()})
	require.NoError(t, err)
	t.Logf("emulator started in %s", time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() { timed(t, "stop", emulator.Stop) })
	return emulator
}

func timed(t *testing.T, what string, f func() error) {
	t.Helper()
	began := time.Now()
	require.NoError(t, f())
	t.Logf("%s took %s", what, time.Since(began).Round(time.Millisecond))
}

func TestBootstrap_PreparesTwoAccountsApartAsTheRealCommandDoes(t *testing.T) {
	t.Parallel()
	emulator := start(t)
	timed(t, "cdk bootstrap of the first account", func() error {
		return emulator.Bootstrap(t.Context(), aws.AccountTools, region, nil)
	})
	timed(t, "cdk bootstrap of the second account", func() error {
		return emulator.Bootstrap(t.Context(), aws.AccountTarget, region, []string{aws.AccountTools})
	})
	const quick, quickTrusting = "333333333333", "444444444444"
	timed(t, "quick bootstrap", func() error { return emulator.QuickBootstrap(t.Context(), quick, region, nil) })
	require.NoError(t, emulator.QuickBootstrap(t.Context(), quickTrusting, region, []string{aws.AccountTools}))

	for _, account := range []string{aws.AccountTools, aws.AccountTarget, quick, quickTrusting} {
		client := s3.NewFromConfig(emulator.Config(account, region))
		_, err := client.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: awssdk.String("cdk-hnb659fds-assets-" + account + "-" + region)})
		require.NoError(t, err, account)
	}
	foreign := s3.NewFromConfig(emulator.Config(aws.AccountTarget, region))
	_, err := foreign.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: awssdk.String("cdk-hnb659fds-assets-" + aws.AccountTools + "-" + region)})
	require.Error(t, err)

	require.Equal(t, toolkit(t, emulator, aws.AccountTools), toolkit(t, emulator, quick))
	require.Equal(t, toolkit(t, emulator, aws.AccountTarget), toolkit(t, emulator, quickTrusting))
}

// toolkit is the bootstrap stack without what differs between accounts by
// nature.
func toolkit(t *testing.T, emulator *aws.Emulator, account string) map[string]string {
	t.Helper()
	client := cfnsdk.NewFromConfig(emulator.DirectConfig(account, region))
	out, err := client.DescribeStacks(t.Context(), &cfnsdk.DescribeStacksInput{StackName: awssdk.String("CDKToolkit")})
	require.NoError(t, err)
	require.Len(t, out.Stacks, 1)
	stack := out.Stacks[0]
	found := map[string]string{"status": string(stack.StackStatus)}
	for _, p := range stack.Parameters {
		found["parameter "+*p.ParameterKey] = *p.ParameterValue
	}
	for _, tag := range stack.Tags {
		found["tag "+*tag.Key] = *tag.Value
	}
	resources, err := client.ListStackResources(t.Context(), &cfnsdk.ListStackResourcesInput{StackName: stack.StackName})
	require.NoError(t, err)
	for _, r := range resources.StackResourceSummaries {
		found["resource "+*r.LogicalResourceId] = *r.ResourceType
	}
	return found
}

func TestRules_FaultFiresOnceAndCallsAreRecorded(t *testing.T) {
	t.Parallel()
	emulator := start(t)
	require.NoError(t, emulator.Rules(t.Context(),
		`[{"service": "sts", "operation": "GetCallerIdentity", "error": {"code": "AccessDenied", "status": 403}, "times": 1}]`))
	client := sts.NewFromConfig(emulator.Config(aws.AccountTools, region))
	_, err := client.GetCallerIdentity(t.Context(), nil)
	var refused smithy.APIError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "AccessDenied", refused.ErrorCode())
	identity, err := client.GetCallerIdentity(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, aws.AccountTools, *identity.Account)

	fired, err := emulator.Fired(t.Context())
	require.NoError(t, err)
	require.Len(t, fired, 1)
	require.Equal(t, "sts GetCallerIdentity error:AccessDenied", fired[0].Service+" "+fired[0].Operation+" "+fired[0].Action)
	calls := emulator.Calls()
	require.Len(t, calls, 2)
	require.Equal(t, http.StatusForbidden, calls[0].Status)
	require.Equal(t, http.StatusOK, calls[1].Status)
	require.Equal(t, aws.AccountTools, calls[1].AccessKey)
	require.Error(t, emulator.Rules(t.Context(), `[{"servce": "sts"}]`))

	require.NoError(t, emulator.Reset(t.Context()))
	fired, err = emulator.Fired(t.Context())
	require.NoError(t, err)
	require.Empty(t, fired)
	require.Empty(t, emulator.Calls())
}

func TestRules_LostAnswerTookEffectOnce(t *testing.T) {
	t.Parallel()
	emulator := start(t)
	require.NoError(t, emulator.Rules(t.Context(),
		`[{"service": "cloudformation", "operation": "CreateStack", "response": {"abort_frac": 0}, "times": 1}]`))
	cfg := emulator.Config(aws.AccountTools, region)
	cfg.RetryMaxAttempts = 1
	client := cfnsdk.NewFromConfig(cfg)
	_, err := client.CreateStack(t.Context(), &cfnsdk.CreateStackInput{StackName: awssdk.String("lost"), TemplateBody: awssdk.String(topicTemplate)})
	require.Error(t, err)
	var answered smithy.APIError
	require.False(t, errors.As(err, &answered), "the service answered: %v", err)
	stacks, err := client.DescribeStacks(t.Context(), &cfnsdk.DescribeStacksInput{StackName: awssdk.String("lost")})
	require.NoError(t, err)
	require.Len(t, stacks.Stacks, 1)
	require.Zero(t, emulator.Calls()[0].Status)
	require.Equal(t, "CreateStack", emulator.Calls()[0].Operation)
}

const topicTemplate = `{"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}`

func TestGaps_NotificationTopicsSurviveAChangeSet(t *testing.T) {
	t.Parallel()
	emulator := start(t)
	client := cfnsdk.NewFromConfig(emulator.DirectConfig(aws.AccountTools, region))
	const topic = "arn:aws:sns:eu-west-1:111111111111:t"
	create := func(name string, kind cfntypes.ChangeSetType, topics []string) cfntypes.ChangeSetStatus {
		created, err := client.CreateChangeSet(t.Context(), &cfnsdk.CreateChangeSetInput{
			StackName: awssdk.String("s"), ChangeSetName: awssdk.String(name), ChangeSetType: kind,
			TemplateBody: awssdk.String(topicTemplate), NotificationARNs: topics,
		})
		require.NoError(t, err)
		described, err := client.DescribeChangeSet(t.Context(), &cfnsdk.DescribeChangeSetInput{ChangeSetName: created.Id})
		require.NoError(t, err)
		if described.Status == cfntypes.ChangeSetStatusCreateComplete {
			_, err = client.ExecuteChangeSet(t.Context(), &cfnsdk.ExecuteChangeSetInput{ChangeSetName: created.Id})
			require.NoError(t, err)
		}
		return described.Status
	}
	stack := func() cfntypes.Stack {
		out, err := client.DescribeStacks(t.Context(), &cfnsdk.DescribeStacksInput{StackName: awssdk.String("s")})
		require.NoError(t, err)
		return out.Stacks[0]
	}
	require.Equal(t, cfntypes.ChangeSetStatusCreateComplete, create("one", cfntypes.ChangeSetTypeCreate, []string{topic}))
	require.Eventually(t, func() bool { return stack().StackStatus == cfntypes.StackStatusCreateComplete }, 30*time.Second, 20*time.Millisecond)
	require.Equal(t, []string{topic}, stack().NotificationARNs)
	require.Contains(t, *stack().ChangeSetId, "/one/")
	require.Equal(t, cfntypes.ChangeSetStatusFailed, create("same", cfntypes.ChangeSetTypeUpdate, []string{topic}))
	require.Equal(t, cfntypes.ChangeSetStatusCreateComplete, create("other", cfntypes.ChangeSetTypeUpdate, []string{topic + "2"}))
	require.Eventually(t, func() bool { return stack().StackStatus == cfntypes.StackStatusUpdateComplete }, 30*time.Second, 20*time.Millisecond)
	require.Equal(t, []string{topic + "2"}, stack().NotificationARNs)

	listed, err := client.ListChangeSets(t.Context(), &cfnsdk.ListChangeSetsInput{StackName: stack().StackId})
	require.NoError(t, err)
	require.NotEmpty(t, listed.Summaries)
	require.NotNil(t, listed.Summaries[0].ImportExistingResources)
}

func TestGaps_TopicNameThatSNSRefusesFailsTheStack(t *testing.T) {
	t.Parallel()
	emulator := start(t)
	client := cfnsdk.NewFromConfig(emulator.DirectConfig(aws.AccountTools, region))
	_, err := client.CreateStack(t.Context(), &cfnsdk.CreateStackInput{
		StackName:    awssdk.String("s"),
		TemplateBody: awssdk.String(`{"Resources": {"Topic": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "not a name"}}}}`),
	})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		out, err := client.DescribeStacks(t.Context(), &cfnsdk.DescribeStacksInput{StackName: awssdk.String("s")})
		require.NoError(t, err)
		return out.Stacks[0].StackStatus == cfntypes.StackStatusRollbackComplete
	}, 30*time.Second, 20*time.Millisecond)
}

// TestMain lets the test binary play a process that starts an emulator and
// dies without stopping it.
func TestMain(m *testing.M) {
	if os.Getenv("APHEX_TEST_START_AND_DIE") != "" {
		emulator, err := aws.Start(context.Background(), aws.Config{LogDir: os.Getenv("APHEX_TEST_START_AND_DIE")})
		if err != nil {
			panic(err)
		}
		if _, err := os.Stdout.WriteString(emulator.DirectEndpoint()); err != nil {
			panic(err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestStart_ServersEndWithAProcessThatDies(t *testing.T) {
	t.Parallel()
	need.Require(t, need.Emulator)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	logs := t.TempDir()
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir(), "APHEX_TEST_START_AND_DIE="+logs)
	out, err := cmd.Output()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Regexp(t, `^http://127\.0\.0\.1:\d+$`, string(out))
	require.FileExists(t, filepath.Join(logs, "ministack.log"))
	require.Eventually(t, func() bool {
		resp, err := http.Get(string(out) + "/_ministack/health")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err != nil
	}, 30*time.Second, 50*time.Millisecond)
}
