package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// rerun is a row of docs/spec/reruns.md.
type rerun struct {
	name string
	run  func(s *scene)
	// differs says that something is different with a pod for each stage.
	differs bool
}

// story is what somebody does to a pipeline, one row after the other: a row may
// go on with the run of the one before it.
type story struct {
	name string
	rows []rerun
}

// scene is a small pipeline and somebody in front of Argo's user interface.
type scene struct {
	*testing.T
	ctx    context.Context
	lab    *lab.Lab
	argo   *lab.Server
	p      *lab.Pipeline
	commit string
	ledger *ledger
	// pods says that each stage has a pod of its own.
	pods bool
	// run, status and install are what a row leaves to the next one; install
	// brings the pipeline's installation back.
	run     *lab.Run
	status  lab.Status
	install func()
}

// TestReruns does what a person can do to a run, through the API of Argo's
// server, and looks at what runs again: with either runner.
//
// Feature: aphex-pipeline, Property 23: Just-in-time synthesis
func TestReruns(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	for _, kind := range []runner{pluginRunner(), containerRunner()} {
		for n, story := range reruns() {
			t.Run(kind.name+"/"+story.name, func(t *testing.T) {
				t.Parallel()
				s := &scene{lab: l, argo: server(t, l), pods: kind == containerRunner()}
				s.p, s.commit, s.ledger = newSmall(t, l, "rerun-"+string(rune('a'+n))+kind.suffix, kind.use)
				for _, row := range story.rows {
					passed := t.Run(row.name, func(t *testing.T) {
						s.T, s.ctx = t, limited(t)
						row.run(s)
					})
					if !passed {
						return
					}
				}
			})
		}
	}
}

// TestReruns_AreTheRowsOfTheirPage: each row of the table names the test that
// proves it and says whether a pod for each stage is different, and no test is
// left out.
func TestReruns_AreTheRowsOfTheirPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "docs", "spec", "reruns.md"))
	require.NoError(t, err)
	named := map[string]bool{}
	for _, match := range regexp.MustCompile("(?m)^\\|.*\\| ([^|]+) \\| `([a-z_]+)` \\|$").FindAllStringSubmatch(string(page), -1) {
		require.NotContains(t, named, match[2])
		named[match[2]] = match[1] != "the same"
	}
	rows := map[string]bool{}
	for _, story := range reruns() {
		for _, row := range story.rows {
			rows[strings.ReplaceAll(row.name, " ", "_")] = row.differs
		}
	}
	require.Equal(t, rows, named, "tests, and whether they differ with a pod for each stage")
}

func reruns() []story {
	return []story{
		{"succeeded", []rerun{
			{name: "submit", run: submitRow},
			{name: "retry of a succeeded run", run: retrySucceededRow},
			{name: "restart from a stage", run: restartRow},
			{name: "resubmit", run: resubmitRow},
		}},
		{"failed deployment", []rerun{
			{name: "resubmit memoized", run: memoizedRow, differs: true},
			{name: "retry after a failed deployment", run: retryRow},
		}},
		{"suspended", []rerun{
			{name: "suspend and resume", run: suspendRow},
		}},
		{"stopped", []rerun{
			{name: "stop", run: stopRow, differs: true},
			{name: "stop and retry", run: stopRetryRow},
		}},
		{"terminated", []rerun{
			{name: "terminate", run: terminateRow, differs: true},
			{name: "terminate and retry", run: terminateRetryRow},
		}},
		{"failed deploy pipeline", []rerun{
			{name: "failed deploy pipeline", run: deployPipelineRow},
			{name: "failed deploy pipeline and a later failure", run: deployPipelineRetryRow},
		}},
	}
}

// all is one run of each command.
func all() map[string]int { return map[string]int{"build": 1, "synth": 1, "test": 1} }

func (s *scene) submit() *lab.Run {
	s.Helper()
	var run *lab.Run
	s.patiently("not found", func() (err error) { // server and controller have templates in a cache
		if run, err = s.argo.Submit(s.ctx, s.p, s.commit); err != nil {
			return err
		}
		status, err := run.Until(s.ctx, "the run begins", func(status lab.Status) bool { return status.Phase != "" })
		if err == nil && status.Phase == "Error" {
			err = errors.New(status.Message)
		}
		return err
	})
	return run
}

// patiently does again what fails for a reason that passes, as a person would.
func (s *scene) patiently(passes string, do func() error) {
	s.Helper()
	for {
		err := do()
		if err == nil {
			return
		}
		require.ErrorContains(s, err, passes)
		select {
		case <-s.ctx.Done():
			require.NoError(s, err)
		case <-time.After(time.Second):
		}
	}
}

