package cfn_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/cfn"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/testkit/effects"
)

func rollBack(in *cfn.Input) { in.RollBackPaused = true }

func TestDeploy_PausedStackIsRolledBackWhereAskedFor(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]struct {
		after, call string
		outcome     cfn.Outcome
		writes      []string
	}{
		"UPDATE_FAILED":          {"UPDATE_ROLLBACK_COMPLETE", "RollbackStack", cfn.Updated, []string{"CreateChangeSet", "ExecuteChangeSet"}},
		"UPDATE_ROLLBACK_FAILED": {"UPDATE_ROLLBACK_COMPLETE", "ContinueUpdateRollback", cfn.Updated, []string{"CreateChangeSet", "ExecuteChangeSet"}},
		"CREATE_FAILED":          {"ROLLBACK_COMPLETE", "RollbackStack", cfn.Recreated, []string{"DeleteStack", "CreateChangeSet", "ExecuteChangeSet"}},
	} {
		s := newScript(t)
		s.status, s.live, s.rolledBack = status, "{}", want.after
		s.execute = complete("UPDATE_COMPLETE")
		got, err := s.deploy(t, rollBack)
		require.NoError(t, err, status)
		require.Equal(t, want.outcome, got.Outcome, status)
		require.Equal(t, append([]string{want.call}, want.writes...), s.writes(), status)
	}
}

// A change of outputs or of the stack's tags alone is a change set without
// changes; the emulator takes it for none.
func TestDeploy_ChangeSetThatListsNoChangesIsExecuted(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.status, s.live = "CREATE_COMPLETE", `{"Outputs": {"A": {"Value": "b"}}, "Resources": {"Param": {"Type": "AWS::SSM::Parameter", "Properties": {"Value": "größe"}}}}`
	s.execute = complete("UPDATE_COMPLETE")
	got, err := s.deploy(t, nil)
	require.NoError(t, err)
	require.Equal(t, cfn.Updated, got.Outcome)
	require.Equal(t, []string{"CreateChangeSet", "ExecuteChangeSet"}, s.writes())

	s = newScript(t)
	s.status, s.live = "CREATE_COMPLETE", template
	s.execute = complete("UPDATE_COMPLETE")
	got, err = s.deploy(t, func(in *cfn.Input) { in.Tags = map[string]string{"stage": "two"} })
	require.NoError(t, err)
	require.Equal(t, cfn.Updated, got.Outcome)
	require.Equal(t, []string{"CreateChangeSet", "ExecuteChangeSet"}, s.writes(), "tags alone")
	require.Equal(t, "stage=two", s.created.Get("Tags.member.1.Key")+"="+s.created.Get("Tags.member.1.Value"))
}

func TestDeploy_RollbackIsTriedOnce(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.status, s.rolledBack = "UPDATE_FAILED", "UPDATE_ROLLBACK_FAILED"
	_, err := s.deploy(t, rollBack)
	requireFault(t, err, fault.StackPaused, "UPDATE_ROLLBACK_FAILED", "continue-update-rollback")
	require.Equal(t, []string{"RollbackStack"}, s.writes())

	s = newScript(t)
	s.status = "DELETE_FAILED"
	_, err = s.deploy(t, rollBack)
	requireFault(t, err, fault.StackPaused, "DELETE_FAILED")
	require.Empty(t, s.writes(), "there is nothing to roll back to")
}

func TestDeploy_EarlyValidationNamesTheResource(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.reason = "The following hook(s)/validation failed: [AWS::EarlyValidation::PropertyValidation]. To troubleshoot Early Validation errors, use the DescribeEvents API for detailed failure information."
	s.operationEvents = `<OperationEvents><member><EventId>e</EventId><EventType>VALIDATION_ERROR</EventType><LogicalResourceId>Param</LogicalResourceId><ResourceType>AWS::SSM::Parameter</ResourceType><ValidationName>PROPERTY_VALIDATION</ValidationName><ValidationPath>/Resources/Param/Properties/Tier</ValidationPath><ValidationStatusReason>extraneous key
	  [Tier] is not permitted</ValidationStatusReason></member></OperationEvents>`
	_, err := s.deploy(t, func(in *cfn.Input) { in.ConstructPath = func(ids ...string) string { return "shop/" + ids[0] } })
	requireFault(t, err, fault.ChangeSetFailed, "resource shop/Param [Param] (AWS::SSM::Parameter): extraneous key [Tier] is not permitted (at /Resources/Param/Properties/Tier)")
	require.True(t, s.removed)
}

