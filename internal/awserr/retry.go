package awserr

import (
	"errors"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
)

// throttledAttempts is how often a throttled request is tried: with up to 15 s
// between two, for minutes. The service lives and asks for patience, and to
// give up would leave work half done.
const throttledAttempts = 30

// Retryer returns a retryer with at most attempts tries of one request and at
// most longest between two, which also repeats requests whose answer broke off.
// A request that is throttled gets more tries. Everything sent through it must
// bear being sent twice.
func Retryer(attempts int, longest time.Duration) *Patient {
	return &Patient{attempts: attempts, Standard: retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = max(attempts, throttledAttempts)
		o.MaxBackoff = longest
		// The SDK's own quota of retries is never filled up by time: in a long
		// deployment it would run dry.
		o.RateLimiter = ratelimit.None
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(brokenOff)}, o.Retryables...)
	})}
}

// Patient is a retryer that gives throttled requests more tries than others.
type Patient struct {
	*retry.Standard

	attempts int
}

// RetryDelay returns err itself once an attempt was the last one, counted from
// 1.
func (p *Patient) RetryDelay(attempt int, err error) (time.Duration, error) {
	if attempt >= p.attempts && !Throttled(err) {
		return 0, err
	}
	return p.Standard.RetryDelay(attempt, err)
}

// brokenOff recognises an answer that ended early: the SDK takes it for one it
// cannot decode and would give up.
func brokenOff(err error) aws.Ternary {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return aws.TrueTernary
	}
	return aws.UnknownTernary
}
