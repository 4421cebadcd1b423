package reconcile_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
)

func slack() pipeline.Notification {
	return pipeline.Notification{Type: pipeline.NotifySlack, Target: "ssm:/slack"}
}

func TestPass_TellsTheChannelsOfTheEnd(t *testing.T) {
	t.Parallel()
	for name, container := range map[string]bool{"plugin": false, "container": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.run("shop-1", "Failed", "Terminate", nil)
			b.begin(t, "shop-1", "build", "running")
			b.channels("shop-1", container, slack())
			output, err := b.pass(t)
			require.NoError(t, err)
			require.Contains(t, output, "told slack ssm:/slack of the end of run shop-1\n")

			rec := b.record(t, "shop-1")
			// The key is the one the finish stage would have used.
			key := notify.NewEvent(rec, began.Format(time.RFC3339), "", "").Key
			require.Equal(t, []string{
				"slack ssm:/slack " + key + " failed Terminated shop-1 https://argo.example.com/workflows/shop/shop-1 memory://runs/uid-shop-1/run.json",
			}, b.told)
			require.Equal(t, []record.Notification{{Type: "slack", Target: "ssm:/slack", Status: record.NotificationSent, Key: key}}, rec.Notifications)

			_, err = b.pass(t)
			require.NoError(t, err)
			require.Len(t, b.told, 1, "a record that is closed is told of once")
		})
	}
}

// What finish said of the same end is not said again; of another end it is.
func TestPass_DoesNotRepeatWhatFinishHasSaid(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run("shop-1", "Failed", "Terminate", nil)
	b.begin(t, "shop-1", "build", "running") // a stage that goes on keeps the record from being closed
	rec := b.record(t, "shop-1")
	rec.Status, rec.CompletedAt = record.Failed, &ended
	var err error
	rec.Stages, err = b.records.Stages(t.Context(), "uid-shop-1")
	require.NoError(t, err)
	key := notify.NewEvent(rec, began.Format(time.RFC3339), "", "").Key
	sns := pipeline.Notification{Type: pipeline.NotifySNS, Target: "arn:aws:sns:eu-west-1:111111111111:shop"}
	rec.Notifications = []record.Notification{
		{Type: "slack", Target: "ssm:/slack", Status: record.NotificationSent, Key: key},
		{Type: sns.Type, Target: sns.Target, Status: record.NotificationSent, Key: "aphex-of-an-earlier-try"},
	}
	require.NoError(t, b.records.Put(t.Context(), rec))
	b.channels("shop-1", false, slack(), sns)
	_, err = b.pass(t)
	require.NoError(t, err)
	require.Len(t, b.told, 1)
	require.True(t, strings.HasPrefix(b.told[0], sns.Type+" "+sns.Target+" "+key+" "), b.told[0])
	for _, told := range b.record(t, "shop-1").Notifications {
		require.Equal(t, key, told.Key)
	}
}

// Killed at any write, the passes after it tell every channel, each time with
// the same key.
func TestPass_KilledWhileItTells(t *testing.T) {
	t.Parallel()
	for n := range int64(6) {
		b := newBench(t)
		b.run("shop-1", "Failed", "Terminate", nil)
		b.begin(t, "shop-1", "validate", "running", "build", "running")
		b.channels("shop-1", false, slack())
		b.kill(n)
		_, _ = b.pass(t) // its error is the kill
		b.revive()
		_, err := b.pass(t)
		require.NoError(t, err)
		require.NotEmpty(t, b.told)
		for _, e := range b.events {
			require.Equal(t, b.events[0].Key, e.Key)
		}
		require.Len(t, b.record(t, "shop-1").Notifications, 1)
	}
}

func TestPass_ClosesTheRecordThoughNobodyCanBeTold(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run("shop-1", "Failed", "Terminate", nil)
	b.begin(t, "shop-1", "build", "running")
	b.channels("shop-1", false, slack())
	b.refuse = true
	output, err := b.pass(t)
	require.NoError(t, err)
	require.Contains(t, output, "could not tell slack ssm:/slack of the end of run shop-1: the answer is 404\n")
	rec := b.record(t, "shop-1")
	require.Equal(t, record.Failed, rec.Status)
	require.Equal(t, record.NotificationFailed, rec.Notifications[0].Status)

	b.run("shop-2", "Failed", "Terminate", nil)
	b.channels("shop-2", false, slack())
	b.refuse, b.dryRun = false, true
	_, err = b.pass(t)
	require.NoError(t, err)
	require.Empty(t, b.told, "a dry run tells nobody")
}

func TestPass_ATemplateNobodyUnderstandsTellsNobody(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run("shop-1", "Failed", "Terminate", nil)
	w := b.api.Get("workflows", "shop", "shop-1")
	w["status"].(map[string]any)["storedWorkflowTemplateSpec"] = map[string]any{"templates": []any{
		map[string]any{"name": "finish", "plugin": map[string]any{"aphex": map[string]any{"notifications": "{"}}},
	}}
	b.api.Put("workflows", w)
	output, err := b.pass(t)
	require.NoError(t, err)
	require.Contains(t, output, "told nobody of the end of run shop-1")
	require.Equal(t, record.Failed, b.record(t, "shop-1").Status)
}
