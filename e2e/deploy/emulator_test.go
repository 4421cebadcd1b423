package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/solo"
	"github.com/aphex-pipeline/aphex/internal/testkit/effects"
	"github.com/aphex-pipeline/aphex/internal/testkit/need"
)

const (
	account = aws.AccountTools
	target  = aws.AccountTarget
	region  = "eu-west-1"
)

// shared is the emulator of all tests that set no faults; nil if the machine
// has none.
var shared *aws.Emulator

func TestMain(m *testing.M) {
	if code, served := solo.Served(os.Args); served { // a process of a test
		os.Exit(code)
	}
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	if !need.Listed(need.Emulator) {
		return m.Run()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	var err error
	if shared, err = aws.Start(ctx, aws.Config{Log: os.Stderr}); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := shared.Stop(); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}()
	err = errors.Join(
		warmUp(ctx, shared),
		shared.QuickBootstrap(ctx, account, region, nil),
		shared.QuickBootstrap(ctx, target, region, []string{account}),
	)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// warmUp makes the first call to CloudFormation, for which the fault proxy
// takes many seconds.
func warmUp(ctx context.Context, e *aws.Emulator) error {
	_, err := cfnsdk.NewFromConfig(config(e, account)).DescribeStacks(ctx, &cfnsdk.DescribeStacksInput{})
	return err
}

// emulator returns the shared emulator.
func emulator(t *testing.T) *aws.Emulator {
	t.Helper()
	need.Require(t, need.Emulator)
	return shared
}

// own starts an emulator for a test that sets faults.
func own(t *testing.T) *aws.Emulator {
	t.Helper()
	need.Require(t, need.Emulator)
	e, err := aws.Start(t.Context(), aws.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Stop()) })
	require.NoError(t, warmUp(t.Context(), e))
	return e
}

func config(e *aws.Emulator, account string) awssdk.Config { return e.Config(account, region) }

// memory is what outlives a process: the journal of one execution, and its key.
type memory struct {
	effects.Memory

	execution string
}

var executions atomic.Int64

func newMemory() *memory {
	return &memory{execution: fmt.Sprintf("execution %d", executions.Add(1))}
}
