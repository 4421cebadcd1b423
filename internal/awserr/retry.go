package awserr

import (
	"errors"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
)

// Retryer returns the SDK's retryer with at most attempts tries of one request
// and at most longest between two, which also repeats requests whose answer
// broke off. Everything sent through it must bear being sent twice.
func Retryer(attempts int, longest time.Duration) *retry.Standard {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = attempts
		o.MaxBackoff = longest
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(brokenOff)}, o.Retryables...)
	})
}

// brokenOff recognises an answer that ended early: the SDK takes it for one it
// cannot decode and would give up.
func brokenOff(err error) aws.Ternary {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return aws.TrueTernary
	}
	return aws.UnknownTernary
}