func (s *scene) act(run *lab.Run, action string, options map[string]any) *lab.Run {
	s.Helper()
	if action == "retry" {
		require.NoError(s, run.Settled(s.ctx))
	}
	var again *lab.Run
	s.patiently("the object has been modified", func() (err error) { // by the controller, at the same moment
		again, err = s.argo.Act(s.ctx, run, action, options)
		return err
	})
	return again
}

// ends waits for the end of a run and checks its phase and what it ran.
func (s *scene) ends(run *lab.Run, phase string, ran map[string]int) lab.Status {
	s.Helper()
	status, err := run.Wait(s.ctx)
	require.NoError(s, err)
	require.Equal(s, phase, status.Phase, "%+v", status)
	require.Equal(s, ran, s.ledger.ran(), "%+v", status)
	return status
}

// until waits for a command to begin.
func (s *scene) until(run *lab.Run, what string) lab.Status {
	s.Helper()
	status, err := run.Until(s.ctx, what+" begins", func(lab.Status) bool { return s.ledger.began(what) })
	require.NoError(s, err)
	return status
}

func submitRow(s *scene) {
	s.run = s.submit()
	requirePhases(s.T, s.ends(s.run, "Succeeded", all()), map[string]string{
		"validate": "Succeeded", "build": "Succeeded", "deploy-pipeline": "Succeeded", "deploy-dev": "Succeeded", "test-dev": "Succeeded",
	})
}

func retrySucceededRow(s *scene) {
	_, err := s.argo.Act(s.ctx, s.run, "retry", nil)
	require.ErrorContains(s, err, "To retry a succeeded workflow")
	require.Empty(s, s.ledger.ran())
}

func restartRow(s *scene) {
	s.act(s.run, "retry", map[string]any{"restartSuccessful": true, "nodeFieldSelector": "displayName=deploy-dev"})
	s.ends(s.run, "Succeeded", map[string]int{"synth": 1, "test": 1})
	s.act(s.run, "retry", map[string]any{"restartSuccessful": true, "nodeFieldSelector": "displayName=build"})
	s.ends(s.run, "Succeeded", all())
}

func resubmitRow(s *scene) {
	again := s.act(s.run, "resubmit", nil)
	require.NotEqual(s, s.run.Name, again.Name)
	status := s.ends(again, "Succeeded", all())
	require.Contains(s, status.Node("deploy-dev").Message, "no change")
}

func memoizedRow(s *scene) {
	s.ledger.fail("synth", true)
	s.run = s.submit()
	s.status = s.ends(s.run, "Failed", map[string]int{"build": 1, "synth": 1})
	s.ledger.fail("synth", false)
	again := s.act(s.run, "resubmit", map[string]any{"memoized": true})
	status, err := again.Wait(s.ctx)
	require.NoError(s, err)
	// Argo's controller may trip over the nodes that it copied, and give the
	// run up before it has all answers.
	tripped, phase := !s.pods && status.Phase == "Error" && strings.HasSuffix(status.Message, " already initialized"), "Failed"
	if tripped {
		phase = "Error"
	}
	s.ends(again, phase, map[string]int{})
	if s.pods {
		require.Contains(s, status.Node("deploy-dev").Message, "["+string(fault.OutOfOrder)+"]", "%+v", status)
		require.Equal(s, "Omitted", status.Node("test-dev").Phase, "%+v", status)
		return
	}
	for _, node := range status.Nodes {
		if node.Type == "Plugin" && !strings.Contains(node.Name, "onExit") && (!tripped || node.Phase != "Pending") {
			require.Contains(s, node.Message, "["+string(fault.OutOfOrder)+"]", node.Display)
		}
	}
}

func retryRow(s *scene) {
	s.act(s.run, "retry", nil)
	status := s.ends(s.run, "Succeeded", map[string]int{"synth": 1, "test": 1})
	require.Equal(s, s.status.UID, status.UID)
	first := s.status.Node("deploy-dev").Output("log-url")
	require.NotEqual(s, first, status.Node("deploy-dev").Output("log-url"), "the first try's log is kept")
	require.Contains(s, object(s.T, s.lab, first), "deploy-dev Failed")
}

