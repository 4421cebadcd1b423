package cfn

import (
	"context"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go/middleware"
	"golang.org/x/time/rate"

	"github.com/aphex-pipeline/aphex/internal/awscalls"
	"github.com/aphex-pipeline/aphex/internal/awserr"
)

// What CloudFormation is asked in one account and region. AWS does not publish
// the limits, which differ between operations and accounts: what is too much
// shows, and is halved until it is not. Watching 32 stacks takes 22 requests a
// second; the CDK CLI, deploying 40 stacks ten at a time, sends 130 a second.
// The burst is what 40 such stacks take without waiting for the rate.
const (
	requestRate  rate.Limit = 100 // a second
	requestBurst            = 200
	slowestRate  rate.Limit = 1
	// slowBy is what is left of the rate after a throttled answer, recoverBy
	// what each good answer adds to it.
	slowBy               = 0.5
	recoverBy rate.Limit = 1
	// slowEvery is how often it is slowed down at most: the answers to one
	// burst are one sign.
	slowEvery = time.Second
)

// Budget is the rate of requests that all deployments to one account and
// region share. It is safe for concurrent use.
type Budget struct {
	limiter *rate.Limiter

	mu     sync.Mutex
	slowed time.Time
}

func newBudget() *Budget { return &Budget{limiter: rate.NewLimiter(requestRate, requestBurst)} }

// Budgets has the budget of each account and region. The zero value is ready;
// it is safe for concurrent use.
type Budgets struct {
	mu      sync.Mutex
	budgets map[[2]string]*Budget
}

// For returns the one budget of an account and region.
func (b *Budgets) For(account, region string) *Budget {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := [2]string{account, region}
	if b.budgets == nil {
		b.budgets = map[[2]string]*Budget{}
	}
	if b.budgets[key] == nil {
		b.budgets[key] = newBudget()
	}
	return b.budgets[key]
}

// attach makes every try of a request of a client wait for its turn, and learn
// from its answer.
func (b *Budget) attach(stack *middleware.Stack) error {
	return awscalls.EachAttempt(stack, "Budget", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
		if err := b.limiter.Wait(ctx); err != nil {
			return middleware.FinalizeOutput{}, middleware.Metadata{}, &aws.RequestCanceledError{Err: err}
		}
		out, metadata, err := next.HandleFinalize(ctx, in)
		b.learn(time.Now(), err)
		return out, metadata, err
	})
}

// learn halves the rate after a throttled answer and brings it back bit by bit.
func (b *Budget) learn(now time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	limit := b.limiter.Limit()
	switch {
	case awserr.Throttled(err) && now.Sub(b.slowed) >= slowEvery:
		b.slowed = now
		b.limiter.SetLimit(max(slowestRate, limit*slowBy))
	case err == nil && limit < requestRate:
		b.limiter.SetLimit(min(requestRate, limit+recoverBy))
	}
}
