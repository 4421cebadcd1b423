package deploy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/cfn"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
)

// answering is a template with a custom resource whose function answers with
// a status to each kind of request, given as expressions in Python, and a
// parameter that tells versions apart.
func answering(create, remove, version string, custom bool) string {
	code := fmt.Sprintf("import json, urllib.request\ndef handler(event, context):\n"+
		"    body = {'Status': %s if event['RequestType'] == 'Delete' else %s, 'Reason': 'the schema has no table orders', 'PhysicalResourceId': 'seed', 'StackId': event['StackId'], 'RequestId': event['RequestId'], 'LogicalResourceId': event['LogicalResourceId']}\n"+
		"    urllib.request.urlopen(urllib.request.Request(event['ResponseURL'], data=json.dumps(body).encode(), method='PUT'))\n", remove, create)
	seed := ""
	if custom {
		seed = `"Seed": {"Type": "Custom::Seed", "Properties": {"ServiceToken": {"Fn::GetAtt": ["Fn", "Arn"]}, "ServiceTimeout": 30, "Version": "` + version + `"}},`
	}
	return fmt.Sprintf(`{"Resources": {
		"Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": []}}},
		"Fn": {"Type": "AWS::Lambda::Function", "Properties": {"Handler": "index.handler", "Runtime": "python3.11", "Role": {"Fn::GetAtt": ["Role", "Arn"]}, "Code": {"ZipFile": %q}}},
		%s "Param": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": %q}}}}`, code, seed, version)
}

func bucketNamed(name string) string {
	return fmt.Sprintf(`{"Resources": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": %q}}}}`, name)
}

// nesting uploads a template and returns one that nests it.
func nesting(s *stack, key, template string) string {
	s.t.Helper()
	bucket := "cdk-hnb659fds-assets-" + account + "-" + region
	_, err := s3.NewFromConfig(s.cfg, func(o *s3.Options) { o.UsePathStyle = true }).PutObject(s.t.Context(), &s3.PutObjectInput{
		Bucket: awssdk.String(bucket), Key: awssdk.String(key), Body: bytes.NewReader([]byte(template)),
	})
	require.NoError(s.t, err)
	return fmt.Sprintf(`{"Resources": {"Nest": {"Type": "AWS::CloudFormation::Stack", "Properties": {"TemplateURL": "%s/%s/%s"}}}}`, shared.DirectEndpoint(), bucket, key)
}

