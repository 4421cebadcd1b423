package cfn_test

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/aphex-pipeline/aphex/internal/cfn"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/testkit/effects"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

const (
	stackARN  = "arn:aws:cloudformation:eu-west-1:111111111111:stack/shop/1"
	nestedARN = "arn:aws:cloudformation:eu-west-1:111111111111:stack/shop-Nest-X/2"
	setARN    = "arn:aws:cloudformation:eu-west-1:111111111111:changeSet/aphex/3"
	template  = `{"Resources": {"Param": {"Type": "AWS::SSM::Parameter", "Properties": {"Value": "größe"}}}}`
)

// script is a CloudFormation endpoint that answers as a test says and keeps
// what it received. It exists for states that no emulator can be brought into.
type script struct {
	url string

	mu      sync.Mutex
	status  string // of the stack; empty: absent
	extra   string // more of the stack's description
	live    string // the live template
	reason  string // of a failed change set; empty: it succeeds
	nested  string // reason of the nested change set
	created url.Values
	removed bool
	// execution is the change set's.
	execution string
	events    []event
	// execute runs when the change set is executed; token is its token.
	execute func(s *script, token string)
	// deletion is the last DeleteStack; remove runs for it.
	deletion url.Values
	remove   func(s *script, token string)
	// tick runs before each look at events.
	tick     func(s *script, n int)
	looks    int
	requests []string
	failing  int // answers of DescribeStackEvents to refuse
	// rolledBack is the status after a rollback that is asked for.
	rolledBack string
	deleted    []string // names of change sets
	// operationEvents, hookResults and hookResult are answers.
	operationEvents, hookResults, hookResult string
	forbidden                                bool
	refusal                                  string // of CreateChangeSet
	describe                                 func() // runs before each description of the stack
	// together are actions of which none is answered before all have come.
	together map[string]bool
	met      chan struct{}
}

type event struct{ stack, token, status, kind, id, physical, reason string }

func newScript(t *testing.T) *script {
	t.Helper()
	s := &script{met: make(chan struct{})}
	server := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *script) serve(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	action := r.PostForm.Get("Action")
	s.meet(r.Context(), action)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, action)
	body, code := s.answer(action, r.PostForm)
	if code != "" {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(w, `<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>r</RequestId></ErrorResponse>`, code, body)
		return
	}
	_, _ = fmt.Fprintf(w, `<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult></%[1]sResponse>`, action, body)
}

// meet waits until all of together have come, if action is one of them.
func (s *script) meet(ctx context.Context, action string) {
	s.mu.Lock()
	waits := s.together[action]
	if delete(s.together, action); waits && len(s.together) == 0 {
		close(s.met)
	}
	s.mu.Unlock()
	if !waits {
		return
	}
	select {
	case <-s.met:
	case <-ctx.Done():
	}
}

func (s *script) answer(action string, form url.Values) (body, code string) {
	switch action {
	case "DescribeStacks":
		if s.describe != nil {
			s.describe()
		}
		if s.status == "" {
			return "Stack with id shop does not exist", "ValidationError"
		}
		return fmt.Sprintf(`<Stacks><member><StackName>shop</StackName><StackId>%s</StackId><StackStatus>%s</StackStatus>%s</member></Stacks>`, stackARN, s.status, s.extra), ""
	case "GetTemplate":
		return "<TemplateBody><![CDATA[" + s.live + "]]></TemplateBody>", ""
	case "CreateChangeSet":
		if s.refusal != "" {
			return s.refusal, "ValidationError"
		}
		s.created, s.removed, s.execution = form, false, "AVAILABLE"
		if s.status == "" {
			s.status = "REVIEW_IN_PROGRESS"
		}
		return "<Id>" + setARN + "</Id><StackId>" + stackARN + "</StackId>", ""
	case "DescribeChangeSet":
		return s.changeSet(form.Get("ChangeSetName"))
	case "DeleteChangeSet":
		s.removed, s.deleted = true, append(s.deleted, form.Get("ChangeSetName"))
	case "ExecuteChangeSet":
		s.execution = "EXECUTE_IN_PROGRESS"
		s.execute(s, form.Get("ClientRequestToken"))
	case "DescribeStackEvents":
		if s.failing > 0 {
			s.failing--
			return "Rate exceeded", "Throttling"
		}
		return s.history(form.Get("StackName")), ""
	case "UpdateTerminationProtection":
		s.extra = "<EnableTerminationProtection>" + form.Get("EnableTerminationProtection") + "</EnableTerminationProtection>"
	case "DeleteStack":
		s.status, s.deletion = "", form
		if s.remove != nil {
			s.remove(s, form.Get("ClientRequestToken"))
		}
	case "RollbackStack", "ContinueUpdateRollback":
		s.status = s.rolledBack
	case "DescribeEvents", "ListHookResults", "GetHookResult":
		if s.forbidden {
			return "not authorized", "AccessDenied"
		}
		return map[string]string{"DescribeEvents": s.operationEvents, "ListHookResults": s.hookResults, "GetHookResult": s.hookResult}[action], ""
	default:
		return action, "InvalidAction"
	}
	return "", ""
}

