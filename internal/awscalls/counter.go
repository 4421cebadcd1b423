package awscalls

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go/middleware"
)

// Call is one kind of request.
type Call struct {
	// Service is the SDK's id, such as "CloudFormation" or "S3".
	Service string
	// Operation is such as "DescribeStacks".
	Operation string
}

// Counter counts requests. The zero value is ready; it is safe for concurrent
// use.
type Counter struct {
	mu     sync.Mutex
	counts map[Call]int
}

// Attach returns cfg changed so that every request of a client made from it,
// or from a copy of it, counts. What is repeated counts again: it costs again.
func (c *Counter) Attach(cfg aws.Config) aws.Config {
	cfg = cfg.Copy()
	cfg.APIOptions = append(slices.Clone(cfg.APIOptions), func(stack *middleware.Stack) error {
		return EachAttempt(stack, "CountCalls", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
			c.add(Call{Service: awsmiddleware.GetServiceID(ctx), Operation: awsmiddleware.GetOperationName(ctx)})
			return next.HandleFinalize(ctx, in)
		})
	})
	return cfg
}

// EachAttempt adds f to what is done for each try of a request.
func EachAttempt(stack *middleware.Stack, id string, f func(context.Context, middleware.FinalizeInput, middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error)) error {
	m := middleware.FinalizeMiddlewareFunc(id, f)
	if _, ok := stack.Finalize.Get("Retry"); ok {
		return stack.Finalize.Insert(m, "Retry", middleware.After)
	}
	return stack.Finalize.Add(m, middleware.Before)
}

func (c *Counter) add(call Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[Call]int{}
	}
	c.counts[call]++
}

// Counts returns how often each kind of request was sent so far.
func (c *Counter) Counts() map[Call]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

// Total returns how many requests were sent so far.
func (c *Counter) Total() int {
	total := 0
	for _, n := range c.Counts() {
		total += n
	}
	return total
}

// String lists the counts by service, the most frequent operations first:
// "12 AWS calls: CloudFormation 9 (DescribeStackEvents 5, DescribeStacks 4);
// S3 3 (ListObjectsV2 3)".
func (c *Counter) String() string {
	services := map[string]map[string]int{}
	for call, n := range c.Counts() {
		if services[call.Service] == nil {
			services[call.Service] = map[string]int{}
		}
		services[call.Service][call.Operation] += n
	}
	var parts []string
	for _, service := range slices.Sorted(maps.Keys(services)) {
		operations, sum := services[service], 0
		names := slices.SortedFunc(maps.Keys(operations), func(a, b string) int {
			return cmp.Or(cmp.Compare(operations[b], operations[a]), cmp.Compare(a, b))
		})
		for i, name := range names {
			sum += operations[name]
			names[i] = fmt.Sprintf("%s %d", name, operations[name])
		}
		parts = append(parts, fmt.Sprintf("%s %d (%s)", service, sum, strings.Join(names, ", ")))
	}
	if len(parts) == 0 {
		return "no AWS calls"
	}
	return fmt.Sprintf("%d AWS calls: %s", c.Total(), strings.Join(parts, "; "))
}
