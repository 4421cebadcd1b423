package deploy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/internal/cfn"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

var errDied = errors.New("the process died")

// dying is an HTTP client whose process dies at one request: before it is
// sent, or after it took effect but before the answer was read.
type dying struct {
	at    int64
	after bool
	kill  context.CancelCauseFunc
	sent  atomic.Int64
}

func (d *dying) Do(req *http.Request) (*http.Response, error) {
	n := d.sent.Add(1)
	if n < d.at {
		return http.DefaultClient.Do(req)
	}
	if n == d.at && d.after {
		resp, err := http.DefaultClient.Do(req.WithContext(context.WithoutCancel(req.Context())))
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	}
	d.kill(errDied)
	return nil, errDied
}

// executions lists the change sets of the stack that were executed with
// success.
func (s *stack) executions(e *aws.Emulator) []string {
	var out []string
	for _, c := range e.Calls() {
		if c.Operation == "ExecuteChangeSet" && c.Status == http.StatusOK && strings.Contains(c.Form.Get("StackName"), "/"+s.name+"/") {
			out = append(out, c.Form.Get("ChangeSetName"))
		}
	}
	return out
}

// Killed at every single request, before or after it took effect, with its
// journal or without one: the next process finishes the work, and nothing is
// done twice.
func TestResume_KilledAnywhere(t *testing.T) {
	t.Parallel()
	scenarios := []struct {
		name    string
		before  string
		want    cfn.Outcome
		protect bool
	}{
		{name: "create", want: cfn.Created, protect: true},
		{name: "update", before: "good", want: cfn.Updated, protect: true},
		{name: "recreate", before: "bad", want: cfn.Recreated},
	}
	for _, sc := range scenarios {
		for _, mode := range []string{"before", "after"} {
			for _, journal := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%s/journal %t", sc.name, mode, journal), func(t *testing.T) {
					t.Parallel()
					e := emulator(t)
					for at := int64(1); ; at++ {
						s := newStack(t, e)
						s.name = fmt.Sprintf("aphex-kill-%s-%s-%t-%d", sc.name, mode, journal, at)
						s.prepare(sc.before)
						edit := func(in *cfn.Input) { in.TerminationProtection = sc.protect }
						if !s.die(at, mode == "after", edit) {
							require.Greater(t, at, int64(5), "the deployment was interrupted")
							return
						}
						if !journal {
							s.journal = &memory{execution: s.journal.execution}
						}
						before := len(s.executions(e))
						got, err := s.resume(t.Context(), parameter("two"), edit)
						require.NoError(t, err, "killed at request %d", at)
						require.Equal(t, "two", got.Outputs["Value"])
						if journal {
							require.Equal(t, sc.want, got.Outcome, "killed at request %d", at)
						}
						done := s.executions(e)
						require.LessOrEqual(t, len(done)-before, 1)
						require.Len(t, done[s.prepared:], 1, "killed at request %d", at)
						require.Equal(t, sc.protect, s.protected())
					}
				})
			}
		}
	}
}

// prepare brings the stack into the state that a scenario begins with.
func (s *stack) prepare(state string) {
	s.t.Helper()
	switch state {
	case "good":
		_, err := s.deploy(parameter("one"))
		require.NoError(s.t, err)
	case "bad":
		_, err := s.deploy(refused("one"))
		require.Error(s.t, err)
	default:
		return
	}
	s.prepared = 1
}

// die deploys as a process that is killed at its at-th request; false if it
// made fewer.
func (s *stack) die(at int64, after bool, edit func(*cfn.Input)) bool {
	s.t.Helper()
	ctx, kill := context.WithCancelCause(s.t.Context())
	defer kill(nil)
	alive := s.cfg
	client := &dying{at: at, after: after, kill: kill}
	s.cfg.HTTPClient = client
	defer func() { s.cfg = alive }()
	s.journal = newMemory()
	_, err := s.resume(ctx, parameter("two"), edit)
	if client.sent.Load() < at {
		require.NoError(s.t, err)
		return false
	}
	require.Error(s.t, err)
	return true
}

func (s *stack) protected() bool {
	s.t.Helper()
	out, err := s.client().DescribeStacks(s.t.Context(), &cfnsdk.DescribeStacksInput{StackName: awssdk.String(s.name)})
	require.NoError(s.t, err)
	return awssdk.ToBool(out.Stacks[0].EnableTerminationProtection)
}

// waiting is a template that stays in progress until its handle is signalled.
const waiting = `{"Resources": {
	"Handle": {"Type": "AWS::CloudFormation::WaitConditionHandle"},
	"Wait": {"Type": "AWS::CloudFormation::WaitCondition", "DependsOn": "Handle", "Properties": {"Handle": {"Ref": "Handle"}, "Timeout": "120", "Count": 1}}},
	"Outputs": {"Data": {"Value": "done"}}}`

