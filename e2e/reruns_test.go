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

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
)

// rerunRunners are the runners that the rows are proven for.
func rerunRunners() []runner { return []runner{pluginRunner()} }

// rerun is a row of docs/spec/reruns.md.
type rerun struct {
	name string
	run  func(s *scene)
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
}

// TestReruns does what a person can do to a run, through the API of Argo's
// server, and looks at what runs again.
func TestReruns(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	for _, kind := range rerunRunners() {
		for n, row := range reruns() {
			t.Run(kind.name+"/"+row.name, func(t *testing.T) {
				t.Parallel()
				argo := server(t, l)
				p, commit, ledger := newSmall(t, l, "rerun-"+string(rune('a'+n))+kind.suffix, kind.use)
				row.run(&scene{T: t, ctx: limited(t), lab: l, argo: argo, p: p, commit: commit, ledger: ledger})
			})
		}
	}
}

// TestReruns_AreTheRowsOfTheirPage: each row of the table names the test that
// proves it, and no test is left out.
func TestReruns_AreTheRowsOfTheirPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "docs", "spec", "reruns.md"))
	require.NoError(t, err)
	var named []string
	for _, match := range regexp.MustCompile("(?m)`([a-z_]+)` \\|$").FindAllStringSubmatch(string(page), -1) {
		named = append(named, match[1])
	}
	var rows []string
	for _, row := range reruns() {
		rows = append(rows, strings.ReplaceAll(row.name, " ", "_"))
	}
	slices.Sort(named)
	slices.Sort(rows)
	require.Equal(t, rows, named)
}

func reruns() []rerun {
	return []rerun{
		{"submit", submitRow},
		{"retry after a failed deployment", retryRow},
		{"retry of a succeeded run", retrySucceededRow},
		{"restart from a stage", restartRow},
		{"resubmit", resubmitRow},
		{"resubmit memoized", memoizedRow},
		{"suspend and resume", suspendRow},
		{"stop", stopRow},
		{"stop and retry", stopRetryRow},
		{"terminate", terminateRow},
		{"terminate and retry", terminateRetryRow},
		{"failed deploy pipeline", deployPipelineRow},
		{"failed deploy pipeline and a later failure", deployPipelineRetryRow},
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
	require.EventuallyWithT(s, func(c *assert.CollectT) {
		err := do()
		if err != nil && !strings.Contains(err.Error(), passes) {
			require.NoError(s, err)
		}
		assert.NoError(c, err)
	}, runLimit, time.Second)
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
	status := s.ends(s.submit(), "Succeeded", all())
	requirePhases(s.T, status, map[string]string{
		"validate": "Succeeded", "build": "Succeeded", "deploy-pipeline": "Succeeded", "deploy-dev": "Succeeded", "test-dev": "Succeeded",
	})
}

func retryRow(s *scene) {
	s.ledger.fail("synth", true)
	run := s.submit()
	first := s.ends(run, "Failed", map[string]int{"build": 1, "synth": 1})
	s.ledger.fail("synth", false)
	s.act(run, "retry", nil)
	status := s.ends(run, "Succeeded", map[string]int{"synth": 1, "test": 1})
	require.Equal(s, first.UID, status.UID)
	require.NotEqual(s, first.Node("deploy-dev").Output("log-url"), status.Node("deploy-dev").Output("log-url"), "the first try's log is kept")
	require.Contains(s, object(s.T, s.lab, first.Node("deploy-dev").Output("log-url")), "deploy-dev Failed")
}

func retrySucceededRow(s *scene) {
	run := s.submit()
	s.ends(run, "Succeeded", all())
	_, err := s.argo.Act(s.ctx, run, "retry", nil)
	require.ErrorContains(s, err, "To retry a succeeded workflow")
	require.Empty(s, s.ledger.ran())
}

func restartRow(s *scene) {
	run := s.submit()
	s.ends(run, "Succeeded", all())
	s.act(run, "retry", map[string]any{"restartSuccessful": true, "nodeFieldSelector": "displayName=deploy-dev"})
	s.ends(run, "Succeeded", map[string]int{"synth": 1, "test": 1})
	s.act(run, "retry", map[string]any{"restartSuccessful": true, "nodeFieldSelector": "displayName=build"})
	s.ends(run, "Succeeded", all())
}

func resubmitRow(s *scene) {
	run := s.submit()
	s.ends(run, "Succeeded", all())
	again := s.act(run, "resubmit", nil)
	require.NotEqual(s, run.Name, again.Name)
	status := s.ends(again, "Succeeded", all())
	require.Contains(s, status.Node("deploy-dev").Message, "no change")
}

func memoizedRow(s *scene) {
	s.ledger.fail("test", true)
	run := s.submit()
	s.ends(run, "Failed", all())
	s.ledger.fail("test", false)
	again := s.act(run, "resubmit", map[string]any{"memoized": true})
	status := s.ends(again, "Failed", map[string]int{})
	for _, node := range status.Nodes {
		if node.Type == "Plugin" && !strings.Contains(node.Name, "onExit") {
			require.Contains(s, node.Message, "["+string(fault.OutOfOrder)+"]", node.Display)
		}
	}
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

// interrupted starts a run, does action to it while it builds, and waits for
// its end.
func (s *scene) interrupted(action string) (*lab.Run, lab.Status) {
	s.Helper()
	release := s.ledger.hold("build")
	s.Cleanup(release)
	run := s.submit()
	s.until(run, "build")
	s.act(run, action, nil)
	status := s.ends(run, "Failed", map[string]int{"build": 1})
	release()
	return run, status
}

func stopRow(s *scene) {
	_, status := s.interrupted("stop")
	require.Equal(s, "Failed", status.Node("build").Phase)
	require.Empty(s, status.Node("deploy-dev").Output("deployed"))
	rec := s.record(status)
	require.Equal(s, record.Failed, rec.Status, "the exit handler closed the record")
	require.NotNil(s, rec.CompletedAt)
}

func stopRetryRow(s *scene) {
	run, _ := s.interrupted("stop")
	s.act(run, "retry", nil)
	s.ends(run, "Succeeded", all())
}

func terminateRow(s *scene) {
	run, status := s.interrupted("terminate")
	require.Equal(s, "Failed", status.Node("build").Phase)
	require.Equal(s, record.Running, s.record(status).Status, "nobody closes the record but aphex reconcile")
	_, err := run.Until(s.ctx, "the pods are gone", func(lab.Status) bool {
		pods, err := s.lab.Pods(s.ctx, run)
		return err == nil && len(pods) == 0
	})
	require.NoError(s, err)
}

func terminateRetryRow(s *scene) {
	run, _ := s.interrupted("terminate")
	s.act(run, "retry", nil)
	s.ends(run, "Succeeded", all())
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
		_, err := s.lab.Kubectl(s.ctx, []byte(text), "replace", "--force", "-f", "-")
		require.NoError(s, err)
	}
}

func deployPipelineRow(s *scene) {
	s.uninstall()
	run := s.submit()
	status := s.ends(run, "Succeeded", all())
	require.Equal(s, "Failed", status.Node("deploy-pipeline").Phase)
	require.Contains(s, status.Node("deploy-pipeline").Message, "["+string(fault.InstallationMissing)+"]")
	_, err := s.argo.Act(s.ctx, run, "retry", nil)
	require.ErrorContains(s, err, "To retry a succeeded workflow")
}

func deployPipelineRetryRow(s *scene) {
	install := s.uninstall()
	s.ledger.fail("test", true)
	run := s.submit()
	s.ends(run, "Failed", all())
	install()
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
