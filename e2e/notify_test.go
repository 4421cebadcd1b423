package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"testing"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// mailbox is a server of this machine that keeps what it is sent, by path.
type mailbox struct {
	mu   sync.Mutex
	mail map[string][]string
}

func (m *mailbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mail[r.URL.Path] = append(m.mail[r.URL.Path], string(body))
}

// received returns what came to path.
func (m *mailbox) received(path string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mail[path]
}

// TestNotifications_OfAFailureAndOfTheRetry: the channels of the commit's
// configuration hear of the failure, with its cause, and of the success of the
// retry; one that cannot be reached is recorded and disturbs nothing.
//
// Feature: aphex-pipeline, Property 18: Notification delivery
func TestNotifications_OfAFailureAndOfTheRetry(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	p, _, ledger := newSmall(t, l, "news")
	mail := &mailbox{mail: map[string][]string{}}
	address := listen(t, l, mail)
	ctx := limited(t)
	topic, err := sns.NewFromConfig(l.AWS.Config(aws.AccountTools, p.Installation.Region)).CreateTopic(ctx, &sns.CreateTopicInput{Name: awssdk.String("news")})
	require.NoError(t, err)
	putParameter(t, l, "/e2e/news-hook", address+"/hook")
	putParameter(t, l, "/e2e/news-slack", address+"/slack")
	cfg := config([]string{". ./ledger.sh; did build"}, dev("news", ". ./ledger.sh; did test")) + `
argo: {url: "https://argo.example.com"}
notifications:
  - {type: webhook, target: "ssm:/e2e/news-hook"}
  - {type: slack, target: "ssm:/e2e/news-slack", events: [failed]}
  - {type: sns, target: "` + awssdk.ToString(topic.TopicArn) + `"}
  - {type: slack, target: "ssm:/e2e/news-nowhere", events: [succeeded]}
`
	commit, err := p.Push(ctx, gitserver.Change{Message: "with channels", Write: map[string]string{"aphex-config.yaml": cfg}})
	require.NoError(t, err)
	require.NoError(t, p.Apply(ctx, []byte(cfg)))

	ledger.fail("test", true)
	run, err := p.Submit(ctx, commit)
	require.NoError(t, err)
	status, err := run.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "Failed", status.Phase, "%+v", status)
	require.Len(t, mail.received("/hook"), 1)
	var told notify.Event
	require.NoError(t, json.Unmarshal([]byte(mail.received("/hook")[0]), &told))
	require.Equal(t, "failed", told.Event)
	require.Equal(t, commit, told.Commit)
	require.Equal(t, "test-dev", told.Failed.Stage)
	require.Equal(t, status.Node("test-dev").Message, told.Failed.Message)
	require.Equal(t, status.Node("test-dev").Output(task.OutputLogURL), told.Failed.LogURL)
	require.Equal(t, "https://argo.example.com/workflows/"+run.Namespace+"/"+run.Name, told.RunURL)
	require.Len(t, mail.received("/slack"), 1)
	require.Contains(t, mail.received("/slack")[0], "news failed at test-dev (")

	ledger.fail("test", false)
	require.NoError(t, run.Retry(ctx))
	status, err = run.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Len(t, mail.received("/hook"), 2)
	first := told.Key
	require.NoError(t, json.Unmarshal([]byte(mail.received("/hook")[1]), &told))
	require.Equal(t, "succeeded", told.Event)
	require.NotEqual(t, first, told.Key)
	require.Len(t, mail.received("/slack"), 1, "failures alone")
	rec, err := p.Record(ctx, status.UID)
	require.NoError(t, err)
	var states []record.NotificationStatus
	for _, n := range rec.Notifications {
		states = append(states, n.Status)
	}
	require.Equal(t, []record.NotificationStatus{record.NotificationSent, record.NotificationSent, record.NotificationFailed}, states, "%+v", rec.Notifications)
	require.Contains(t, rec.Notifications[2].Error, "ssm:/e2e/news-nowhere")
}
