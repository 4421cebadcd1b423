package notify_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/redact"
)

const (
	topic  = "arn:aws:sns:eu-central-1:111111111111:shop.fifo"
	commit = "0123456789012345678901234567890123456789"
)

// request is what a channel received.
type request struct {
	path   string
	header http.Header
	body   string
}

// far is everything an announcement goes to: AWS, which keeps references, and
// the channels' own servers.
type far struct {
	t       *testing.T
	url     string
	secrets map[string]string // by reference

	mu       sync.Mutex
	requests []request
	refuse   int // answers of channels that are 503
}

func newFar(t *testing.T) *far {
	t.Helper()
	f := &far{t: t, secrets: map[string]string{}}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

func (f *far) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // an incomplete one fails the comparisons
	f.mu.Lock()
	defer f.mu.Unlock()
	var input struct {
		SecretID string `json:"SecretId"`
		Name     string `json:"Name"`
	}
	switch target := r.Header.Get("X-Amz-Target"); {
	case target != "":
		_ = json.Unmarshal(body, &input)
		name := map[string]string{"secretsmanager.GetSecretValue": "secretsmanager:" + input.SecretID, "AmazonSSM.GetParameter": "ssm:" + input.Name}[target]
		value, ok := f.secrets[name]
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		if !ok {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprint(w, `{"__type": "ResourceNotFoundException", "message": "there is none"}`)
			return
		}
		quoted, _ := json.Marshal(value)
		_, _ = fmt.Fprintf(w, `{"Name": "x", "SecretString": %[1]s, "Parameter": {"Name": "x", "Value": %[1]s}}`, quoted)
	case r.URL.Path == "/" && strings.Contains(string(body), "Action=Publish"):
		f.requests = append(f.requests, request{"sns", r.Header, string(body)})
		_, _ = fmt.Fprint(w, `<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>`)
	default:
		f.requests = append(f.requests, request{r.URL.Path, r.Header, string(body)})
		if f.refuse > 0 {
			f.refuse--
			http.Error(w, "later", http.StatusServiceUnavailable)
			return
		}
		switch r.URL.Path {
		case "/gone":
			http.Error(w, "no_team for token-1234567", http.StatusNotFound)
		case "/moved":
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}
	}
}

func (f *far) sender() (*notify.Sender, *redact.Redactor) {
	redactor := redact.New()
	return notify.New(notify.Config{
		Base: func(context.Context) (aws.Config, error) {
			return aws.Config{Region: "eu-west-1", BaseEndpoint: aws.String(f.url), Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")}, nil
		},
		Hide: redactor.Add, Redact: redactor.String, Version: "1.2.3",
	}), redactor
}

// announce tells all channels and returns the results and what was received,
// by path.
func (f *far) announce(e notify.Event, channels ...pipeline.Notification) ([]record.Notification, map[string][]request) {
	sender, _ := f.sender()
	results := sender.Announce(f.t.Context(), channels, e, func(int) bool { return false }, func(int) {})
	f.mu.Lock()
	defer f.mu.Unlock()
	got := map[string][]request{}
	for _, r := range f.requests {
		got[r.path] = append(got[r.path], r)
	}
	return results, got
}

func failedRun() record.Run {
	at := time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)
	cause := "stack <shop-api> failed: bucket & all are taken"
	return record.Run{
		WorkflowID: "uid-1", WorkflowName: "shop-x1", Namespace: "team", Pipeline: "shop", CommitSHA: commit, Branch: "main",
		TriggeredAt: at, CompletedAt: new(at.Add(95 * time.Second)), Status: record.Failed, Reason: "StackFailed",
		Stages: []record.Stage{
			{StageName: "deploy-pipeline", Stage: "deploy-pipeline", Status: record.Failed, Reason: "KubernetesRejected", ErrorMessage: new("forbidden")},
			{StageName: "deploy-env-dev", Stage: "deploy-env", Environment: "dev", Status: record.Succeeded},
			{StageName: "deploy-env-prod", Stage: "deploy-env", Environment: "prod", Status: record.Failed, Reason: "StackFailed", ErrorMessage: &cause, LogURL: "s3://bucket/prod.log"},
		},
	}
}

func (f *far) event() notify.Event {
	run := failedRun()
	run.RepoURL = f.url + "/team/shop.git"
	return notify.NewEvent(run, "2026-11-24T06:00:00Z", "https://argo.example.com/base/", "s3://bucket/runs/uid-1/run.json")
}

