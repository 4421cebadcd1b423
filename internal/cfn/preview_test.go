package cfn_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/cfn"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// desk answers what a preview asks, as a test says. It exists for what the
// emulator does not tell: values before and after, change sets of nested
// stacks, several pages, and change sets that fail while they are worked out.
type desk struct {
	mu       sync.Mutex
	url      string
	created  url.Values
	requests []string
	// stack is what DescribeStacks has inside of the stack; empty for none.
	stack string
	// sets are what ListChangeSets has, beside ours.
	sets string
	// status, reason and pages are those of the change set; nested is the page
	// of the nested one.
	status, reason, nested string
	pages                  []string
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{status: "CREATE_COMPLETE"}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if r.ParseForm() != nil {
			return
		}
		action := r.PostForm.Get("Action")
		d.requests = append(d.requests, action)
		body, code := d.answer(action, r.PostForm)
		if code != "" {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(w, `<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error></ErrorResponse>`, code, body)
			return
		}
		_, _ = fmt.Fprintf(w, `<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult></%[1]sResponse>`, action, body)
	}))
	t.Cleanup(server.Close)
	d.url = server.URL
	return d
}

func (d *desk) answer(action string, form url.Values) (body, code string) {
	switch action {
	case "DescribeStacks":
		if d.stack == "" {
			return "Stack with id shop does not exist", "ValidationError"
		}
		return fmt.Sprintf(`<Stacks><member><StackName>shop</StackName><StackId>%s</StackId>%s</member></Stacks>`, stackARN, d.stack), ""
	case "ListChangeSets":
		if d.stack == "" {
			return "Stack [shop] does not exist", "ValidationError"
		}
		own := ""
		if d.created != nil {
			own = fmt.Sprintf(`<member><ChangeSetName>%s</ChangeSetName><Description>%s</Description><CreationTime>%s</CreationTime></member>`,
				d.created.Get("ChangeSetName"), d.created.Get("Description"), time.Now().UTC().Format(time.RFC3339))
		}
		return "<Summaries>" + own + d.sets + "</Summaries>", ""
	case "CreateChangeSet":
		d.created = form
		if d.stack == "" {
			d.stack = "<StackStatus>REVIEW_IN_PROGRESS</StackStatus>"
		}
		return "<Id>" + setARN + "</Id><StackId>" + stackARN + "</StackId>", ""
	case "DescribeChangeSet":
		return d.changeSet(form)
	case "DeleteChangeSet":
		if d.created != nil && form.Get("ChangeSetName") == d.created.Get("ChangeSetName") {
			d.created = nil
		} else {
			d.sets = ""
		}
		return "", ""
	case "DeleteStack":
		d.stack, d.sets, d.created = "", "", nil
		return "", ""
	}
	return action, "AccessDenied"
}

func (d *desk) changeSet(form url.Values) (body, code string) {
	name := form.Get("ChangeSetName")
	if strings.Contains(name, "nested") {
		return "<ChangeSetId>" + name + "</ChangeSetId><Status>CREATE_COMPLETE</Status><Changes>" + d.nested + "</Changes>", ""
	}
	if d.created == nil || name != setARN && name != d.created.Get("ChangeSetName") {
		return "ChangeSet [" + name + "] does not exist", "ChangeSetNotFound"
	}
	page, next := 0, ""
	if token := form.Get("NextToken"); token != "" {
		page = len(token)
	}
	if page+1 < len(d.pages) {
		next = "<NextToken>" + strings.Repeat("n", page+1) + "</NextToken>"
	}
	changes := ""
	if page < len(d.pages) && form.Get("IncludePropertyValues") == "true" {
		changes = d.pages[page]
	}
	return fmt.Sprintf(`<ChangeSetId>%s</ChangeSetId><StackId>%s</StackId><Description>%s</Description><Status>%s</Status><StatusReason>%s</StatusReason><Changes>%s</Changes>%s`,
		setARN, stackARN, d.created.Get("Description"), d.status, d.reason, changes, next), ""
}

