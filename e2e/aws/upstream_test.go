package aws_test

import (
	"testing"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/internal/testkit/need"
)

func TestStart_AGivenEndpointIsUsedAndLeftRunning(t *testing.T) {
	t.Parallel()
	given := start(t)
	emulator, err := aws.Start(t.Context(), aws.Config{Upstream: given.DirectEndpoint() + "/", Log: t.Output()})
	require.NoError(t, err)
	_, err = s3.NewFromConfig(emulator.Config(aws.AccountTools, "us-east-1"), pathStyle).CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: awssdk.String("given")})
	require.NoError(t, err)
	require.Len(t, emulator.Calls(), 1, "calls through the endpoint are recorded")
	require.ErrorContains(t, emulator.Reset(t.Context()), "was given, not started")
	require.NoError(t, emulator.Stop())

	_, err = s3.NewFromConfig(given.DirectConfig(aws.AccountTools, "us-east-1"), pathStyle).HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: awssdk.String("given")})
	require.NoError(t, err, "the given endpoint lives on with what was made through the other")
}

func TestStart_AGivenEndpointThatDoesNotAnswerIsNamed(t *testing.T) {
	t.Parallel()
	need.Require(t, need.Emulator)
	_, err := aws.Start(t.Context(), aws.Config{Upstream: "http://127.0.0.1:9"})
	require.ErrorContains(t, err, "the AWS endpoint given does not answer")
	require.ErrorContains(t, err, "127.0.0.1:9")
}

func pathStyle(o *s3.Options) { o.UsePathStyle = true }
