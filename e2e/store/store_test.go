package store_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	emulator "github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/store/storetest"
	"github.com/aphex-pipeline/aphex/internal/testkit/need"
)

// startEmulator starts the emulator for this test, which runs only where
// APHEX_REQUIRE lists it.
func startEmulator(t *testing.T) *emulator.Emulator {
	t.Helper()
	need.Require(t, need.Emulator)
	e, err := emulator.Start(t.Context(), emulator.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Stop()) })
	return e
}

func awsConfig(t *testing.T, endpoint string) aws.Config {
	t.Helper()
	cfg, err := config.LoadDefaultConfig(t.Context(),
		config.WithRegion("us-east-1"), config.WithBaseEndpoint(endpoint), config.WithRetryMaxAttempts(3),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(emulator.AccountTools, "secret", "")))
	require.NoError(t, err)
	return cfg
}

func makeBucket(t *testing.T, client *s3.Client, bucket string) {
	t.Helper()
	_, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket})
	require.NoError(t, err)
}

func TestS3_IsAStore(t *testing.T) {
	e := startEmulator(t)
	cfg := awsConfig(t, e.DirectEndpoint())
	raw := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	var count atomic.Int32
	t.Run("conformance", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) storetest.Target {
			t.Helper()
			bucket := fmt.Sprintf("aphex-store-%d", count.Add(1))
			makeBucket(t, raw, bucket)
			return storetest.Target{
				Store:      store.NewS3(cfg, bucket, "team/shop/"),
				LargeBytes: 40 << 20,
				KeepsTags:  true, // ministack 1.5
				Overwrite: func(t *testing.T, key string, content []byte) {
					t.Helper()
					key = "team/shop/" + key
					head, err := raw.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: &key})
					require.NoError(t, err)
					_, err = raw.PutObject(t.Context(), &s3.PutObjectInput{
						Bucket: &bucket, Key: &key, Body: bytes.NewReader(content), Metadata: head.Metadata,
					})
					require.NoError(t, err)
				},
			}
		})
	})
}

func TestS3_SurvivesAFaultyService(t *testing.T) {
	e := startEmulator(t)
	cfg := awsConfig(t, e.Endpoint())
	raw := s3.NewFromConfig(awsConfig(t, e.DirectEndpoint()), func(o *s3.Options) { o.UsePathStyle = true })
	makeBucket(t, raw, "faulty")
	s := store.NewS3(cfg, "faulty", "")
	once := func(t *testing.T, rule string) {
		t.Helper()
		require.NoError(t, e.ClearRules(t.Context()))
		require.NoError(t, e.Rules(t.Context(), rule))
	}
	fired := func(t *testing.T) {
		t.Helper()
		faults, err := e.Fired(t.Context())
		require.NoError(t, err)
		require.NotEmpty(t, faults)
	}

	once(t, `[{"service":"s3","operation":"PutObject","times":1,"response":{"abort_frac":0}}]`)
	_, err := s.Put(t.Context(), "lost-answer", strings.NewReader("x"), store.PutOptions{IfAbsent: true})
	require.NoError(t, err, "the object found is our own")
	fired(t)

	once(t, `[{"service":"s3","operation":"PutObject","error":{"code":"AccessDenied","status":403}}]`)
	_, err = s.Put(t.Context(), "denied", strings.NewReader("x"), store.PutOptions{})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StoreFailed})
	require.Contains(t, fault.Message(err), "s3:PutObject")
	require.Equal(t, fault.User, fault.From(err).Class)

	once(t, `[{"service":"s3","operation":"PutObject","error":{"code":"InternalError","status":500}}]`)
	_, err = s.Put(t.Context(), "down", strings.NewReader("x"), store.PutOptions{})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.AWSUnavailable})
	require.NoError(t, e.ClearRules(t.Context()))

	_, err = store.NewS3(cfg, "no-such-bucket", "").Put(t.Context(), "k", strings.NewReader("x"), store.PutOptions{})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StoreFailed})
	require.Contains(t, fault.Message(err), "no-such-bucket does not exist")
}
