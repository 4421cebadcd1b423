package finish_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/testkit/effects"
	"github.com/aphex-pipeline/aphex/tasks/finish"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// hook is a webhook, and the parameter store that has its address.
type hook struct {
	url string

	mu   sync.Mutex
	told []notify.Event
}

func newHook(t *testing.T) *hook {
	t.Helper()
	h := &hook{}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	h.url = server.URL
	return h
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // an incomplete one is no event
	if r.Header.Get("X-Amz-Target") != "" {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		_, _ = io.WriteString(w, `{"Parameter": {"Name": "/hook", "Value": "`+h.url+`/hook"}}`)
		return
	}
	var e notify.Event
	if json.Unmarshal(body, &e) != nil || r.Header.Get("Idempotency-Key") != e.Key {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = append(h.told, e)
}

func (h *hook) sender() *notify.Sender {
	return notify.New(notify.Config{
		Base: func(context.Context) (aws.Config, error) {
			return aws.Config{Region: "eu-west-1", BaseEndpoint: aws.String(h.url), Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")}, nil
		},
		Hide: func(...string) {}, Redact: func(text string) string { return text }, Version: "1",
	})
}

// readOnly is a bucket whose policy allows no writes any more.
type readOnly struct{ *store.Dir }

func (readOnly) Put(context.Context, string, io.Reader, store.PutOptions) (store.Object, error) {
	return store.Object{}, errors.New("access denied")
}

// Whatever is wrong with the bucket, the channels hear of the end once, the
// figures are sent once.
func TestRun_TellsAndMeasuresWithoutARecord(t *testing.T) {
	t.Parallel()
	whole, damaged, torn := store.NewDir(t.TempDir()), store.NewDir(t.TempDir()), store.NewDir(t.TempDir())
	for _, bucket := range []*store.Dir{whole, damaged, torn} {
		begin(t, bucket)
	}
	put := func(bucket *store.Dir, key string) {
		_, err := bucket.Put(t.Context(), key, bytes.NewReader([]byte("{")), store.PutOptions{})
		require.NoError(t, err)
	}
	cluster := kubetest.New(t)
	cluster.Put("workflows", kubetest.Object{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": map[string]any{"name": "shop-1", "namespace": "team", "uid": "uid-1"},
		"status": map[string]any{"phase": "Running", "nodes": map[string]any{
			"1": map[string]any{"name": "shop-1", "phase": "Failed"},
			"2": map[string]any{"name": "shop-1.build", "phase": "Succeeded", "message": "built"},
			"3": map[string]any{"name": "shop-1.deploy-dev", "phase": "Failed", "message": "stack api failed [StackFailed]"},
			"4": map[string]any{"name": "shop-1.test-dev", "phase": "Omitted"},
			"5": map[string]any{"name": "shop-1.onExit", "phase": "Running"},
		}},
	})
	client := cluster.Client(t)
	put(damaged, record.RunKey("uid-1"))
	put(torn, record.StageKey("uid-1", "build", ""))
	for name, tt := range map[string]struct {
		records *record.Recorder
		cause   string
	}{
		"no bucket":                   {record.New(broken(t)), "stack api failed [StackFailed]"},
		"a run's record that is none": {record.New(damaged), ""},
		"a stage's record is damaged": {record.New(torn), ""},
		"nothing can be written":      {record.New(readOnly{whole}), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			far, journal, measured := newHook(t), &effects.Memory{}, 0
			req := request("Failed")
			req.Run.Epoch = time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)
			req.Notifications = notify.Plan{ArgoURL: "https://argo.example.com", Channels: []pipeline.Notification{
				{Type: pipeline.NotifyWebhook, Target: "ssm:/hook", Events: []string{pipeline.EventFailed}},
			}}.Encode()
			stage := finish.New(finish.Config{
				Records: tt.records, News: far.sender(), Workflows: client,
				Figures: func(_ context.Context, run record.Run, _ time.Time) error {
					require.Equal(t, record.Failed, run.Status)
					require.Greater(t, run.CompletedAt.Sub(run.TriggeredAt), 50*time.Second, "not a run of no time")
					measured++
					return nil
				},
			})
			for range 2 { // asked again, as after a death
				got, err := stage.Run(t.Context(), req, quiet(io.Discard, journal))
				require.NoError(t, err)
				require.Regexp(t, `^the run's record could not be closed: .*; 1 channel told$`, got.Message)
				require.Equal(t, map[string]string{task.OutputRecord: ""}, got.Outputs)
			}
			require.Equal(t, 1, measured)
			require.Len(t, far.told, 1)
			e := far.told[0]
			require.Equal(t, []string{"failed", "shop", "shop-1", "uid-1", req.Commit, "main", "https://argo.example.com/workflows/team/shop-1", ""},
				[]string{e.Event, e.Pipeline, e.Run, e.RunUID, e.Commit, e.Branch, e.RunURL, e.RecordURL})
			require.NotEmpty(t, e.RecordError)
			// What no record says is asked of the Workflow.
			require.Equal(t, []string{"StackFailed", "deploy-env-dev", "StackFailed", tt.cause}, []string{e.Reason, e.Failed.Stage, e.Failed.Reason, e.Failed.Message})
			require.Equal(t, []string{"dev"}, e.Environments)
		})
	}
}

// A retry sends the figures of its own stages, one that was only asked again
// none.
func TestRun_MeasuresEachStageOnce(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	began := begin(t, bucket)
	var since []time.Time
	finished := func(journal *effects.Memory) *record.Metrics {
		_, err := finish.New(finish.Config{Records: record.New(bucket), Figures: func(_ context.Context, _ record.Run, from time.Time) error {
			since = append(since, from)
			return nil
		}}).Run(t.Context(), request("Failed"), quiet(io.Discard, journal))
		require.NoError(t, err)
		closed, err := record.New(bucket).Run(t.Context(), "uid-1")
		require.NoError(t, err)
		return closed.Metrics
	}
	first := &effects.Memory{}
	sent := finished(first)
	require.True(t, sent.Sent)
	require.Equal(t, sent, finished(first))
	require.Equal(t, []time.Time{{}}, since)

	require.NoError(t, record.New(bucket).Begin(t.Context(), record.Run{WorkflowID: "uid-1", TriggeredAt: began.Add(time.Hour)}))
	again := finished(&effects.Memory{})
	require.Equal(t, []time.Time{{}, *sent.Until}, since, "what had ended by the end of the first try is told")
	require.True(t, again.Until.After(*sent.Until))
}
