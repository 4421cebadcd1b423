package deploy_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/internal/assets"
	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/cfn"
)

// succeeded counts the calls of an operation about the stack that AWS took.
func (s *stack) succeeded(e *aws.Emulator, operation string) int {
	count := 0
	for _, c := range e.Calls() {
		if c.Operation == operation && c.Status == http.StatusOK && strings.Contains(c.Form.Get("StackName"), s.name) {
			count++
		}
	}
	return count
}

// lose makes the answer to the next call of an operation of CloudFormation get
// lost.
func lose(t *testing.T, e *aws.Emulator, operation string) {
	t.Helper()
	require.NoError(t, e.ClearRules(t.Context()))
	require.NoError(t, e.Rules(t.Context(), fmt.Sprintf(`[{"service": "cloudformation", "operation": %q, "response": {"abort_frac": 0}, "times": 1}]`, operation)))
}

// requireFired makes sure that answers of the operation got lost.
func requireFired(t *testing.T, e *aws.Emulator, operation string) {
	t.Helper()
	fired, err := e.Fired(t.Context())
	require.NoError(t, err)
	require.Len(t, fired, 1)
	require.Equal(t, operation, fired[0].Operation)
}

// Every mutating call may take effect without its answer arriving: it is done
// once all the same.
//
//nolint:tparallel // the subtests share one set of fault rules
func TestResume_LostAnswers(t *testing.T) {
	t.Parallel()
	e := own(t)
	rows := []struct {
		operation string
		prepare   func(s *stack)
		template  string
	}{
		{"CreateChangeSet", func(*stack) {}, parameter("two")},
		{"ExecuteChangeSet", func(*stack) {}, parameter("two")},
		{"DeleteStack", func(s *stack) { s.prepare("bad") }, parameter("two")},
		{"UpdateTerminationProtection", func(*stack) {}, parameter("two")},
		{"DeleteChangeSet", func(s *stack) { s.prepare("good") }, parameter("one")},
		{"RollbackStack", (*stack).failUpdate, parameter("two")},
		{"ContinueUpdateRollback", (*stack).failRollback, parameter("two")},
	}
	for _, row := range rows {
		t.Run(row.operation, func(t *testing.T) {
			s := newStack(t, e)
			row.prepare(s)
			lose(t, e, row.operation)
			_, err := s.deploy(row.template, func(in *cfn.Input) {
				in.TerminationProtection, in.Force, in.RollBackPaused = true, true, true
			})
			require.NoError(t, err)
			requireFired(t, e, row.operation)
			require.True(t, s.protected())
			require.LessOrEqual(t, len(s.executions(e)), s.prepared+1)
			require.LessOrEqual(t, s.succeeded(e, row.operation), s.prepared+1, "done once, and asked for again at most")
		})
	}
}

// failUpdate leaves the stack in UPDATE_FAILED: an update of somebody who
// switched the rollback off.
func (s *stack) failUpdate() {
	s.t.Helper()
	s.prepare("good")
	s.paused(refused("two"), "UPDATE_FAILED", true)
}

// paused carries out an update that leaves the stack in a status.
func (s *stack) paused(template, status string, disableRollback bool) {
	s.t.Helper()
	ctx, name, set := s.t.Context(), awssdk.String(s.name), awssdk.String("by-hand")
	_, err := s.client().CreateChangeSet(ctx, &cfnsdk.CreateChangeSetInput{StackName: name, ChangeSetName: set, TemplateBody: awssdk.String(template), Capabilities: capabilities()})
	require.NoError(s.t, err)
	require.Eventually(s.t, func() bool {
		_, err := s.client().ExecuteChangeSet(ctx, &cfnsdk.ExecuteChangeSetInput{StackName: name, ChangeSetName: set, DisableRollback: awssdk.Bool(disableRollback)})
		return err == nil
	}, 10*time.Second, 20*time.Millisecond)
	s.prepared++
	require.Eventually(s.t, func() bool { return s.status() == status }, 30*time.Second, 50*time.Millisecond, "the stack becomes %s", status)
}

// failRollback leaves the stack in UPDATE_ROLLBACK_FAILED: a custom resource
// refuses to go back. Then the reason for that goes away.
func (s *stack) failRollback() {
	s.t.Helper()
	mended := filepath.Join(s.t.TempDir(), "mended")
	answer := "'FAILED' if event['RequestType'] == 'Update' and event['ResourceProperties']['Version'] == '1' and not __import__('os').path.exists('" + mended + "') else 'SUCCESS'"
	_, err := s.deploy(answering(answer, "'SUCCESS'", "1", true))
	require.NoError(s.t, err)
	s.prepared = 1
	bad := `"Bad": {"Type": "AWS::SSM::Parameter", "DependsOn": "Seed", "Properties": {"Type": "Bogus", "Value": "x"}}, "Param":`
	s.paused(strings.Replace(answering(answer, "'SUCCESS'", "2", true), `"Param":`, bad, 1), "UPDATE_ROLLBACK_FAILED", false)
	require.NoError(s.t, os.WriteFile(mended, nil, 0o600))
}