// signal ends the wait condition of the stack.
func (s *stack) signal(status string) {
	s.t.Helper()
	signal(s.t, s.client(), s.name, status)
}

func signal(t *testing.T, client *cfnsdk.Client, stack, status string) {
	t.Helper()
	var url string
	require.Eventually(t, func() bool {
		out, err := client.DescribeStackResource(t.Context(), &cfnsdk.DescribeStackResourceInput{StackName: awssdk.String(stack), LogicalResourceId: awssdk.String("Handle")})
		if err != nil || out.StackResourceDetail.PhysicalResourceId == nil {
			return false
		}
		url = *out.StackResourceDetail.PhysicalResourceId
		return strings.HasPrefix(url, "http")
	}, 20*time.Second, 50*time.Millisecond)
	body := fmt.Sprintf(`{"Status": %q, "UniqueId": "1", "Reason": "as the test asks", "Data": "d"}`, status)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, bytes.NewReader([]byte(body)))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
}

// begin starts to deploy the waiting template and returns once it is in
// progress.
func (s *stack) begin(ctx context.Context) <-chan error {
	s.t.Helper()
	ended := make(chan error, 1)
	go func() {
		_, err := s.resume(ctx, waiting)
		ended <- err
	}()
	require.Eventually(s.t, func() bool {
		out, err := s.client().DescribeStacks(ctx, &cfnsdk.DescribeStacksInput{StackName: awssdk.String(s.name)})
		return err == nil && out.Stacks[0].StackStatus == "CREATE_IN_PROGRESS"
	}, 30*time.Second, 20*time.Millisecond)
	return ended
}

func TestResume_CancelledDeployIsJoined(t *testing.T) {
	t.Parallel()
	e := emulator(t)
	s := newStack(t, e)
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := s.begin(ctx)
	cancel(fault.Newf(fault.User, fault.StageTimeout, "deploy dev", "Raise the timeout", "10m0s are used up"))
	err := <-ended
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StageTimeout, Err: errDied})
	require.ErrorContains(t, err, "CREATE_IN_PROGRESS")
	require.ErrorContains(t, err, "10m0s are used up")
	require.Equal(t, "CREATE_IN_PROGRESS", s.status(), "nothing is rolled back")

	s.signal("SUCCESS")
	got, err := s.resume(t.Context(), waiting)
	require.NoError(t, err)
	require.Equal(t, cfn.Created, got.Outcome)
	require.Len(t, s.executions(e), 1)

	again, err := s.resume(t.Context(), waiting)
	require.NoError(t, err)
	require.Equal(t, got, again, "the result of an execution does not change")
}

func TestResume_TwoProcessesOfOneExecution(t *testing.T) {
	t.Parallel()
	e := emulator(t)
	s := newStack(t, e)
	second := newStack(t, e)
	second.journal = &memory{execution: s.journal.execution}
	var group errgroup.Group
	for _, process := range []*stack{s, second} {
		group.Go(func() error {
			got, err := process.resume(t.Context(), parameter("one"))
			if err == nil && got.Outputs["Value"] != "one" {
				err = fmt.Errorf("outputs: %v", got.Outputs)
			}
			return err
		})
	}
	require.NoError(t, group.Wait())
	require.Len(t, s.executions(e), 1)
}

func TestResume_OtherExecutionWaitsItsTurn(t *testing.T) {
	t.Parallel()
	e := emulator(t)
	s := newStack(t, e)
	ended := s.begin(t.Context())
	impatient := newStack(t, e)
	impatient.limits.Busy = 300 * time.Millisecond
	_, err := impatient.deploy(parameter("two"))
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StackBusy, Err: errDied})
	require.ErrorContains(t, err, "CREATE_IN_PROGRESS")

	other := newStack(t, e)
	result := make(chan error, 1)
	go func() {
		got, err := other.deploy(parameter("two"))
		if err == nil && got.Outcome != cfn.Updated {
			err = fmt.Errorf("outcome %s", got.Outcome)
		}
		result <- err
	}()
	require.Eventually(t, func() bool { other.mu.Lock(); defer other.mu.Unlock(); return len(other.notes) > 0 }, 20*time.Second, 10*time.Millisecond)
	s.signal("SUCCESS")
	require.NoError(t, <-ended)
	require.NoError(t, <-result)
}

func TestResume_SignalledFailureIsTheCause(t *testing.T) {
	t.Parallel()
	s := newStack(t, emulator(t))
	ended := s.begin(t.Context())
	s.signal("FAILURE")
	err := <-ended
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StackFailed, Err: errDied})
	require.ErrorContains(t, err, "resource Wait (AWS::CloudFormation::WaitCondition)")
	require.ErrorContains(t, err, "as the test asks")
}
