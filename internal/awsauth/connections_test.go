package awsauth_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/middleware"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/aphex-pipeline/aphex/internal/awsauth"
)

const identityAnswer = `<GetCallerIdentityResponse><GetCallerIdentityResult><Account>111111111111</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`

// base is the configuration for an endpoint. Its environment variables keep a
// test from running in parallel.
func base(t *testing.T, url string) aws.Config {
	t.Helper()
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	cfg, err := awsauth.Base(t.Context(), awsauth.Options{EndpointURL: url, Region: "eu-west-1"})
	require.NoError(t, err)
	cfg.Credentials = credentials.NewStaticCredentialsProvider("a", "b", "")
	return cfg
}

// Many requests at the same time, each of a client of its own, leave their
// connections to those that follow.
func TestBase_ClientsShareConnections(t *testing.T) {
	const together, waves = 40, 3
	var opened atomic.Int64
	var arrived sync.WaitGroup
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived.Done()
		arrived.Wait()
		_, _ = w.Write([]byte(identityAnswer))
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	cfg := base(t, server.URL)
	for range waves {
		arrived.Add(together)
		var wave errgroup.Group
		for range together {
			wave.Go(func() error {
				_, err := sts.NewFromConfig(cfg.Copy()).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
				return err
			})
		}
		require.NoError(t, wave.Wait())
	}
	require.Equal(t, int64(together), opened.Load())
}

// slowConn is a connection on which writing an action goes on until the SDK has
// got the beginning of the answer.
type slowConn struct {
	net.Conn
	answered <-chan struct{}
}

func (c slowConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if bytes.Contains(b, []byte("Action=")) {
		<-c.answered
	}
	return n, err
}

// A connection stays usable when an answer begins before the last write of its
// request has returned, as happens on a busy machine.
func TestBase_AnswerThatOvertakesItsRequest(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write([]byte(identityAnswer))
	}))
	t.Cleanup(server.Close)
	cfg := base(t, server.URL)
	answered := make(chan struct{})
	cfg.HTTPClient = awsauth.Connections().WithTransportOptions(func(transport *http.Transport) {
		dial := transport.DialContext
		transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			return slowConn{conn, answered}, err
		}
	})
	cfg.APIOptions = append(cfg.APIOptions, func(stack *middleware.Stack) error {
		return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("Answered", func(
			ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler,
		) (middleware.DeserializeOutput, middleware.Metadata, error) {
			defer close(answered)
			return next.HandleDeserialize(ctx, in)
		}), middleware.After)
	})
	wrote := make(chan error, 1)
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		WroteRequest: func(info httptrace.WroteRequestInfo) { wrote <- info.Err },
	})
	_, err := sts.NewFromConfig(cfg).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	require.NoError(t, err)
	require.NoError(t, <-wrote, "net/http closes the connection")
}