// Feature: aphex-pipeline, Property 18: Notification delivery
func TestAnnounce_TellsEachKindOfChannel(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	f.secrets["secretsmanager:shop/slack"] = `{"url": "` + f.url + `/slack"}`
	f.secrets["ssm:/shop/hook"] = `{"url": "` + f.url + `/hook", "secret": "s3cret-of-ours"}`
	f.secrets["ssm:/shop/github"] = "token-1234567\n"
	e := f.event()
	results, got := f.announce(e,
		pipeline.Notification{Type: pipeline.NotifySlack, Target: "secretsmanager:shop/slack#url"},
		pipeline.Notification{Type: pipeline.NotifyWebhook, Target: "ssm:/shop/hook"},
		pipeline.Notification{Type: pipeline.NotifyGitHub, Target: "ssm:/shop/github"},
		pipeline.Notification{Type: pipeline.NotifySNS, Target: topic},
	)
	for _, result := range results {
		require.Equal(t, record.NotificationSent, result.Status, "%+v", result)
	}
	require.Len(t, results, 4)

	slack := got["/slack"][0]
	require.Equal(t, e.Key, slack.header.Get("Idempotency-Key"))
	require.Equal(t, "aphex/1.2.3", slack.header.Get("User-Agent"))
	var message struct {
		Text   string `json:"text"`
		Blocks []struct {
			Text struct {
				Text string `json:"text"`
			} `json:"text"`
		} `json:"blocks"`
	}
	require.NoError(t, json.Unmarshal([]byte(slack.body), &message))
	require.Equal(t, ":x: shop failed at deploy-env-prod (StackFailed)", message.Text)
	require.Equal(t, "*deploy-env-prod*: stack &lt;shop-api&gt; failed: bucket &amp; all are taken\nLog: `s3://bucket/prod.log`", message.Blocks[2].Text.Text)
	require.Equal(t, "*deploy-pipeline*: forbidden", message.Blocks[3].Text.Text, "the pipeline's own change failed too")
	require.Equal(t, "s3://bucket/prod.log", e.Failed.LogURL)
	require.Contains(t, slack.body, "https://argo.example.com/base/workflows/team/shop-x1|shop-x1")

	hook := got["/hook"][0]
	require.Empty(t, slack.header.Get("X-Aphex-Signature-256"))
	mac := hmac.New(sha256.New, []byte("s3cret-of-ours"))
	mac.Write([]byte(hook.body))
	require.Equal(t, "sha256="+hex.EncodeToString(mac.Sum(nil)), hook.header.Get("X-Aphex-Signature-256"))
	var told notify.Event
	require.NoError(t, json.Unmarshal([]byte(hook.body), &told))
	require.Equal(t, e, told)

	status := got["/api/v3/repos/team/shop/statuses/"+commit][0]
	require.Equal(t, "Bearer token-1234567", status.header.Get("Authorization"))
	require.JSONEq(t, `{"state": "failure", "context": "aphex/shop", "target_url": "https://argo.example.com/base/workflows/team/shop-x1",
		"description": "deploy-env-prod failed: stack <shop-api> failed: bucket & all are taken"}`, status.body)

	form, err := url.ParseQuery(got["sns"][0].body)
	require.NoError(t, err)
	require.Equal(t, topic, form.Get("TopicArn"))
	require.Equal(t, "shop failed at deploy-env-prod (StackFailed)", form.Get("Subject"))
	require.Equal(t, e.Key, form.Get("MessageDeduplicationId"))
	require.JSONEq(t, hook.body, form.Get("Message"))
	require.Contains(t, got["sns"][0].header.Get("Authorization"), "/eu-central-1/sns/", "the topic's region")
}

// The address may be in a Secret of the namespace, which the kubelet mounts.
func TestAnnounce_AddressInASecretOfTheNamespace(t *testing.T) {
	t.Parallel()
	f, dir := newFar(t), t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "chat"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "chat", "hook"), []byte(f.url+"/hook\n"), 0o600))
	redactor := redact.New()
	sender := notify.New(notify.Config{Hide: redactor.Add, Redact: redactor.String, Secrets: dir})
	channels := []pipeline.Notification{
		{Type: pipeline.NotifyWebhook, Target: "kubernetes:chat#hook"}, {Type: pipeline.NotifyWebhook, Target: "kubernetes:mail#hook"},
	}
	tell := func(s *notify.Sender) []record.Notification {
		return s.Announce(t.Context(), channels, f.event(), func(int) bool { return false }, func(int) {})
	}
	results := tell(sender)
	require.Equal(t, record.NotificationSent, results[0].Status, "%+v", results)
	require.Len(t, f.requests, 1)
	require.Contains(t, results[1].Error, "the Secret is not mounted in this pod")
	require.NotContains(t, redactor.String(f.url+"/hook"), "/hook")

	// Reconcile has no mounts, and says so.
	sender, _ = f.sender()
	require.Contains(t, tell(sender)[0].Error, "there are no Secrets of a namespace here")
}