// Every look at CloudFormation is throttled in half of the cases: stacks are
// created and updated as ever, each by one change set.
func TestDeploy_ThrottledHalfOfTheTime(t *testing.T) {
	t.Parallel()
	e := own(t)
	looks := []string{"DescribeStacks", "DescribeStackEvents", "DescribeChangeSet", "GetTemplate"}
	var rules []string
	for _, look := range looks {
		// The first look is always throttled, since some are few and all of a
		// few may have luck.
		for _, when := range []string{`"times": 1`, `"probability": 0.5`} {
			rules = append(rules, fmt.Sprintf(`{"service": "cloudformation", "operation": %q, %s, "error": {"code": "Throttling", "status": 400}}`, look, when))
		}
	}
	require.NoError(t, e.Rules(t.Context(), "["+strings.Join(rules, ",")+"]"))
	var group errgroup.Group
	stacks := make([]*stack, 3)
	for i := range stacks {
		stacks[i] = newStack(t, e)
		stacks[i].name += fmt.Sprintf("-%d", i)
		stacks[i].retryer = awserr.Retryer(7, time.Second) // as ever, but for shorter pauses
		group.Go(func() error { return stacks[i].throughAll(t.Context()) })
	}
	require.NoError(t, group.Wait())
	for _, s := range stacks {
		require.Len(t, s.executions(e), 2, "one creation, one update")
	}
	fired, err := e.Fired(t.Context())
	require.NoError(t, err)
	count := map[string]int{}
	for _, f := range fired {
		require.Equal(t, "error:Throttling", f.Action)
		count[f.Operation]++
	}
	for _, look := range looks {
		require.Positive(t, count[look], "%s was throttled", look)
	}
}

// throughAll creates and updates the stack.
func (s *stack) throughAll(ctx context.Context) error {
	for _, step := range []struct {
		value string
		want  cfn.Outcome
	}{{"one", cfn.Created}, {"two", cfn.Updated}} {
		s.journal = newMemory()
		got, err := s.resume(ctx, parameter(step.value))
		if err != nil {
			return err
		}
		if got.Outcome != step.want || got.Outputs["Value"] != step.value {
			return fmt.Errorf("stack %s: %s with %v", s.name, got.Outcome, got.Outputs)
		}
	}
	return nil
}

// losing is an HTTP client that loses the answer to the first call of an
// operation, which took effect.
type losing struct {
	operation string
	lost      atomic.Int64
}

func (l *losing) Do(req *http.Request) (*http.Response, error) {
	resp, err := http.DefaultClient.Do(req)
	if err != nil || aws.Describe(req, nil).Operation != l.operation || l.lost.Add(1) > 1 {
		return resp, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return nil, errors.Join(errDied, io.ErrUnexpectedEOF, err, resp.Body.Close())
}

// An upload whose answer gets lost is made once, in one piece or in parts.
func TestAssets_LostAnswers(t *testing.T) {
	t.Parallel()
	bucket := "cdk-hnb659fds-assets-" + account + "-" + region
	const parts = 17 << 20
	for operation, size := range map[string]int{"PutObject": 1000, "CreateMultipartUpload": parts, "UploadPart": parts, "CompleteMultipartUpload": parts} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			e := emulator(t)
			dir, content := t.TempDir(), make([]byte, size)
			_, err := rand.Read(content)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, "asset.bin"), content, 0o600))
			client := &losing{operation: operation}
			cfg := config(e, account)
			cfg.HTTPClient = client
			cfg.Retryer = func() awssdk.Retryer { return awserr.Retryer(5, time.Second) } // as awsauth.Base has it
			key := "lost/" + operation
			summary, err := assets.New(dir, account, nil).Publish(t.Context(), []assets.File{{ID: "a", Name: "a", Path: "asset.bin", Bucket: bucket, Key: key, AWS: cfg}})
			require.NoError(t, err)
			require.Equal(t, 1, summary.Published)
			require.Greater(t, client.lost.Load(), int64(1), "the answer was lost, and asked for again")
			direct := s3.NewFromConfig(config(e, account), func(o *s3.Options) { o.UsePathStyle = true })
			out, err := direct.GetObject(t.Context(), &s3.GetObjectInput{Bucket: awssdk.String(bucket), Key: awssdk.String(key)})
			require.NoError(t, err)
			got, err := io.ReadAll(out.Body)
			require.NoError(t, errors.Join(err, out.Body.Close()))
			require.True(t, bytes.Equal(content, got))
		})
	}
}
