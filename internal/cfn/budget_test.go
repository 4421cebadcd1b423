package cfn

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/aphex-pipeline/aphex/internal/testkit/effects"
)

func TestBudgets_OnePerAccountAndRegion(t *testing.T) {
	t.Parallel()
	var budgets Budgets
	a := budgets.For("111111111111", "eu-west-1")
	require.Same(t, a, budgets.For("111111111111", "eu-west-1"))
	require.NotSame(t, a, budgets.For("111111111111", "eu-west-2"))
	require.NotSame(t, a, budgets.For("222222222222", "eu-west-1"))
}

func TestBudget_SlowsDownOnceForABurstAndComesBack(t *testing.T) {
	t.Parallel()
	throttled := &smithy.GenericAPIError{Code: "Throttling", Message: "Rate exceeded"}
	b, now := newBudget(), time.Now()
	b.learn(now, throttled)
	b.learn(now.Add(slowEvery/2), throttled)
	require.InDelta(t, float64(requestRate)/2, float64(b.limiter.Limit()), 0.01, "the answers to one burst are one sign")
	b.learn(now, &smithy.GenericAPIError{Code: "ValidationError"})
	b.learn(now, context.Canceled)
	require.InDelta(t, float64(requestRate)/2, float64(b.limiter.Limit()), 0.01, "other failures say nothing")
	for i := range 20 {
		b.learn(now.Add(time.Duration(i+1)*slowEvery), throttled)
	}
	require.InDelta(t, float64(slowestRate), float64(b.limiter.Limit()), 0.01)
	for range 100 {
		b.learn(now, nil)
	}
	require.InDelta(t, float64(requestRate), float64(b.limiter.Limit()), 0.01)
}

// All deployers of an account and region have one budget, retries included;
// who waits for his turn is not kept from ending.
func TestBudget_IsShared(t *testing.T) {
	t.Parallel()
	var seen atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		seen.Add(1)
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`<ErrorResponse><Error><Code>ValidationError</Code><Message>Stack with id shop does not exist</Message></Error></ErrorResponse>`))
	}))
	t.Cleanup(server.Close)
	shared := &Budget{limiter: rate.NewLimiter(rate.Every(time.Hour), 10)}
	deployer := func() *Deployer {
		return New(Config{
			AWS:     aws.Config{Region: "eu-west-1", BaseEndpoint: aws.String(server.URL), Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")},
			Account: "111111111111", Journal: &effects.Memory{}, Budget: shared,
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var group sync.WaitGroup
	for range 4 {
		d := deployer()
		group.Go(func() {
			for {
				if _, _, err := d.Output(ctx, "shop", "Key"); err != nil {
					return
				}
				if seen.Load() == 10 {
					cancel()
				}
			}
		})
	}
	group.Wait()
	require.EqualValues(t, 10, seen.Load())
}