// Both parts of an object are secret: nothing that is said later has them.
func TestAnnounce_HidesTheAddressAndTheSecret(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	f.secrets["ssm:/hook"] = `{"url": "` + f.url + `/hook/of-ours", "secret": "s3cret-of-ours"}`
	sender, redactor := f.sender()
	results := sender.Announce(t.Context(), []pipeline.Notification{{Type: pipeline.NotifyWebhook, Target: "ssm:/hook"}}, f.event(), func(int) bool { return false }, func(int) {})
	require.Equal(t, record.NotificationSent, results[0].Status, "%+v", results)
	said := redactor.String("to " + f.url + "/hook/of-ours with s3cret-of-ours")
	require.NotContains(t, said, "/hook")
	require.NotContains(t, said, "s3cret-of-ours")
}

// What is sent goes to the address of the reference and nowhere else, whatever
// is there now.
func TestAnnounce_FollowsNoRedirect(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	f.secrets["ssm:/hook"] = f.url + "/moved"
	results, got := f.announce(f.event(), pipeline.Notification{Type: pipeline.NotifyWebhook, Target: "ssm:/hook"})
	require.Equal(t, record.NotificationFailed, results[0].Status)
	require.Contains(t, results[0].Error, "the answer is 307 Temporary Redirect")
	require.Len(t, got["/moved"], 1)
	require.Empty(t, got["/elsewhere"])
}

// A topic refuses a subject that is long or not of printable ASCII.
func TestAnnounce_SubjectOfATopic(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	e := f.event()
	e.Reason = "Größe\n" + strings.Repeat("x", 200)
	results, got := f.announce(e, pipeline.Notification{Type: pipeline.NotifySNS, Target: topic})
	require.Equal(t, record.NotificationSent, results[0].Status, "%+v", results)
	form, err := url.ParseQuery(got["sns"][0].body)
	require.NoError(t, err)
	require.Equal(t, "shop failed at deploy-env-prod (Gr??e?"+strings.Repeat("x", 62), form.Get("Subject"))
}

func TestAnnounce_TriesAgain(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	f.refuse = 2
	f.secrets["ssm:/hook"] = f.url + "/hook"
	results, got := f.announce(f.event(), pipeline.Notification{Type: pipeline.NotifyWebhook, Target: "ssm:/hook"})
	require.Equal(t, record.NotificationSent, results[0].Status, "%+v", results)
	require.Len(t, got["/hook"], 3)
	for _, r := range got["/hook"] {
		require.Equal(t, f.event().Key, r.header.Get("Idempotency-Key"))
		require.Equal(t, got["/hook"][0].body, r.body)
	}
}

// Whatever goes wrong is said without the address and the token.
func TestAnnounce_SaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		kind, value, ref string
		want             string
	}{
		"no such secret":      {pipeline.NotifySlack, "", "secretsmanager:nowhere", "read secretsmanager:nowhere"},
		"no such field":       {pipeline.NotifySlack, `{"url": 1}`, "ssm:/x#url", `no JSON object with a text "url"`},
		"empty":               {pipeline.NotifyGitHub, " ", "ssm:/x", "the value is empty"},
		"no address":          {pipeline.NotifyWebhook, "hooks.example.com/secret-path", "ssm:/x", "no http or https address"},
		"object of no kind":   {pipeline.NotifyWebhook, `{"url": `, "ssm:/x", "neither an address nor a JSON object"},
		"refused":             {pipeline.NotifySlack, "URL/gone", "ssm:/x", "the answer is 404 Not Found: no_team for"},
		"nobody there":        {pipeline.NotifySlack, "http://127.0.0.1:1/secret-path", "ssm:/x", "connection refused"},
		"address is no URL":   {pipeline.NotifySlack, "http://exa mple/secret-path", "ssm:/x", "the address cannot be used"},
		"kind of tomorrow":    {"pager", "", "ssm:/x", `"pager", which this version does not know`},
		"reference to a file": {pipeline.NotifyGitHub, "", "file:/x", "allowed are secretsmanager, ssm"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFar(t)
			if tt.value != "" {
				f.secrets[strings.TrimSuffix(tt.ref, "#url")] = strings.Replace(tt.value, "URL", f.url, 1)
			}
			results, _ := f.announce(f.event(), pipeline.Notification{Type: tt.kind, Target: tt.ref})
			require.Equal(t, record.NotificationFailed, results[0].Status)
			require.Contains(t, results[0].Error, tt.want)
			require.NotContains(t, results[0].Error, "secret-path")
			require.NotContains(t, results[0].Error, "/gone")
		})
	}
	f := newFar(t)
	f.secrets["ssm:/token"] = "token-1234567"
	f.secrets["ssm:/x"] = f.url + "/gone"
	sender, redactor := f.sender()
	redactor.Add("token-1234567")
	results := sender.Announce(t.Context(), []pipeline.Notification{{Type: pipeline.NotifySlack, Target: "ssm:/x"}}, f.event(), func(int) bool { return false }, func(int) {})
	require.NotContains(t, results[0].Error, "token-1234567")
}

