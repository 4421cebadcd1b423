package awscalls_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/awscalls"
	"github.com/aphex-pipeline/aphex/internal/awserr"
)

// What is repeated counts each time, whichever copy of the configuration a
// client was made from.
func TestCounter_CountsEachTry(t *testing.T) {
	t.Parallel()
	var seen atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if seen.Add(1) <= 2 {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprint(w, `<ErrorResponse><Error><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>`)
			return
		}
		_, _ = fmt.Fprint(w, `<DescribeStacksResponse><DescribeStacksResult><Stacks></Stacks></DescribeStacksResult></DescribeStacksResponse>`)
	}))
	t.Cleanup(server.Close)
	var counter awscalls.Counter
	plain := aws.Config{
		Region: "eu-west-1", BaseEndpoint: aws.String(server.URL), Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
		Retryer: func() aws.Retryer { return awserr.Retryer(5, time.Millisecond) },
	}
	cfg := counter.Attach(plain)
	require.Equal(t, "no AWS calls", counter.String())

	_, err := cfnsdk.NewFromConfig(cfg).DescribeStacks(t.Context(), &cfnsdk.DescribeStacksInput{})
	require.NoError(t, err)
	require.Equal(t, map[awscalls.Call]int{{Service: "CloudFormation", Operation: "DescribeStacks"}: 3}, counter.Counts())

	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			client := cfnsdk.NewFromConfig(cfg.Copy())
			for range 5 {
				_, _ = client.ListStacks(t.Context(), &cfnsdk.ListStacksInput{})
			}
		})
	}
	group.Wait()
	require.Equal(t, "23 AWS calls: CloudFormation 23 (ListStacks 20, DescribeStacks 3)", counter.String())

	_, err = cfnsdk.NewFromConfig(plain).DescribeStacks(t.Context(), &cfnsdk.DescribeStacksInput{})
	require.NoError(t, err)
	require.Equal(t, 23, counter.Total(), "the configuration it was made from is left alone")
}
