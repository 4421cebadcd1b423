package awsauth

import (
	"context"
	"io"
	"net/http"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Idle connections that are kept, to one host and altogether: as many as
// requests about assets go on at a time, and some for the rest. The SDK's own
// 10 to a host let all others be closed after each wave of requests, and opened
// again, for two round trips, by the next.
const hostConnections, allConnections = 64, 256

// Connections returns the HTTP client of a configuration. Clients made from the
// configuration, or from a copy of it, use each other's connections again.
func Connections() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConnsPerHost, t.MaxIdleConns = hostConnections, allConnections
	})
}

// APIOptions returns the API options of a configuration.
func APIOptions() []func(*middleware.Stack) error {
	return []func(*middleware.Stack) error{keepAnswers}
}

// keepAnswers keeps the SDK from losing, on a busy machine, the answer to a
// request that took effect, and making the request again. The SDK closes the
// body of a request as soon as the answer begins. Where net/http is then still
// looking for the body's end, a closed body that has WriteTo tells it of an
// error, and net/http closes the connection before the answer is read. A body
// that can only be read ends as any other.
//
// Source: smithy-go v1.28.9, safeWriteToReadCloser; net/http, transferWriter.
func keepAnswers(stack *middleware.Stack) error {
	return stack.Finalize.Add(middleware.FinalizeMiddlewareFunc("AphexKeepAnswers", func(
		ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler,
	) (middleware.FinalizeOutput, middleware.Metadata, error) {
		req, ok := in.Request.(*smithyhttp.Request)
		if !ok {
			return next.HandleFinalize(ctx, in)
		}
		if body, ok := onlyReads(req.GetStream()); ok {
			var err error
			if in.Request, err = req.SetStream(body); err != nil {
				return middleware.FinalizeOutput{}, middleware.Metadata{}, err
			}
		}
		return next.HandleFinalize(ctx, in)
	}), middleware.After)
}

// onlyReads returns a body without its WriteTo, and whether it had one.
func onlyReads(body io.Reader) (io.Reader, bool) {
	if _, ok := body.(io.WriterTo); !ok {
		return body, false
	}
	if seekable, ok := body.(io.ReadSeeker); ok {
		return struct{ io.ReadSeeker }{seekable}, true
	}
	return struct{ io.Reader }{body}, true
}