func (d *desk) preview(ctx context.Context, t *testing.T, text string) (cfn.Preview, error) {
	t.Helper()
	p := cfn.NewPreviewer(cfn.Config{
		AWS:     aws.Config{Region: "eu-west-1", BaseEndpoint: aws.String(d.url), Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")},
		Account: "111111111111", Retryer: aws.NopRetryer{}, Limits: cfn.Limits{PollMin: time.Millisecond, PollMax: 10 * time.Millisecond},
	})
	return p.Preview(ctx, cfn.Input{StackName: "shop", Template: []byte(text), Execution: "owner"})
}

// sent counts requests of an action.
func (d *desk) sent(action string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Count(" "+strings.Join(d.requests, " ")+" ", " "+action+" ")
}

func resourceChange(id, rest string) string {
	return "<member><Type>Resource</Type><ResourceChange><Action>Modify</Action><LogicalResourceId>" + id + "</LogicalResourceId>" + rest + "</ResourceChange></member>"
}

func TestPreview_ReadsAllOfAChangeSet(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.stack = "<StackStatus>CREATE_COMPLETE</StackStatus>"
	d.pages = []string{
		resourceChange("Param", `<PhysicalResourceId>p</PhysicalResourceId><ResourceType>AWS::SSM::Parameter</ResourceType><Replacement>Conditional</Replacement><Scope><member>Properties</member></Scope><Details><member><Evaluation>Dynamic</Evaluation><ChangeSource>ResourceAttribute</ChangeSource><CausingEntity>Other.Arn</CausingEntity><Target><Attribute>Properties</Attribute><Name>Value</Name><Path>/Properties/Value</Path><RequiresRecreation>Conditionally</RequiresRecreation><BeforeValue>one</BeforeValue><AfterValue>two</AfterValue></Target></member></Details>`),
		resourceChange("Nest", `<ResourceType>AWS::CloudFormation::Stack</ResourceType><ChangeSetId>arn:aws:cloudformation:eu-west-1:111111111111:changeSet/nested/4</ChangeSetId>`),
	}
	d.nested = resourceChange("Inner", `<Replacement>True</Replacement><PolicyAction>ReplaceAndDelete</PolicyAction>`)
	got, err := d.preview(t.Context(), t, template)
	require.NoError(t, err)
	require.Equal(t, cfn.Preview{Status: cfn.PreviewCreated, Changes: []cfn.PreviewChange{
		{
			LogicalID: "Param", PhysicalID: "p", Type: "AWS::SSM::Parameter", Action: "Modify", Replacement: "Conditional", Scope: []string{"Properties"},
			Details: []cfn.PreviewDetail{{
				Attribute: "Properties", Path: "/Properties/Value", RequiresRecreation: "Conditionally", Evaluation: "Dynamic",
				Source: "ResourceAttribute", Cause: "Other.Arn", Before: "one", After: "two",
			}},
		},
		{LogicalID: "Nest", Type: "AWS::CloudFormation::Stack", Action: "Modify"},
		{LogicalID: "Nest/Inner", Action: "Modify", Replacement: "True", PolicyAction: "ReplaceAndDelete"},
	}}, got)
	require.Nil(t, d.created, "it is removed")
	require.Zero(t, d.sent("ExecuteChangeSet"))
	require.Zero(t, d.sent("DeleteStack"))
}

func TestPreview_FailuresLeaveNothing(t *testing.T) {
	t.Parallel()
	for _, stack := range []string{"", "<StackStatus>UPDATE_COMPLETE</StackStatus>"} {
		d := newDesk(t)
		d.stack, d.status, d.reason = stack, "FAILED", "Template error: no such export"
		got, err := d.preview(t.Context(), t, template)
		require.NoError(t, err)
		require.Equal(t, cfn.PreviewFailed, got.Status)
		require.Equal(t, "Template error: no such export", got.Reason)
		require.Nil(t, d.created)
		require.Equal(t, stack, d.stack)
	}
	d := newDesk(t)
	d.stack, d.status, d.reason = "<StackStatus>UPDATE_COMPLETE</StackStatus>", "FAILED", "The submitted information didn't contain changes."
	got, err := d.preview(t.Context(), t, template)
	require.NoError(t, err)
	require.Equal(t, cfn.PreviewEmpty, got.Status)
}

func TestPreview_RemovesAfterTheEndOfItsContext(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.status = "CREATE_IN_PROGRESS"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := d.preview(ctx, t, template)
		done <- err
	}()
	require.Eventually(t, func() bool { return d.sent("DescribeChangeSet") > 1 }, time.Minute, time.Millisecond)
	cancel()
	// While it is being worked out it cannot be removed, so that is waited for.
	require.Zero(t, d.sent("DeleteStack"))
	d.mu.Lock()
	d.status = "CREATE_COMPLETE"
	d.mu.Unlock()
	require.ErrorIs(t, <-done, &fault.Fault{Reason: fault.Cancellation})
	require.Empty(t, d.stack)
	require.Equal(t, 1, d.sent("DeleteStack"))
}

func TestPreview_SweepsWhatIsOld(t *testing.T) {
	t.Parallel()
	const others = `<member><ChangeSetName>%s</ChangeSetName><Description>aphex diff X (the stack is there for previews only)</Description><CreationTime>%s</CreationTime></member>`
	tests := []struct {
		name, stack, sets string
		stays             bool
	}{
		{"an hour-old preview of a stranger", "<StackStatus>REVIEW_IN_PROGRESS</StackStatus>", fmt.Sprintf(others, "aphex-diff-0123456789abcdef", time.Now().Add(-2*time.Hour).UTC().Format(time.RFC3339)), false},
		{"a stack whose preview is gone", "<StackStatus>REVIEW_IN_PROGRESS</StackStatus><ChangeSetId>arn:aws:cloudformation:eu-west-1:1:changeSet/aphex-diff-0123456789abcdef/1</ChangeSetId>", "", false},
		{"a preview that may be at work", "<StackStatus>REVIEW_IN_PROGRESS</StackStatus>", fmt.Sprintf(others, "aphex-diff-0123456789abcdef", time.Now().UTC().Format(time.RFC3339)), true},
		{"somebody's old change set", "<StackStatus>REVIEW_IN_PROGRESS</StackStatus>", fmt.Sprintf(others, "mine", time.Now().Add(-2*time.Hour).UTC().Format(time.RFC3339)), true},
		{"somebody's empty stack", "<StackStatus>REVIEW_IN_PROGRESS</StackStatus>", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			d.stack, d.sets = tt.stack, tt.sets
			_, err := d.preview(t.Context(), t, template)
			require.NoError(t, err)
			require.Nil(t, d.created)
			if tt.stays {
				require.Equal(t, tt.stack, d.stack)
				require.Equal(t, tt.sets, d.sets)
				return
			}
			require.Empty(t, d.stack)
		})
	}
}
