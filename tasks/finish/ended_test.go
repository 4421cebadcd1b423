package finish_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/testkit/effects"
	"github.com/aphex-pipeline/aphex/tasks/finish"
)

// cut ends the stage's context while the channels are told.
type cut struct {
	*town

	end context.CancelCauseFunc
}

var errDrained = errors.New("the pod is being removed")

func (c cut) Announce(ctx context.Context, channels []pipeline.Notification, e notify.Event, skip func(n int) bool, sent func(n int)) []record.Notification {
	c.end(errDrained)
	return c.town.Announce(ctx, channels, e, skip, sent)
}

// A stage that was ended has told nobody for good: the next pod, or a pass of
// reconcile, tells those who have not heard.
func TestRun_ThatIsEndedHasNoOutcome(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	begin(t, bucket)
	req := request("Failed")
	req.Notifications = notify.Plan{Channels: []pipeline.Notification{
		{Type: pipeline.NotifySlack, Target: "ssm:/a"}, {Type: pipeline.NotifyWebhook, Target: "ssm:/b"},
	}}.Encode()
	far, journal := &town{away: map[int]bool{1: true}}, &effects.Memory{}
	env := quiet(io.Discard, journal)
	ctx, end := context.WithCancelCause(t.Context())
	_, err := finish.New(finish.Config{Records: record.New(bucket), News: cut{far, end}}).Run(ctx, req, env)
	require.ErrorIs(t, err, errDrained)

	far.away = nil
	got, err := finish.New(finish.Config{Records: record.New(bucket), News: far}).Run(t.Context(), req, env)
	require.NoError(t, err)
	require.Contains(t, got.Message, "2 channels told")
}

// asleep is a bucket that never answers.
type asleep struct{}

func (asleep) Finish(ctx context.Context, run record.Run, status record.Status, at time.Time) (record.Run, string, error) {
	<-ctx.Done()
	run.Status, run.CompletedAt = status, &at
	return run, "", context.Cause(ctx)
}

func (asleep) Put(ctx context.Context, _ record.Run) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// drowsy is one that falls asleep after it has closed the record.
type drowsy struct{ *record.Recorder }

func (drowsy) Put(ctx context.Context, run record.Run) error { return asleep{}.Put(ctx, run) }

// A bucket that hangs keeps nobody from being told, and the run from no end.
func TestRun_TellsThoughTheBucketHangs(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	begin(t, bucket)
	for message, cfg := range map[string]finish.Config{
		"the run's record could not be closed: ": {Records: asleep{}},
		"run failed in ":                         {Records: drowsy{record.New(bucket)}},
	} {
		synctest.Test(t, func(t *testing.T) {
			req := request("Failed")
			req.Notifications = notify.Plan{Channels: []pipeline.Notification{{Type: pipeline.NotifySlack, Target: "ssm:/a"}}}.Encode()
			cfg.News = &town{}
			began := time.Now()
			got, err := finish.New(cfg).Run(t.Context(), req, quiet(io.Discard, &effects.Memory{}))
			require.NoError(t, err)
			require.Contains(t, got.Message, message)
			require.Contains(t, got.Message, "1 channel told")
			require.Less(t, time.Since(began), 5*time.Minute)
		})
	}
}