// Feature: aphex-pipeline, Property 18: Notification delivery
func TestAnnounce_OnlyToWhomItConcernsAndOnce(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	f.secrets["ssm:/x"] = f.url + "/x"
	sender, _ := f.sender()
	hook := func(events, environments []string) pipeline.Notification {
		return pipeline.Notification{Type: pipeline.NotifyWebhook, Target: "ssm:/x", Events: events, Environments: environments}
	}
	channels := []pipeline.Notification{
		hook([]string{pipeline.EventSucceeded}, nil), hook([]string{pipeline.EventFailed}, nil),
		hook(nil, []string{"staging"}), hook(nil, []string{"staging", "prod"}), hook(nil, nil),
	}
	var mu sync.Mutex
	var sent []int
	results := sender.Announce(t.Context(), channels, f.event(), func(n int) bool { return n == 4 }, func(n int) {
		mu.Lock()
		defer mu.Unlock()
		sent = append(sent, n)
	})
	require.Len(t, results, 3)
	require.ElementsMatch(t, []int{1, 3}, sent)
	require.Len(t, f.requests, 2)
}

func TestNewEvent(t *testing.T) {
	t.Parallel()
	run := failedRun()
	e := notify.NewEvent(run, "1", "", "")
	require.Equal(t, "deploy-env-prod", e.Failed.Stage, "not deploy-pipeline, which fails no run")
	require.Equal(t, []string{"dev", "prod"}, e.Environments)
	require.InDelta(t, 95, e.Seconds, 0.001)
	require.Empty(t, e.RunURL)
	require.Equal(t, e.Key, notify.NewEvent(run, "1", "x", "y").Key)
	require.NotEqual(t, e.Key, notify.NewEvent(run, "2", "", "").Key, "the end of a retry is another one")
	unread := run
	unread.Stages = nil
	require.Equal(t, e.Key, notify.NewEvent(unread, "1", "", "").Key, "whatever is known of the stages")

	run.Status, run.Stages = record.Succeeded, run.Stages[:2]
	run.Stages[0].ErrorMessage = new(strings.Repeat("ä", 2000))
	e = notify.NewEvent(run, "1", "", "")
	require.Equal(t, pipeline.EventDeferred, e.Event)
	require.Equal(t, "deploy-pipeline", e.Failed.Stage, "a change of the stages that did not come about is told")
	require.Equal(t, e.Failed, e.Deferred)
	require.Len(t, []rune(e.Failed.Message), 1000)
}

func TestPlan_ReadsWhatItWrites(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		channels := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) pipeline.Notification {
			return pipeline.Notification{Type: rapid.String().Draw(t, "type"), Target: rapid.String().Draw(t, "target"), Events: rapid.SliceOfN(rapid.String(), 1, 3).Draw(t, "events")}
		}), 1, 5).Draw(t, "channels")
		plan := notify.Plan{ArgoURL: rapid.String().Draw(t, "argo"), Channels: channels}
		got, err := notify.Decode(plan.Encode())
		require.NoError(t, err)
		require.Equal(t, plan, got)
	})
	require.Empty(t, notify.Plan{ArgoURL: "x"}.Encode())
	none, err := notify.Decode("")
	require.NoError(t, err)
	require.Empty(t, none)
	_, err = notify.Decode("{")
	require.ErrorContains(t, err, "read the notification channels")
}
