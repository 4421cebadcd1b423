package awsauth

import (
	"net/http"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
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