func suspendRow(s *scene) {
	release := s.ledger.hold("build")
	defer release()
	run := s.submit()
	s.until(run, "build")
	s.act(run, "suspend", nil)
	release()
	require.Never(s, func() bool { return s.ledger.began("synth") }, 8*time.Second, 100*time.Millisecond, "the next stage began although the run is suspended")
	s.act(run, "resume", nil)
	s.ends(run, "Succeeded", all())
}

// interrupt starts a run, does action to it while it builds, and waits for its
// end.
func (s *scene) interrupt(action string) {
	s.Helper()
	release := s.ledger.hold("build")
	s.Cleanup(release)
	s.run = s.submit()
	s.until(s.run, "build")
	s.act(s.run, action, nil)
	s.status = s.ends(s.run, "Failed", map[string]int{"build": 1})
	require.Equal(s, "Failed", s.status.Node("build").Phase)
}

func stopRow(s *scene) {
	s.interrupt("stop")
	// The second is Argo's own word, which stays if the exit handler ends the
	// run before the controller takes the stage's last one.
	require.Regexp(s, `\[`+string(fault.Cancellation)+`\]|^Stopped with strategy 'Stop'$`, s.status.Node("build").Message)
	rec := s.record(s.status)
	require.Equal(s, record.Failed, rec.Status, "the exit handler closed the record")
	require.NotNil(s, rec.CompletedAt)
	at := slices.IndexFunc(rec.Stages, func(stage record.Stage) bool { return stage.Stage == task.StageBuild })
	require.Equal(s, string(fault.Cancellation), rec.Stages[at].Reason)
}

func stopRetryRow(s *scene) {
	s.act(s.run, "retry", nil)
	s.ends(s.run, "Succeeded", all())
}

func terminateRow(s *scene) {
	release := aloneWithReconciler(s.T)
	s.interrupt("terminate")
	require.Equal(s, record.Running, s.record(s.status).Status, "nobody closes the record but aphex reconcile")
	release()
	_, err := s.run.Until(s.ctx, "no pod is at work", func(lab.Status) bool {
		pods, err := s.lab.Pods(s.ctx, s.run)
		if s.pods { // those of stages stay, for whoever looks for the reason
			return err == nil && len(pods) == 2 && !slices.ContainsFunc(pods, lab.Pod.AtWork)
		}
		return err == nil && len(pods) == 0
	})
	require.NoError(s, err)
	require.Empty(s, s.ledger.ran())
}

func terminateRetryRow(s *scene) {
	s.act(s.run, "retry", nil)
	s.ends(s.run, "Succeeded", all())
}

// uninstall removes the pipeline's installation, so that deploy-pipeline
// fails, and returns what brings it back.
func (s *scene) uninstall() (install func()) {
	s.Helper()
	name, namespace := "configmap/aphex-pipeline-"+s.p.Installation.Pipeline, s.p.Installation.Namespace
	text, err := s.lab.Kubectl(s.ctx, nil, "get", name, "-n", namespace, "-o", "json")
	require.NoError(s, err)
	_, err = s.lab.Kubectl(s.ctx, nil, "delete", name, "-n", namespace)
	require.NoError(s, err)
	return func() {
		s.Helper()
		_, err := s.lab.Kubectl(s.ctx, []byte(text), "replace", "--force", "-f", "-")
		require.NoError(s, err)
	}
}

func deployPipelineRow(s *scene) {
	s.install = s.uninstall()
	run := s.submit()
	status := s.ends(run, "Succeeded", all())
	require.Equal(s, "Failed", status.Node("deploy-pipeline").Phase)
	require.Contains(s, status.Node("deploy-pipeline").Message, "["+string(fault.InstallationMissing)+"]")
	_, err := s.argo.Act(s.ctx, run, "retry", nil)
	require.ErrorContains(s, err, "To retry a succeeded workflow")
}

func deployPipelineRetryRow(s *scene) {
	s.ledger.fail("test", true)
	run := s.submit()
	s.ends(run, "Failed", all())
	s.install()
	s.ledger.fail("test", false)
	s.act(run, "retry", nil)
	status := s.ends(run, "Succeeded", map[string]int{"test": 1})
	require.Equal(s, "Failed", status.Node("deploy-pipeline").Phase, "it is left as it is: what followed it had run")
	again := s.act(run, "resubmit", nil)
	status = s.ends(again, "Succeeded", all())
	require.Equal(s, "Succeeded", status.Node("deploy-pipeline").Phase)
}

func (s *scene) record(status lab.Status) record.Run {
	s.Helper()
	rec, err := s.p.Record(s.ctx, status.UID)
	require.NoError(s, err)
	return rec
}