func (s *script) changeSet(name string) (body, code string) {
	if strings.Contains(name, "nested") {
		return fmt.Sprintf(`<ChangeSetId>%s</ChangeSetId><StackId>%s</StackId><Status>FAILED</Status><StatusReason>%s</StatusReason>`, name, nestedARN, s.nested), ""
	}
	if s.created == nil || s.removed || name != setARN && name != s.created.Get("ChangeSetName") {
		return "ChangeSet [" + name + "] does not exist", "ChangeSetNotFound"
	}
	status := "CREATE_COMPLETE"
	if s.reason != "" {
		status = "FAILED"
	}
	return fmt.Sprintf(`<ChangeSetId>%s</ChangeSetId><StackId>%s</StackId><Description>%s</Description><Status>%s</Status><StatusReason>%s</StatusReason><ExecutionStatus>%s</ExecutionStatus><CreationTime>2026-11-23T12:00:00Z</CreationTime>`,
		setARN, stackARN, s.created.Get("Description"), status, s.reason, s.execution), ""
}

// history lists the events of one stack, newest first.
func (s *script) history(stack string) string {
	if stack == stackARN {
		s.looks++
		if s.tick != nil {
			s.tick(s, s.looks)
		}
	}
	var out strings.Builder
	for i, e := range slices.Backward(s.events) {
		if e.stack != stack {
			continue
		}
		fmt.Fprintf(&out, `<member><EventId>%d</EventId><StackId>%s</StackId><Timestamp>2026-11-23T12:00:%02dZ</Timestamp><ClientRequestToken>%s</ClientRequestToken><ResourceStatus>%s</ResourceStatus><ResourceType>%s</ResourceType><LogicalResourceId>%s</LogicalResourceId><PhysicalResourceId>%s</PhysicalResourceId><ResourceStatusReason>%s</ResourceStatusReason></member>`,
			i, e.stack, i%60, e.token, e.status, e.kind, e.id, e.physical, html.EscapeString(e.reason))
	}
	return "<StackEvents>" + out.String() + "</StackEvents>"
}

// stack adds an event of the stack itself and gives it the status.
func (s *script) stack(token, status string) {
	s.status = status
	s.events = append(s.events, event{stackARN, token, status, "AWS::CloudFormation::Stack", "shop", stackARN, ""})
}

func (s *script) writes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, r := range s.requests {
		if !strings.HasPrefix(r, "Describe") && !strings.HasPrefix(r, "Get") {
			out = append(out, r)
		}
	}
	return out
}

func (s *script) deploy(t *testing.T, edit func(*cfn.Input), configure ...func(*cfn.Config)) (cfn.Result, error) {
	t.Helper()
	return s.deployWithin(t.Context(), edit, configure...)
}

