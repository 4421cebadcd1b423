package finish_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/testkit/effects"
	"github.com/aphex-pipeline/aphex/tasks/finish"
	"github.com/aphex-pipeline/aphex/tasks/task"
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
	env := task.Env{Output: io.Discard, Logger: slog.New(slog.DiscardHandler), Progress: func(string) {}, Effects: journal}
	ctx, end := context.WithCancelCause(t.Context())
	_, err := finish.New(finish.Config{Records: record.New(bucket), News: cut{far, end}}).Run(ctx, req, env)
	require.ErrorIs(t, err, errDrained)

	far.away = nil
	got, err := finish.New(finish.Config{Records: record.New(bucket), News: far}).Run(t.Context(), req, env)
	require.NoError(t, err)
	require.Contains(t, got.Message, "2 channels told")
}
