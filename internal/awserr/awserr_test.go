package awserr_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// answer makes the SDK's error of a recorded answer.
func answer(t *testing.T, status int, body string) error {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return call(t, server.URL)
}

func call(t *testing.T, url string) error {
	t.Helper()
	client := sts.New(sts.Options{
		Region: "eu-west-1", BaseEndpoint: aws.String(url), Retryer: aws.NopRetryer{},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "a", SecretAccessKey: "b"}, nil
		}),
	})
	_, err := client.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	require.Error(t, err)
	return err
}

func TestSamples(t *testing.T) {
	t.Parallel()
	checks := map[string]func(error) bool{
		"stackNotFound": awserr.StackNotFound, "changeSetNotFound": awserr.ChangeSetNotFound, "alreadyExists": awserr.AlreadyExists,
		"notExecutable": awserr.ChangeSetNotExecutable, "stackBusy": awserr.StackBusy, "accessDenied": awserr.AccessDenied,
		"expired": awserr.ExpiredCredentials, "throttled": awserr.Throttled, "temporary": awserr.Temporary, "unreachable": awserr.Unreachable,
	}
	var samples []struct {
		Name    string       `json:"name"`
		Status  int          `json:"status"`
		Body    string       `json:"body"`
		Matches []string     `json:"matches"`
		Reason  fault.Reason `json:"reason"`
	}
	data, err := os.ReadFile("testdata/samples.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &samples))
	require.NotEmpty(t, samples)
	for _, sample := range samples {
		t.Run(sample.Name, func(t *testing.T) {
			t.Parallel()
			err := answer(t, sample.Status, sample.Body)
			var matches []string
			for name, check := range checks {
				if check(err) {
					matches = append(matches, name)
				}
			}
			require.ElementsMatch(t, sample.Matches, matches)
			got := awserr.Fault(t.Context(), err, "describe stack x")
			require.ErrorIs(t, got, &fault.Fault{Reason: sample.Reason})
			require.NotContains(t, got.Error(), "operation error", "the SDK's wrapping is noise to a user")
		})
	}
}

func TestNoChanges(t *testing.T) {
	t.Parallel()
	require.True(t, awserr.NoChanges("The submitted information didn't contain changes. Submit different information to create a change set."))
	require.True(t, awserr.NoChanges("No updates are to be performed."))
	require.False(t, awserr.NoChanges("Transform failed: No updates are to be performed."))
	require.False(t, awserr.NoChanges(""))
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	url := "http://" + listener.Addr().String()
	require.NoError(t, listener.Close())
	err = call(t, url)
	require.True(t, awserr.Unreachable(err))
	require.ErrorIs(t, awserr.Fault(t.Context(), err, "x"), &fault.Fault{Reason: fault.AWSUnavailable})
	require.False(t, awserr.Unreachable(nil))
	_, err = os.Open("testdata/none")
	require.False(t, awserr.Unreachable(err), "a missing file is no outage")
	require.False(t, awserr.Unreachable(context.DeadlineExceeded))
}

func TestFault_EndedContextReportsItsCause(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fault.Newf(fault.Cancelled, fault.StageTimeout, "", "Raise the timeout", "30m0s are used up"))
	err := awserr.Fault(ctx, errors.New("canceled"), "deploy stack x")
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StageTimeout})
	require.Contains(t, fault.Message(err), "30m0s are used up. Raise the timeout [StageTimeout]")

	plain, stop := context.WithCancel(t.Context())
	stop()
	require.ErrorIs(t, awserr.Fault(plain, errors.New("canceled"), "x"), &fault.Fault{Reason: fault.Cancellation})
}

// The SDK has the cause of a context in its chain where the answer was being
// read, and its own words around it.
func TestFault_OfAnAnswerThatTheEndOfTheContextBrokeOff(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("<GetCallerIdentityResponse>"))
		_ = http.NewResponseController(w).Flush()
		cancel(fault.Newf(fault.Cancelled, fault.StageTimeout, "", "Raise the timeout", "30m0s are used up"))
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	client := sts.New(sts.Options{
		Region: "eu-west-1", BaseEndpoint: aws.String(server.URL), Retryer: aws.NopRetryer{},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "a", SecretAccessKey: "b"}, nil
		}),
	})
	_, err := client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	require.Error(t, err)
	require.Equal(t, "look: stopped: 30m0s are used up. Raise the timeout [StageTimeout]", fault.Message(awserr.Fault(ctx, err, "look")))
}

func TestFault_KeepsFaultsAndNil(t *testing.T) {
	t.Parallel()
	require.NoError(t, awserr.Fault(t.Context(), nil, "x"))
	f := fault.Newf(fault.User, fault.StackBusy, "a", "", "b")
	require.Same(t, f, awserr.Fault(t.Context(), f, "x"))
}