// Failures made with real means are reported with the resource that caused
// them, its construct path and line, and what CloudFormation said.
// internal/cfn TestDeploy_FailureReports has those that the emulator has no way
// into.
func TestFailures_NameResourceAndCause(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name    string
		before  string // the template of a first deployment
		arrange func(s *stack)
		deploy  func(s *stack) string
		reason  fault.Reason
		want    []string
	}{
		{
			name: "bad property", deploy: func(*stack) string { return refused("x") }, reason: fault.StackFailed,
			want: []string{"resource app/Bad [Bad] (AWS::SSM::Parameter, made at bin/app.ts:Bad) ended in CREATE_FAILED: ", "Bogus", "ROLLBACK_COMPLETE"},
		},
		{
			name: "name clash", reason: fault.StackFailed,
			arrange: func(s *stack) {
				_, err := s3.NewFromConfig(s.cfg, func(o *s3.Options) { o.UsePathStyle = true }).CreateBucket(s.t.Context(), &s3.CreateBucketInput{
					Bucket: awssdk.String("aphex-clash"), CreateBucketConfiguration: &s3types.CreateBucketConfiguration{LocationConstraint: region},
				})
				require.NoError(s.t, err)
			},
			deploy: func(*stack) string { return bucketNamed("aphex-clash") },
			want:   []string{"resource app/Bucket [Bucket] (AWS::S3::Bucket)", "aphex-clash' already exists"},
		},
		{
			name: "missing parameter", reason: fault.ParameterMissing,
			deploy: func(*stack) string {
				return `{"Parameters": {"Stage": {"Type": "String"}}, "Resources": {"Param": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": {"Ref": "Stage"}}}}}`
			},
			want: []string{"template parameter Stage has no value"},
		},
		{
			name: "failed custom resource", deploy: func(*stack) string { return answering("'FAILED'", "'SUCCESS'", "1", true) }, reason: fault.StackFailed,
			want: []string{"resource app/Seed [Seed] (Custom::Seed, made at bin/app.ts:Seed) ended in CREATE_FAILED: ", "the schema has no table orders"},
		},
		{
			name: "wait-condition timeout", deploy: func(*stack) string { return strings.Replace(waiting, `"120"`, `"1"`, 1) }, reason: fault.StackFailed,
			want: []string{"app/Wait [Wait]", "WaitCondition timed out. Received 0 conditions when expecting 1", "raise its timeout"},
		},
		{
			name: "failing nested stack", reason: fault.StackFailed,
			arrange: func(s *stack) {
				_, err := s.deploy(nesting(s, "nested-good.json", parameter("one")))
				require.NoError(s.t, err)
			},
			deploy: func(s *stack) string { return nesting(s, "nested-bad.json", refused("two")) },
			want:   []string{"resource app/Nest/Bad [Nest/Bad] (AWS::SSM::Parameter, made at bin/app.ts:Nest/Bad) ended in UPDATE_FAILED: ", "Bogus", "UPDATE_ROLLBACK_COMPLETE"},
		},
		{
			name: "failing delete during the clean-up", before: answering("'SUCCESS'", "'FAILED'", "1", true),
			deploy: func(*stack) string { return answering("'SUCCESS'", "'FAILED'", "2", false) },
			want:   []string{"resource app/Seed [Seed] (Custom::Seed, made at bin/app.ts:Seed) was replaced or removed but could not be deleted: the schema has no table orders"},
		},
		{
			name: "stack disappears", reason: fault.StackFailed,
			deploy: func(s *stack) string {
				go deleteOnceBegun(s.t.Context(), s.client(), s.name)
				return waiting
			},
			want: []string{"the stack was deleted meanwhile; DELETE_IN_PROGRESS at ", "Find out who deleted the stack"},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t, emulator(t))
			if row.arrange != nil {
				row.arrange(s)
			}
			if row.before != "" {
				_, err := s.deploy(row.before)
				require.NoError(t, err)
			}
			got, err := s.deploy(row.deploy(s), func(in *cfn.Input) {
				in.ConstructPath = func(ids ...string) string { return "app/" + strings.Join(ids, "/") }
				in.Source = func(ids ...string) string { return "bin/app.ts:" + strings.Join(ids, "/") }
			})
			text := strings.Join(got.Warnings, "\n")
			if row.reason != "" {
				require.ErrorIs(t, err, &fault.Fault{Reason: row.reason, Err: errors.New("any")})
				text = fault.Message(err)
			} else {
				require.NoError(t, err)
			}
			for _, want := range row.want {
				require.Contains(t, text, want)
			}
		})
	}
}

// deleteOnceBegun deletes a stack as soon as it is being created.
func deleteOnceBegun(ctx context.Context, client *cfnsdk.Client, name string) {
	for ctx.Err() == nil {
		out, err := client.DescribeStacks(ctx, &cfnsdk.DescribeStacksInput{StackName: awssdk.String(name)})
		if err == nil && out.Stacks[0].StackStatus == "CREATE_IN_PROGRESS" {
			_, _ = client.DeleteStack(ctx, &cfnsdk.DeleteStackInput{StackName: out.Stacks[0].StackId}) // its effect is what the test looks at
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// allEvents counts what CloudFormation says of a stack and of those nested in
// it, but for the review of change sets.
func (s *stage) allEvents(name string) int {
	s.t.Helper()
	client, count := cfnsdk.NewFromConfig(config(s.emulator, target)), 0
	pages := cfnsdk.NewDescribeStackEventsPaginator(client, &cfnsdk.DescribeStackEventsInput{StackName: awssdk.String(name)})
	nested := map[string]bool{}
	for pages.HasMorePages() {
		page, err := pages.NextPage(s.t.Context())
		require.NoError(s.t, err)
		for _, e := range page.StackEvents {
			if e.ResourceStatus != "REVIEW_IN_PROGRESS" {
				count++
			}
			physical := awssdk.ToString(e.PhysicalResourceId)
			if awssdk.ToString(e.ResourceType) == "AWS::CloudFormation::Stack" && physical != "" && physical != awssdk.ToString(e.StackId) {
				nested[physical] = true
			}
		}
	}
	for arn := range nested {
		count += s.allEvents(arn)
	}
	return count
}

// requireAllEventsKept compares what was kept of a stack with what
// CloudFormation says.
func (s *stage) requireAllEventsKept(name string) {
	s.t.Helper()
	kept := map[record.Event]bool{} // deployments within a second share events of nested stacks
	for _, list := range s.kept {
		require.False(s.t, list.Truncated)
		for _, e := range list.Events {
			if list.Stack == name {
				kept[e] = true
			}
		}
	}
	require.Len(s.t, kept, s.allEvents(name), "every event is kept")
}
