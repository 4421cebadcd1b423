package conformance

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/plugin/server"
	"github.com/aphex-pipeline/aphex/plugin/sidecar"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

var (
	build  = step{stage: task.StageBuild}
	finish = step{stage: task.StageFinish}
	test   = step{stage: task.StageTest, name: "dev"}
)

// aphexWith is a world with the plugin and one agent.
func aphexWith(t *testing.T, stages task.Registry, changes ...func(*sidecar.Config)) *world {
	t.Helper()
	w := newWorld(t)
	w.startPlugin("pod-1", stages, changes...)
	w.startAgent(brief(), w.tap.url())
	return w
}

// Every end a stage can take reaches the node, with all that was declared.
func TestPlugin_FinalReplies(t *testing.T) {
	t.Parallel()
	rows := map[string]struct {
		runner  task.Runner
		phase   wfv1.NodePhase
		message string
		exit    string
	}{
		"success": {returns(task.Result{Message: "built", Outputs: map[string]string{task.OutputSnapshot: "s3://b/s"}}, nil), "Succeeded", "built", "0"},
		"the user's failure": {
			returns(task.Result{}, fault.Newf(fault.User, fault.CommandFailed, "run npm test", "Mend it", "exit 1")), "Failed", "[CommandFailed]", "1",
		},
		"one that passes": {
			returns(task.Result{}, fault.Newf(fault.Transient, fault.KubernetesRejected, "read x", "Retry", "away")), "Failed", "[KubernetesRejected]", "75",
		},
		"an error of ours":    {returns(task.Result{}, errors.New("connection refused: i/o timeout")), "Error", "connection refused", "125"},
		"a panic":             {task.RunnerFunc(func(context.Context, task.Request, task.Env) (task.Result, error) { panic("boom") }), "Error", "boom", "125"},
		"a result of nothing": {returns(task.Result{}, nil), "Succeeded", "build succeeded", "0"},
		"an oversized output": {
			returns(task.Result{Message: "built", Outputs: map[string]string{task.OutputSnapshot: strings.Repeat("x", 40<<10)}}, nil), "Failed", "[OutputTooLarge]", "1",
		},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := aphexWith(t, task.Registry{task.StageBuild: row.runner})
			w.schedule(build)
			result := w.final(build)
			require.Equal(t, row.phase, result.Phase)
			require.Contains(t, result.Message, row.message)
			require.Equal(t, row.exit, *result.Outputs.ExitCode)
			for _, output := range task.Outputs(task.StageBuild) {
				require.Contains(t, parameters(&result), output)
			}
			w.reconcile()
			require.Empty(t, w.tasks())
			require.Equal(t, string(row.phase), w.phase(build))
		})
	}
}

func TestPlugin_RunningThenQuietPollsThenFinal(t *testing.T) {
	t.Parallel()
	g := newGate()
	w := aphexWith(t, task.Registry{task.StageBuild: g})
	w.schedule(build)
	require.Equal(t, "build is running", w.result(build, wfv1.NodeRunning).Message)
	quiet := func(e exchange) bool { return strings.HasPrefix(string(e.body), `{"node":{},`) }
	w.until("quiet polls", func() bool { return w.tap.count(quiet) >= 3 })
	require.Equal(t, 1, w.tap.count(func(e exchange) bool { return strings.Contains(string(e.body), "Running") }), "one report is enough")
	g.release()
	require.Equal(t, wfv1.NodeSucceeded, w.final(build).Phase)
	require.Equal(t, [2]int{1, 1}, g.counts())
}

func TestPlugin_StayPendingReportsNothing(t *testing.T) {
	t.Parallel()
	g := newGate()
	w := aphexWith(t, task.Registry{task.StageBuild: g}, func(c *sidecar.Config) { c.StayPending = true })
	w.schedule(build)
	w.until("polls", func() bool { return w.tap.count(func(exchange) bool { return true }) >= 4 })
	require.Empty(t, w.results())
	g.release()
	require.Equal(t, wfv1.NodeSucceeded, w.final(build).Phase)
}

func TestPlugin_AQuickStageIsOneCall(t *testing.T) {
	t.Parallel()
	w := aphexWith(t, task.Registry{task.StageBuild: returns(done(), nil)}, func(c *sidecar.Config) { c.FirstPoll, c.LongPoll = 10*time.Second, 10*time.Second })
	w.schedule(build)
	w.final(build)
	require.Len(t, w.tap.exchanges(), 1)
}

