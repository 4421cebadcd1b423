package cfn

import (
	"testing"
	"time"

	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/stretchr/testify/require"
)

// What the stack itself says counts only as far as it can be about our
// operation: reads lag behind.
func TestWatcher_JudgesTheStackAsRead(t *testing.T) {
	t.Parallel()
	now := time.Now()
	tests := map[string]struct {
		watcher watcher
		read    cfntypes.StackStatus
		want    Status
	}{
		"an end before anything began is the one of before": {watcher{started: now}, "UPDATE_COMPLETE", ""},
		"an end that no event explains, after a while":      {watcher{started: now.Add(-2 * staleRead)}, "UPDATE_COMPLETE", "UPDATE_COMPLETE"},
		"an end after it was seen at work":                  {watcher{started: now, began: true}, "UPDATE_ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"},
		"still at work":                                     {watcher{started: now.Add(-2 * staleRead)}, "UPDATE_IN_PROGRESS", "UPDATE_IN_PROGRESS"},
		"the end that the events tell":                      {watcher{started: now, final: "CREATE_COMPLETE", finalAt: now}, "CREATE_COMPLETE", "CREATE_COMPLETE"},
		"events that are ahead of the stack":                {watcher{started: now, final: "CREATE_COMPLETE", finalAt: now}, "CREATE_IN_PROGRESS", ""},
		"events that stay ahead of the stack":               {watcher{started: now, final: "CREATE_COMPLETE", finalAt: now.Add(-2 * lag)}, "CREATE_IN_PROGRESS", "CREATE_COMPLETE"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := tt.watcher
			require.Equal(t, tt.want, w.judge(&cfntypes.Stack{StackStatus: tt.read}))
		})
	}
}
