package awserr_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/awserr"
)

// A throttled request is tried on when others have long been given up, and
// however many were throttled before it.
func TestRetryer_IsPatientWithThrottling(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	code, good := "Throttling", int64(20)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) >= good {
			_, _ = w.Write([]byte(`<GetCallerIdentityResponse><GetCallerIdentityResult><Account>1</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`))
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(`<ErrorResponse><Error><Type>Sender</Type><Code>` + code + `</Code><Message>Rate exceeded</Message></Error></ErrorResponse>`))
	}))
	t.Cleanup(server.Close)
	client := sts.New(sts.Options{
		Region: "eu-west-1", BaseEndpoint: aws.String(server.URL), Retryer: awserr.Retryer(3, time.Millisecond),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "a", SecretAccessKey: "b"}, nil
		}),
	})
	for range 10 {
		asked.Store(0)
		_, err := client.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
		require.NoError(t, err)
		require.Equal(t, good, asked.Load())
	}
	code = "InternalFailure"
	asked.Store(0)
	_, err := client.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	require.Equal(t, "InternalFailure", awserr.Code(err))
	require.Equal(t, int64(3), asked.Load())
}
