package deploy_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/internal/cfn"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// stack is one stack name of one test, deployed again and again.
type stack struct {
	t       *testing.T
	cfg     awssdk.Config
	name    string
	journal *memory
	limits  cfn.Limits
	retryer awssdk.Retryer // nil for the deployer's own
	// prepared is the number of executions before the test proper.
	prepared int

	mu     sync.Mutex
	events []cfn.Event
	notes  []string
}

func newStack(t *testing.T, e *aws.Emulator) *stack {
	t.Helper()
	name := "aphex-" + strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())
	return &stack{
		t: t, cfg: config(e, account), name: name, journal: newMemory(),
		limits: cfn.Limits{PollMin: 20 * time.Millisecond, PollMax: 200 * time.Millisecond},
	}
}

func (s *stack) deployer() *cfn.Deployer {
	return cfn.New(cfn.Config{
		AWS: s.cfg, Account: account, Journal: s.journal,
		OnEvent: func(e cfn.Event) { s.mu.Lock(); defer s.mu.Unlock(); s.events = append(s.events, e) },
		OnNote:  func(text string) { s.mu.Lock(); defer s.mu.Unlock(); s.notes = append(s.notes, text) },
		Limits:  s.limits,
		Retryer: s.retryer,
	})
}

// deploy deploys a template as a new execution.
func (s *stack) deploy(template string, edit ...func(*cfn.Input)) (cfn.Result, error) {
	s.journal = newMemory()
	return s.resume(s.t.Context(), template, edit...)
}

// resume deploys as the execution before did.
func (s *stack) resume(ctx context.Context, template string, edit ...func(*cfn.Input)) (cfn.Result, error) {
	s.mu.Lock()
	s.events, s.notes = nil, nil
	s.mu.Unlock()
	in := cfn.Input{StackName: s.name, Template: []byte(template), Execution: s.journal.execution}
	for _, f := range edit {
		f(&in)
	}
	return s.deployer().Deploy(ctx, in)
}

func (s *stack) client() *cfnsdk.Client { return cfnsdk.NewFromConfig(s.cfg) }

func (s *stack) status() string {
	s.t.Helper()
	out, err := s.client().DescribeStacks(s.t.Context(), &cfnsdk.DescribeStacksInput{StackName: awssdk.String(s.name)})
	require.NoError(s.t, err)
	return string(out.Stacks[0].StackStatus)
}

// parameter is a template of one SSM parameter with an output.
func parameter(value string) string {
	return fmt.Sprintf(`{"Resources": {"Param": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": %q}}},
		"Outputs": {"Name": {"Value": {"Ref": "Param"}}, "Value": {"Value": {"Fn::GetAtt": ["Param", "Value"]}}}}`, value)
}

// refused is a template whose second resource the service refuses.
func refused(value string) string {
	return fmt.Sprintf(`{"Resources": {"Param": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": %q}},
		"Bad": {"Type": "AWS::SSM::Parameter", "DependsOn": "Param", "Properties": {"Type": "Bogus", "Value": "x"}}}}`, value)
}

func TestStack_CreateUpdateNoChange(t *testing.T) {
	t.Parallel()
	s := newStack(t, emulator(t))
	got, err := s.deploy(parameter("one"))
	require.NoError(t, err)
	require.Equal(t, cfn.Created, got.Outcome)
	require.Equal(t, "one", got.Outputs["Value"])
	require.Contains(t, got.StackARN, ":stack/"+s.name+"/")
	require.Equal(t, "CREATE_COMPLETE", s.events[len(s.events)-1].Status)

	got, err = s.deploy(parameter("two"))
	require.NoError(t, err)
	require.Equal(t, cfn.Updated, got.Outcome)
	require.Equal(t, "two", got.Outputs["Value"])
	for _, e := range s.events {
		require.NotContains(t, e.Status, "CREATE", "events of an earlier operation do not count")
	}

	got, err = s.deploy(parameter("two"))
	require.NoError(t, err)
	require.Equal(t, cfn.NoChange, got.Outcome)
	require.Equal(t, "two", got.Outputs["Value"])
	require.Empty(t, s.events)

	got, err = s.deploy(parameter("two"), func(in *cfn.Input) { in.Force = true })
	require.NoError(t, err)
	require.Equal(t, cfn.NoChange, got.Outcome, "an empty change set is no change")
	sets, err := s.client().ListChangeSets(t.Context(), &cfnsdk.ListChangeSetsInput{StackName: awssdk.String(s.name)})
	require.NoError(t, err)
	for _, set := range sets.Summaries {
		require.NotEqual(t, "FAILED", string(set.Status), "empty change sets are deleted")
	}
}

func TestStack_FailedCreateIsRecreated(t *testing.T) {
	t.Parallel()
	s := newStack(t, emulator(t))
	_, err := s.deploy(refused("one"), func(in *cfn.Input) {
		in.ConstructPath = func(ids ...string) string { return "app/" + strings.Join(ids, "/") }
		in.TerminationProtection = true
	})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StackFailed})
	require.ErrorContains(t, err, "app/Bad [Bad] (AWS::SSM::Parameter) ended in CREATE_FAILED")
	require.ErrorContains(t, err, "ROLLBACK_COMPLETE")
	require.Equal(t, "ROLLBACK_COMPLETE", s.status())

	_, err = s.resume(t.Context(), refused("one"), func(in *cfn.Input) { in.TerminationProtection = true })
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StackFailed}, "the same execution does not deploy again")
	require.ErrorContains(t, err, "Bad (AWS::SSM::Parameter) ended in CREATE_FAILED")

	_, err = s.client().UpdateTerminationProtection(t.Context(), &cfnsdk.UpdateTerminationProtectionInput{StackName: awssdk.String(s.name), EnableTerminationProtection: awssdk.Bool(true)})
	require.NoError(t, err, "as the CDK CLI leaves it")
	got, err := s.deploy(parameter("one"), func(in *cfn.Input) { in.TerminationProtection = true })
	require.NoError(t, err)
	require.Equal(t, cfn.Recreated, got.Outcome)
	require.Equal(t, "one", got.Outputs["Value"])
	out, err := s.client().DescribeStacks(t.Context(), &cfnsdk.DescribeStacksInput{StackName: awssdk.String(s.name)})
	require.NoError(t, err)
	require.True(t, awssdk.ToBool(out.Stacks[0].EnableTerminationProtection))
}

func TestStack_FailedUpdateNamesItsCause(t *testing.T) {
	t.Parallel()
	s := newStack(t, emulator(t))
	_, err := s.deploy(parameter("one"))
	require.NoError(t, err)
	_, err = s.deploy(refused("two"))
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StackFailed})
	require.ErrorContains(t, err, "resource Bad (AWS::SSM::Parameter) ended in ")
	require.ErrorContains(t, err, "UPDATE_ROLLBACK_COMPLETE")
	require.NotContains(t, fault.Message(err), "created anew")
	got, err := s.deploy(parameter("three"))
	require.NoError(t, err)
	require.Equal(t, cfn.Updated, got.Outcome)
}

func capabilities() []cfntypes.Capability {
	return []cfntypes.Capability{cfntypes.CapabilityCapabilityIam, cfntypes.CapabilityCapabilityNamedIam}
}
