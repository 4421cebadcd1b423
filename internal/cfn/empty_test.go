package cfn_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/cfn"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/testkit/effects"
)

// emptied is a template that lost its resources, with leave to delete the
// stack.
func emptied(in *cfn.Input) {
	in.Template, in.DeleteEmpty = []byte(`{"Resources": {}}`), true
	in.RoleARN = "arn:aws:iam::111111111111:role/exec"
}

func TestDeploy_EmptyTemplate(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	empty := func(in *cfn.Input) { in.Template = []byte(`{"Resources": {}}`) }
	got, err := s.deploy(t, empty)
	require.NoError(t, err)
	require.Equal(t, cfn.Skipped, got.Outcome)
	s.status = "CREATE_COMPLETE"
	_, err = s.deploy(t, empty)
	requireFault(t, err, fault.StackEmpty, "never done unasked", "onEmpty: delete")
	require.Empty(t, s.writes())
}

func TestDeploy_EmptyTemplateDeletesWhereAllowed(t *testing.T) {
	t.Parallel()
	for _, status := range []string{"CREATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_FAILED", "DELETE_FAILED"} {
		s := newScript(t)
		s.status = status
		s.remove = func(s *script, token string) {
			s.stack(token, "DELETE_IN_PROGRESS")
			s.stack(token, "DELETE_COMPLETE")
			s.status = ""
		}
		var events []cfn.Event
		got, err := s.deploy(t, emptied, func(c *cfn.Config) { c.OnEvent = func(e cfn.Event) { events = append(events, e) } })
		require.NoError(t, err, status)
		require.Equal(t, cfn.Result{Outcome: cfn.Deleted, StackARN: stackARN, Outputs: map[string]string{}}, got, status)
		require.Equal(t, []string{"DeleteStack"}, s.writes(), status)
		require.Equal(t, stackARN, s.deletion.Get("StackName"), "never another stack of the name")
		require.Equal(t, "arn:aws:iam::111111111111:role/exec", s.deletion.Get("RoleARN"))
		require.Len(t, events, 2)
	}

	s := newScript(t)
	got, err := s.deploy(t, emptied)
	require.NoError(t, err)
	require.Equal(t, cfn.Skipped, got.Outcome, "there is nothing to delete")
	require.Empty(t, s.writes())
}

func TestDeploy_EmptyTemplateLeavesProtectedStackAlone(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.status, s.extra = "CREATE_COMPLETE", "<EnableTerminationProtection>true</EnableTerminationProtection>"
	_, err := s.deploy(t, emptied)
	requireFault(t, err, fault.StackEmpty, "protected from termination", "Switch the termination protection off yourself")
	require.Empty(t, s.writes())
}

func TestDeploy_EmptyTemplateThatCannotBeDeleted(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.status = "CREATE_COMPLETE"
	s.remove = func(s *script, token string) {
		s.stack(token, "DELETE_IN_PROGRESS")
		s.events = append(s.events, event{stackARN, token, "DELETE_FAILED", "AWS::S3::Bucket", "Files", "files", "The bucket you tried to delete is not empty"})
		s.stack(token, "DELETE_FAILED")
	}
	_, err := s.deploy(t, emptied)
	requireFault(t, err, fault.StackFailed, "resource Files (AWS::S3::Bucket) ended in DELETE_FAILED: The bucket you tried to delete is not empty", "the stack is DELETE_FAILED", "Finish deleting the stack")

	s = newScript(t)
	s.status = "UPDATE_COMPLETE"
	s.remove = func(s *script, token string) {
		s.stack(token, "DELETE_IN_PROGRESS")
		s.stack(token, "UPDATE_COMPLETE")
		s.extra = "<StackStatusReason>Delete canceled. Cannot delete export shop:Queue as it is in use by shop-api.</StackStatusReason>"
	}
	_, err = s.deploy(t, emptied)
	requireFault(t, err, fault.StackFailed, "Cannot delete export shop:Queue as it is in use by shop-api", "Deploy shop-api without the import of shop:Queue first")
}

// A process that is killed around the request is followed by one that waits for
// the deletion, asks for it if that was lost, and never takes a stack of the
// same name that somebody made meanwhile for the one that went.
func TestDeploy_EmptyTemplateResumes(t *testing.T) {
	t.Parallel()
	journal := &effects.Memory{}
	keep := func(c *cfn.Config) { c.Journal, c.Limits.Busy = journal, time.Second }
	s := newScript(t)
	s.status = "CREATE_COMPLETE"
	var token string
	s.remove = func(s *script, asked string) {
		token = asked
		s.stack(asked, "DELETE_IN_PROGRESS")
	}
	ctx, kill := context.WithCancel(t.Context())
	s.tick = func(*script, int) { kill() }
	_, err := s.deployWithin(ctx, emptied, keep)
	requireFault(t, err, fault.Cancellation, "DELETE_IN_PROGRESS")

	s.tick = func(s *script, _ int) {
		if s.status == "DELETE_IN_PROGRESS" {
			s.stack(token, "DELETE_COMPLETE")
			s.status = ""
		}
	}
	got, err := s.deploy(t, emptied, keep)
	require.NoError(t, err)
	require.Equal(t, cfn.Deleted, got.Outcome)
	require.Equal(t, []string{"DeleteStack"}, s.writes())

	got, err = s.deploy(t, emptied, keep)
	require.NoError(t, err)
	require.Equal(t, cfn.Deleted, got.Outcome, "asked again after its end")
	require.Equal(t, []string{"DeleteStack"}, s.writes())
}

func TestDeploy_EmptyTemplateAsksAgainWhereTheRequestWasLost(t *testing.T) {
	t.Parallel()
	journal := &effects.Memory{}
	keep := func(c *cfn.Config) { c.Journal, c.Limits.Busy = journal, time.Second }
	s := newScript(t)
	s.status = "CREATE_COMPLETE"
	var tokens []string
	s.remove = func(s *script, token string) {
		tokens = append(tokens, token)
		s.status = "CREATE_COMPLETE" // as if it had never arrived
	}
	ctx, kill := context.WithCancel(t.Context())
	s.tick = func(*script, int) { kill() }
	_, err := s.deployWithin(ctx, emptied, keep)
	requireFault(t, err, fault.Cancellation)

	s.tick = nil
	s.remove = func(s *script, token string) {
		tokens = append(tokens, token)
		s.stack(token, "DELETE_COMPLETE")
		s.status = ""
	}
	got, err := s.deploy(t, emptied, keep)
	require.NoError(t, err)
	require.Equal(t, cfn.Deleted, got.Outcome)
	require.Len(t, tokens, 2)
	require.Equal(t, tokens[0], tokens[1], "the same request")
}
