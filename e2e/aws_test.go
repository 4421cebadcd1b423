package e2e

import (
	"io"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/lab"
)

// parameter reads an SSM parameter of the dev environment.
func parameter(t *testing.T, l *lab.Lab, name string) string {
	t.Helper()
	return parameterIn(t, l, aws.AccountTools, "eu-west-1", name)
}

func parameterIn(t *testing.T, l *lab.Lab, account, region, name string) string {
	t.Helper()
	client := ssm.NewFromConfig(l.AWS.Config(account, region))
	out, err := client.GetParameter(t.Context(), &ssm.GetParameterInput{Name: &name})
	require.NoError(t, err)
	return *out.Parameter.Value
}

// putParameter writes one.
func putParameter(t *testing.T, l *lab.Lab, name, value string) {
	t.Helper()
	client := ssm.NewFromConfig(l.AWS.Config(aws.AccountTools, "eu-west-1"))
	_, err := client.PutParameter(t.Context(), &ssm.PutParameterInput{Name: &name, Value: &value, Type: types.ParameterTypeString})
	require.NoError(t, err)
}

// object reads an object of the pipeline's bucket by its s3:// URL.
func object(t *testing.T, l *lab.Lab, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	require.Equal(t, "s3", u.Scheme, "%q", address)
	key := strings.TrimPrefix(u.Path, "/")
	client := s3.NewFromConfig(l.AWS.Config(aws.AccountTools, "eu-west-1"), func(o *s3.Options) { o.UsePathStyle = true })
	out, err := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &u.Host, Key: &key})
	require.NoError(t, err)
	body, err := io.ReadAll(out.Body)
	require.NoError(t, err)
	require.NoError(t, out.Body.Close())
	return string(body)
}

// stackOutputs returns the outputs of a stack by key; nil if there is no such
// stack.
func stackOutputs(t *testing.T, l *lab.Lab, account, region, name string) map[string]string {
	t.Helper()
	client := cloudformation.NewFromConfig(l.AWS.Config(account, region))
	out, err := client.DescribeStacks(t.Context(), &cloudformation.DescribeStacksInput{StackName: &name})
	if err != nil {
		require.ErrorContains(t, err, "does not exist")
		return nil
	}
	outputs := map[string]string{}
	for _, o := range out.Stacks[0].Outputs {
		outputs[*o.OutputKey] = *o.OutputValue
	}
	return outputs
}

// changeSets returns the names of a stack's change sets.
func changeSets(t *testing.T, l *lab.Lab, account, region, name string) []string {
	t.Helper()
	client := cloudformation.NewFromConfig(l.AWS.Config(account, region))
	out, err := client.ListChangeSets(t.Context(), &cloudformation.ListChangeSetsInput{StackName: &name})
	require.NoError(t, err)
	var names []string
	for _, s := range out.Summaries {
		if s.ExecutionStatus != "EXECUTE_COMPLETE" {
			names = append(names, *s.ChangeSetName)
		}
	}
	return names
}