// The words are those of https://github.com/aws/aws-cdk-cli/issues/1000 and
// https://github.com/aws-cloudformation/rain/pull/744.
func TestDeploy_EarlyValidationSaysWhatToDo(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.reason = "The following hook(s)/validation failed: [AWS::EarlyValidation::ResourceExistenceCheck]. To troubleshoot Early Validation errors, use the DescribeEvents API for detailed failure information."
	s.operationEvents = `<OperationEvents>
	  <member><EventId>e1</EventId><EventType>VALIDATION_ERROR</EventType><LogicalResourceId>Files</LogicalResourceId><ResourceType>AWS::S3::Bucket</ResourceType><ValidationName>NAME_CONFLICT_VALIDATION</ValidationName><ValidationStatusReason>Resource of type 'AWS::S3::Bucket' with identifier 'shop-files' already exists.</ValidationStatusReason></member>
	  <member><EventId>e2</EventId><EventType>VALIDATION_ERROR</EventType><LogicalResourceId>Old</LogicalResourceId><ResourceType>AWS::S3::Bucket</ResourceType><ValidationName>BUCKET_EMPTINESS_VALIDATION</ValidationName><ValidationStatusReason>The bucket 'shop-old' is not empty. You must either delete all objects and versions or use the deletion policy to retain it, otherwise the delete operation will fail.</ValidationStatusReason></member></OperationEvents>`
	_, err := s.deploy(t, nil)
	requireFault(t, err, fault.ChangeSetFailed, "[AWS::EarlyValidation::ResourceExistenceCheck]",
		"resource Files (AWS::S3::Bucket): Resource of type 'AWS::S3::Bucket' with identifier 'shop-files' already exists.", "resource Old (AWS::S3::Bucket): The bucket 'shop-old' is not empty",
		"Give the resource another name, or import or remove the one that has it, then push again")
}

func TestDeploy_FailedHookSaysWhatItFound(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.reason = "The following hook(s) failed: [Acme::Guard::Hook]"
	s.hookResults = `<HookResults><member><HookResultId>h1</HookResultId><TypeName>Acme::Guard::Hook</TypeName><Status>HOOK_COMPLETE_FAILED</Status><FailureMode>FAIL</FailureMode><HookStatusReason>not compliant</HookStatusReason></member>
	  <member><HookResultId>h2</HookResultId><TypeName>Acme::Warn::Hook</TypeName><Status>HOOK_COMPLETE_FAILED</Status><FailureMode>WARN</FailureMode></member></HookResults>`
	s.hookResult = `<HookResultId>h1</HookResultId><Annotations><member><AnnotationName>no-public-bucket</AnnotationName><Status>FAILED</Status><StatusMessage>the bucket is public</StatusMessage><RemediationMessage>block public access</RemediationMessage></member></Annotations>`
	_, err := s.deploy(t, nil)
	requireFault(t, err, fault.ChangeSetFailed, "hook Acme::Guard::Hook failed: no-public-bucket: the bucket is public (block public access)")
	require.NotContains(t, fault.Message(err), "Acme::Warn::Hook", "it only warns")
}

func TestDeploy_ReasonHasToDoWhereEventsAreForbidden(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.reason, s.forbidden = "The following hook(s) failed: [Acme::Guard::Hook]", true
	_, err := s.deploy(t, nil)
	requireFault(t, err, fault.ChangeSetFailed, "hook(s) failed: [Acme::Guard::Hook]")
}

// TestDeploy_EndedBeforeTellsItsEventsAgain: the process that saw them may have
// died before it kept them.
func TestDeploy_EndedBeforeTellsItsEventsAgain(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.execute = func(s *script, token string) {
		s.events = append(s.events, event{stackARN, token, "CREATE_COMPLETE", "AWS::SSM::Parameter", "Param", "p", ""})
		complete("CREATE_COMPLETE")(s, token)
	}
	journal := &effects.Memory{}
	seen := func(list *[]cfn.Event) func(*cfn.Config) {
		return func(c *cfn.Config) {
			c.Journal = journal
			c.OnEvent = func(e cfn.Event) { *list = append(*list, e) }
		}
	}
	var first, again []cfn.Event
	_, err := s.deploy(t, nil, seen(&first))
	require.NoError(t, err)
	writes := s.writes()
	result, err := s.deploy(t, nil, seen(&again))
	require.NoError(t, err)
	require.Equal(t, cfn.Created, result.Outcome)
	require.Len(t, first, 2)
	require.Equal(t, first, again)
	require.Equal(t, writes, s.writes(), "nothing is done twice")
}
