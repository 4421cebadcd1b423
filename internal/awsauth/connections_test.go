package awsauth_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/aphex-pipeline/aphex/internal/awsauth"
)

// Many requests at the same time, each of a client of its own, leave their
// connections to those that follow. Environment variables keep this test from
// running in parallel.
func TestBase_ClientsShareConnections(t *testing.T) {
	const together, waves = 40, 3
	var opened atomic.Int64
	var arrived sync.WaitGroup
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived.Done()
		arrived.Wait()
		_, _ = w.Write([]byte(`<GetCallerIdentityResponse><GetCallerIdentityResult><Account>111111111111</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`))
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	cfg, err := awsauth.Base(t.Context(), awsauth.Options{EndpointURL: server.URL, Region: "eu-west-1"})
	require.NoError(t, err)
	cfg.Credentials = credentials.NewStaticCredentialsProvider("a", "b", "")
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