func TestPlugin_ForeignTemplatesGoToTheNextPlugin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.startPlugin("pod-1", task.Registry{})
	other := newScripted(t, always(http.StatusOK, succeeded))
	w.startAgent(brief(), w.tap.url(), other.http.URL)
	foreign := step{stage: subject.stage, plugin: "hello"}
	w.schedule(foreign)
	require.Equal(t, wfv1.NodeSucceeded, w.final(foreign).Phase)
	require.Equal(t, 1, w.tap.count(func(e exchange) bool { return string(e.body) == `{}` }))
}

func TestPlugin_AnUnresolvedTagFailsTheStage(t *testing.T) {
	t.Parallel()
	g := newGate()
	w := aphexWith(t, task.Registry{task.StageBuild: g})
	tagged := step{stage: task.StageBuild, more: map[string]any{"commit": "{{body.after}}"}}
	w.schedule(tagged)
	require.Contains(t, w.final(tagged).Message, "[UnresolvedTag]")
	require.Equal(t, [2]int{0, 0}, g.counts())
}

func TestPlugin_ABodyThatCannotBeReadFailsTheStage(t *testing.T) {
	t.Parallel()
	w := aphexWith(t, task.Registry{})
	odd := step{stage: task.StageBuild, more: map[string]any{"branch": []any{"main"}}}
	w.schedule(odd)
	require.Contains(t, w.final(odd).Message, "[BadRequest]")
}

func TestPlugin_AnUnknownStageFails(t *testing.T) {
	t.Parallel()
	w := aphexWith(t, task.Registry{})
	lunch := step{stage: "lunch"}
	w.schedule(lunch)
	require.Contains(t, w.final(lunch).Message, "[UnknownStage]")
}

func TestPlugin_SiblingsInOneTickDoNotRuinEachOther(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 40<<10)
	w := newWorld(t)
	w.kube.Deny(tooLarge(3 << 20)) // as the API server does
	w.startPlugin("pod-1", task.Registry{
		task.StageBuild:     returns(task.Result{Message: "built", Outputs: map[string]string{task.OutputSnapshot: large}}, nil),
		task.StageDeployEnv: returns(task.Result{Message: "deployed", Outputs: map[string]string{task.OutputStacks: large[:16<<10]}}, nil),
	})
	steps := []step{build}
	for _, name := range []string{"a", "b", "c", "d"} {
		steps = append(steps, step{stage: task.StageDeployEnv, name: name})
	}
	w.schedule(steps...)
	w.startAgent(brief(), w.tap.url())
	require.Contains(t, w.final(build).Message, "[OutputTooLarge]")
	for _, s := range steps[1:] {
		require.Equal(t, wfv1.NodeSucceeded, w.final(s).Phase)
	}
}

func TestPlugin_MoreStagesThanWorkersAllEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.workers = "2"
	g := newGate()
	w.startPlugin("pod-1", task.Registry{task.StageDeployEnv: g})
	w.startAgent(brief(), w.tap.url())
	var steps []step
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		steps = append(steps, step{stage: task.StageDeployEnv, name: name})
	}
	w.schedule(steps...)
	w.until("all run, although the agent has two workers", func() bool { return g.counts()[1] == len(steps) })
	g.release()
	for _, s := range steps {
		require.Equal(t, wfv1.NodeSucceeded, w.final(s).Phase)
	}
}

func TestPlugin_AWrongTokenIsRefusedAndNothingRuns(t *testing.T) {
	t.Parallel()
	g := newGate()
	w := newWorld(t)
	w.startPlugin("pod-1", task.Registry{task.StageBuild: g})
	w.token = "another"
	w.startAgent(brief(), w.tap.url())
	w.schedule(build)
	result := w.result(build, wfv1.NodeFailed)
	require.Contains(t, result.Message, "403")
	require.NotContains(t, result.Message, token)
	require.Equal(t, [2]int{0, 0}, g.counts())
}

// The plugin answers whatever is asked of it with something the agent can
// live with: 404, which would switch it off, is not among it.
func TestPlugin_NoRequestIsAnswered404(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.startPlugin("pod-1", task.Registry{task.StageBuild: returns(done(), nil)})
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, "BREW"} {
		for _, path := range []string{"/", server.ExecutePath + "/", "/api/v1/workflow.preOperate", "//api//v1/x", "/API/V1/template.execute", "/a?b=c", "/%2e%2e"} {
			for _, tok := range []string{token, "", "wrong"} {
				req, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.addr+path, strings.NewReader("{}"))
				require.NoError(t, err)
				req.Header.Set("Authorization", "Bearer "+tok)
				resp, err := http.DefaultClient.Do(req)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				require.Contains(t, []int{200, 403}, resp.StatusCode, "%s %s", method, path)
			}
		}
	}
	w.startAgent(brief(), w.tap.url())
	w.schedule(build)
	require.Equal(t, wfv1.NodeSucceeded, w.final(build).Phase)
}
