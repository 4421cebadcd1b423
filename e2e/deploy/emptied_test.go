package deploy_test

import (
	"context"
	"fmt"
	"testing"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/cfn"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// emptied is a template that lost its resources.
const emptied = `{"Resources": {}}`

func requireGone(t *testing.T, s *stack) {
	t.Helper()
	_, err := s.client().DescribeStacks(t.Context(), &cfnsdk.DescribeStacksInput{StackName: awssdk.String(s.name)})
	require.True(t, awserr.StackNotFound(err), "%v", err)
}

func deleteEmpty(in *cfn.Input) { in.DeleteEmpty = true }

func TestStack_EmptiedIsDeletedWhereAllowed(t *testing.T) {
	t.Parallel()
	s := newStack(t, emulator(t))
	_, err := s.deploy(parameter("one"))
	require.NoError(t, err)
	_, err = s.deploy(emptied)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StackEmpty})
	require.Equal(t, "CREATE_COMPLETE", s.status())

	got, err := s.deploy(emptied, deleteEmpty)
	require.NoError(t, err)
	require.Equal(t, cfn.Deleted, got.Outcome)
	requireGone(t, s)

	got, err = s.deploy(emptied, deleteEmpty)
	require.NoError(t, err)
	require.Equal(t, cfn.Skipped, got.Outcome, "there is nothing left to delete")
}

// Killed at every single request, before or after it took effect: the next
// process finishes the deletion.
func TestResume_DeletionKilledAnywhere(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"before", "after"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			e := emulator(t)
			for at := int64(1); ; at++ {
				s := newStack(t, e)
				s.name = fmt.Sprintf("aphex-kill-emptied-%s-%d", mode, at)
				s.prepare("good")
				s.journal = newMemory()
				alive, client := s.cfg, &dying{at: at, after: mode == "after"}
				ctx, kill := context.WithCancelCause(t.Context())
				client.kill = kill
				s.cfg.HTTPClient = client
				_, err := s.resume(ctx, emptied, deleteEmpty)
				kill(nil)
				s.cfg = alive
				if client.sent.Load() < at {
					require.NoError(t, err)
					require.Greater(t, at, int64(3), "the deletion was interrupted")
					return
				}
				require.Error(t, err)
				got, err := s.resume(t.Context(), emptied, deleteEmpty)
				require.NoError(t, err, "killed at request %d", at)
				require.Equal(t, cfn.Deleted, got.Outcome, "killed at request %d", at)
				requireGone(t, s)
			}
		})
	}
}