func (s *script) deployWithin(ctx context.Context, edit func(*cfn.Input), configure ...func(*cfn.Config)) (cfn.Result, error) {
	cfg := cfn.Config{
		AWS:     aws.Config{Region: "eu-west-1", BaseEndpoint: aws.String(s.url), Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")},
		Account: "111111111111", Journal: &effects.Memory{}, Retryer: aws.NopRetryer{},
		Limits: cfn.Limits{PollMin: time.Millisecond, PollMax: 5 * time.Millisecond},
	}
	for _, f := range configure {
		f(&cfg)
	}
	in := cfn.Input{StackName: "shop", Template: []byte(template), Execution: "e"}
	if edit != nil {
		edit(&in)
	}
	return cfn.New(cfg).Deploy(ctx, in)
}

func requireFault(t *testing.T, err error, reason fault.Reason, texts ...string) {
	t.Helper()
	require.ErrorIs(t, err, &fault.Fault{Reason: reason, Err: errors.New(string(reason))})
	for _, text := range texts {
		require.Contains(t, fault.Message(err), text)
	}
}

// complete ends the operation at once.
func complete(status string) func(*script, string) {
	return func(s *script, token string) { s.stack(token, status); s.execution = "EXECUTE_COMPLETE" }
}

func TestDeploy_PausedStackIsLeftAlone(t *testing.T) {
	t.Parallel()
	for status, advice := range map[string]string{
		"CREATE_FAILED": "rollback-stack", "UPDATE_FAILED": "rollback-stack", "UPDATE_ROLLBACK_FAILED": "continue-update-rollback",
		"DELETE_FAILED": "Finish deleting", "IMPORT_ROLLBACK_FAILED": "stable state",
	} {
		s := newScript(t)
		s.status, s.extra = status, "<StackStatusReason>disk full</StackStatusReason>"
		_, err := s.deploy(t, nil)
		requireFault(t, err, fault.StackPaused, status, advice, "disk full", "deploy stack shop (eu-west-1)")
		require.Empty(t, s.writes())
	}
}

func TestDeploy_FinalStatuses(t *testing.T) {
	t.Parallel()
	for status, reason := range map[string]fault.Reason{
		"CREATE_COMPLETE": "", "UPDATE_COMPLETE": "", "IMPORT_COMPLETE": "",
		"ROLLBACK_COMPLETE": fault.StackFailed, "ROLLBACK_FAILED": fault.StackFailed, "UPDATE_ROLLBACK_COMPLETE": fault.StackFailed,
		"UPDATE_ROLLBACK_FAILED": fault.StackFailed, "UPDATE_FAILED": fault.StackFailed, "CREATE_FAILED": fault.StackFailed,
		"IMPORT_ROLLBACK_COMPLETE": fault.StackFailed, "DELETE_COMPLETE": fault.StackFailed,
	} {
		s := newScript(t)
		s.execute = complete(status)
		_, err := s.deploy(t, nil)
		if reason == "" {
			require.NoError(t, err, status)
			continue
		}
		requireFault(t, err, reason)
	}
}

func TestDeploy_DisappearedStackFails(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.execute = func(s *script, token string) { s.stack(token, "UPDATE_COMPLETE"); s.status = "" }
	_, err := s.deploy(t, nil)
	requireFault(t, err, fault.StackFailed, "deleted meanwhile")
}

func TestDeploy_StaleReadsAreNotBelieved(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.status, s.live = "UPDATE_COMPLETE", "{}"
	s.events = []event{{stackARN, "somebody", "UPDATE_COMPLETE", "AWS::CloudFormation::Stack", "shop", stackARN, ""}}
	var token string
	s.execute = func(_ *script, t string) { token = t }
	s.tick = func(s *script, n int) {
		switch n {
		case 4:
			s.stack(token, "UPDATE_IN_PROGRESS")
		case 6:
			s.stack(token, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
		case 7:
			s.events = append(s.events, event{stackARN, token, "DELETE_FAILED", "AWS::S3::Bucket", "Old", "old", "not empty"})
		case 9:
			s.stack(token, "UPDATE_COMPLETE")
		}
	}
	got, err := s.deploy(t, nil)
	require.NoError(t, err)
	require.Equal(t, 9, s.looks, "the clean-up is waited for")
	require.Equal(t, cfn.Updated, got.Outcome)
	require.Len(t, got.Warnings, 1)
	require.Contains(t, got.Warnings[0], "Old (AWS::S3::Bucket)")
}

func TestDeploy_ThrottledWatchGoesOn(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.failing = 3
	s.execute = complete("CREATE_COMPLETE")
	got, err := s.deploy(t, nil)
	require.NoError(t, err)
	require.Equal(t, cfn.Created, got.Outcome)

	s = newScript(t)
	s.failing = 1 << 20
	s.execute = complete("CREATE_COMPLETE")
	_, err = s.deploy(t, nil, func(c *cfn.Config) { c.Limits.Outage = 20 * time.Millisecond })
	requireFault(t, err, fault.AWSUnavailable, "Throttling")
}

func TestDeploy_NestedFailureIsTheCause(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	var events []cfn.Event
	s.execute = func(s *script, token string) {
		s.stack(token, "CREATE_IN_PROGRESS")
		s.events = append(s.events,
			event{stackARN, token, "CREATE_IN_PROGRESS", "AWS::CloudFormation::Stack", "Nest", nestedARN, ""},
			event{nestedARN, token, "CREATE_IN_PROGRESS", "AWS::CloudFormation::Stack", "shop-Nest-X", nestedARN, ""},
			event{nestedARN, token, "CREATE_FAILED", "AWS::SSM::Parameter", "Inner", "", "bad type"},
			event{nestedARN, token, "CREATE_FAILED", "AWS::CloudFormation::Stack", "shop-Nest-X", nestedARN, "x"},
			event{stackARN, token, "CREATE_FAILED", "AWS::CloudFormation::Stack", "Nest", nestedARN, "Embedded stack was not successfully created"},
		)
		s.stack(token, "ROLLBACK_COMPLETE")
	}
	_, err := s.deploy(t, func(in *cfn.Input) {
		in.ConstructPath = func(ids ...string) string { return "App/" + strings.Join(ids, "/") }
	}, func(c *cfn.Config) { c.OnEvent = func(e cfn.Event) { events = append(events, e) } })
	requireFault(t, err, fault.StackFailed, "resource App/Nest/Inner [Nest/Inner] (AWS::SSM::Parameter) ended in CREATE_FAILED: bad type", "created anew")
	require.Len(t, events, 7)
}

func TestDeploy_FailedChangeSetIsExplainedAndRemoved(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.reason = "Nested change set arn:aws:cloudformation:eu-west-1:111111111111:changeSet/nested/9 was not successfully created: Currently in FAILED."
	s.nested = "Template error: no such parameter"
	_, err := s.deploy(t, nil)
	requireFault(t, err, fault.ChangeSetFailed, "nested stack shop-Nest-X: Template error: no such parameter")
	require.Equal(t, []string{"CreateChangeSet", "DeleteChangeSet", "DeleteStack"}, s.writes(), "a stack made only for the change set goes, too")
}

func TestDeploy_EmptyChangeSetIsNoChange(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{"The submitted information didn't contain changes. Submit different information to create a change set.", "No updates are to be performed."} {
		s := newScript(t)
		s.status, s.live, s.reason = "UPDATE_COMPLETE", "{}", reason
		s.extra = "<Outputs><member><OutputKey>A</OutputKey><OutputValue>1</OutputValue></member></Outputs>"
		got, err := s.deploy(t, nil)
		require.NoError(t, err)
		require.Equal(t, cfn.NoChange, got.Outcome)
		require.Equal(t, map[string]string{"A": "1"}, got.Outputs)
		require.Equal(t, []string{"CreateChangeSet", "DeleteChangeSet"}, s.writes())
	}
}

func TestDeploy_UnchangedStackIsNotTouched(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.status, s.live = "UPDATE_ROLLBACK_COMPLETE", template
	got, err := s.deploy(t, nil)
	require.NoError(t, err)
	require.Equal(t, cfn.NoChange, got.Outcome)
	require.Empty(t, s.writes())

	got, err = s.deploy(t, func(in *cfn.Input) { in.TerminationProtection = true })
	require.NoError(t, err)
	require.Equal(t, cfn.NoChange, got.Outcome)
	require.Equal(t, []string{"UpdateTerminationProtection"}, s.writes(), "protection alone needs no change set")
}

func TestDeploy_MangledTemplateAsksTheLastChangeSet(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.status, s.live = "CREATE_COMPLETE", strings.NewReplacer("ö", "?", "ß", "?").Replace(template)
	s.execute = complete("UPDATE_COMPLETE")
	got, err := s.deploy(t, nil)
	require.NoError(t, err)
	require.Equal(t, cfn.Updated, got.Outcome, "nothing proves that the texts are the same")

	s.extra = "<ChangeSetId>" + setARN + "</ChangeSetId>"
	before := len(s.writes())
	got, err = s.deploy(t, func(in *cfn.Input) { in.Execution = "another" })
	require.NoError(t, err)
	require.Equal(t, cfn.NoChange, got.Outcome, "the last change set was made from the same inputs")
	require.Len(t, s.writes(), before)

	_, err = s.deploy(t, func(in *cfn.Input) {
		in.Execution = "third"
		in.Template = []byte(strings.Replace(template, "größe", "grüße", 1))
	})
	require.NoError(t, err)
	require.Greater(t, len(s.writes()), before, "another text is never taken for the same")
}

func TestDeploy_MissingParameterBeforeAnyWrite(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	_, err := s.deploy(t, func(in *cfn.Input) {
		in.Template = []byte(`{"Parameters": {"B": {"Type": "String"}, "A": {"Type": "Number"}}, "Resources": {"X": {"Type": "T"}}}`)
	})
	requireFault(t, err, fault.ParameterMissing, "template parameters A, B have no value")
	require.Empty(t, s.writes())
}

func TestDeploy_RequestCarriesEverything(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.execute = complete("CREATE_COMPLETE")
	_, err := s.deploy(t, func(in *cfn.Input) {
		in.TemplateURL, in.RoleARN = "s3://b/k.json", "arn:aws:iam::111111111111:role/exec"
		in.Tags = map[string]string{"b": "2", "a": "1"}
		in.NotificationARNs = []string{"arn:aws-cn:sns:cn-north-1:1:t"}
		in.Parameters = map[string]string{"P": "x=y"}
		in.Template = []byte(`{"Parameters": {"P": {"Type": "String"}}, "Resources": {"X": {"Type": "T"}}}`)
		in.TerminationProtection, in.ImportExisting = true, true
	})
	require.NoError(t, err)
	want := map[string]string{
		"ImportExistingResources": "true",
		"StackName":               "shop", "ChangeSetType": "CREATE", "TemplateURL": s.url + "/b/k.json", "TemplateBody": "", "RoleARN": "arn:aws:iam::111111111111:role/exec",
		"Tags.member.1.Key": "a", "Tags.member.2.Value": "2", "NotificationARNs.member.1": "arn:aws-cn:sns:cn-north-1:1:t",
		"Parameters.member.1.ParameterKey": "P", "Parameters.member.1.ParameterValue": "x=y", "IncludeNestedStacks": "true",
		"Capabilities.member.1": "CAPABILITY_IAM", "Capabilities.member.2": "CAPABILITY_NAMED_IAM", "Capabilities.member.3": "CAPABILITY_AUTO_EXPAND",
	}
	for key, value := range want {
		require.Equal(t, value, s.created.Get(key), key)
	}
	require.Equal(t, []string{"CreateChangeSet", "ExecuteChangeSet", "UpdateTerminationProtection"}, s.writes(), "a new stack is protected after its success")
}

func TestDeploy_NotificationsAndTagsOfAnUpdate(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.status, s.live = "CREATE_COMPLETE", "{}"
	s.execute = complete("UPDATE_COMPLETE")
	_, err := s.deploy(t, func(in *cfn.Input) { in.NotificationARNs = []string{} })
	require.NoError(t, err)
	require.True(t, s.created.Has("NotificationARNs"), "an empty list removes them")
	require.True(t, s.created.Has("Tags"), "no tags means: remove them")
	require.False(t, s.created.Has("ImportExistingResources"))
	require.Equal(t, "UPDATE", s.created.Get("ChangeSetType"))
	require.Equal(t, stackARN, s.created.Get("StackName"))

	s = newScript(t)
	s.status, s.live = "CREATE_COMPLETE", "{}"
	s.execute = complete("UPDATE_COMPLETE")
	_, err = s.deploy(t, nil)
	require.NoError(t, err)
	require.False(t, s.created.Has("NotificationARNs"), "not specified leaves them alone")
}

func TestDeploy_InlineTemplateLimit(t *testing.T) {
	t.Parallel()
	sized := func(n int) func(*cfn.Input) {
		return func(in *cfn.Input) {
			head, tail := `{"Description": "`, `", "Resources": {"X": {"Type": "T"}}}`
			in.Template = []byte(head + strings.Repeat("x", n-len(head)-len(tail)) + tail)
		}
	}
	s := newScript(t)
	s.execute = complete("CREATE_COMPLETE")
	_, err := s.deploy(t, sized(51200))
	require.NoError(t, err)
	require.Len(t, s.created.Get("TemplateBody"), 51200)
	s = newScript(t)
	s.execute = complete("CREATE_COMPLETE")
	_, err = s.deploy(t, sized(51201))
	require.NoError(t, err)
	require.Len(t, s.created.Get("TemplateBody"), 51201-5, "white space goes first")
	s = newScript(t)
	_, err = s.deploy(t, sized(51206))
	requireFault(t, err, fault.ChangeSetFailed, "51206 bytes")
	require.Empty(t, s.writes())
}
