package execution_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/plugin/argo"
	"github.com/aphex-pipeline/aphex/plugin/execution"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// A reply never has more than 64 KiB as it is sent, whatever is in it.
func TestEngine_RepliesStayWithinTheirBudget(t *testing.T) {
	t.Parallel()
	many := make([]argo.Declared, 9000)
	for i := range many {
		many[i].Name = "output-" + strconv.Itoa(i)
	}
	for name, c := range map[string]struct {
		result   task.Result
		declared []argo.Declared
	}{
		"characters that take six bytes": {result: task.Result{Message: "built", Outputs: map[string]string{"x": strings.Repeat("<", 20<<10)}}},
		"a template with too many names": {result: task.Result{Message: "built"}, declared: many},
		"a parameter that is too large":  {result: task.Result{Message: "built", Outputs: map[string]string{"x": strings.Repeat("x", 32<<10+1)}}},
		"parameters that are too many":   {result: task.Result{Message: "built", Outputs: map[string]string{"x": strings.Repeat("x", 32<<10), "y": strings.Repeat("y", 32<<10)}}},
		"a long message beside them":     {result: task.Result{Message: strings.Repeat("<", 1<<10), Outputs: map[string]string{"x": strings.Repeat("x", 32<<10), "y": strings.Repeat("y", 30<<10)}}},
		"a long message":                 {result: task.Result{Message: strings.Repeat("é", 100<<10)}},
		"the largest parameter":          {result: task.Result{Message: "built", Outputs: map[string]string{"x": strings.Repeat("x", 32<<10)}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, _ := boot(t, execution.Config{Runs: newScript(), Journal: journal.NewFiles(t.TempDir(), "pod"), Registry: task.Registry{
				task.StageBuild: task.RunnerFunc(func(context.Context, task.Request, task.Env) (task.Result, error) { return c.result, nil }),
			}})
			asked := call(task.StageBuild)
			asked.Outputs = c.declared
			reply := final(t, e, asked)
			require.LessOrEqual(t, len(reply.Encode()), 64<<10)
			require.LessOrEqual(t, len(reply.Node.Message), 1<<10)
			if name == "a long message" || name == "the largest parameter" {
				require.Equal(t, argo.Succeeded, reply.Node.Phase, reply.Node.Message)
			} else {
				require.Equal(t, argo.Failed, reply.Node.Phase)
				require.Contains(t, reply.Node.Message, "[OutputTooLarge]")
			}
		})
	}
}

// TestEngine_WorkerThatEndsWithItsPodFailsNothing: a pod that is deleted ends
// its worker a moment before the plugin hears of it. The stage is left to the
// next pod.
func TestEngine_WorkerThatEndsWithItsPodFailsNothing(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	e, _ := boot(t, execution.Config{Journal: journal.NewFiles(t.TempDir(), "pod"), FirstPoll: 500 * time.Millisecond, Registry: task.Registry{
		task.StageBuild: task.RunnerFunc(func(context.Context, task.Request, task.Env) (task.Result, error) {
			close(gone)
			return task.Result{}, fault.Newf(fault.Transient, fault.WorkerLost, "run command 1", "Retry the run", "the worker is shutting down")
		}),
	}})
	require.NotContains(t, string(e.Execute(t.Context(), call(task.StageBuild))), "WorkerLost")
	<-gone
	e.Drain(t.Context())
	require.NotContains(t, string(e.Execute(t.Context(), call(task.StageBuild))), "WorkerLost")
}
