package e2e

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

// The reports of three tests, of which one is skipped: the only difference is
// one that fails.
const (
	failingReport = `<testsuites><testsuite name="smoke"><testcase classname="smoke" name="up"/>` +
		`<testcase classname="smoke" name="ready"><failure message="expected 200, got 503">at check.py:7</failure></testcase>` +
		`<testcase classname="smoke" name="fast"><skipped/></testcase></testsuite></testsuites>`
	passingReport = `<testsuites><testsuite name="smoke"><testcase classname="smoke" name="up"/>` +
		`<testcase classname="smoke" name="ready"/><testcase classname="smoke" name="fast"><skipped/></testcase></testsuite></testsuites>`
)

// TestReports_OfAFailedTestStopTheRun: a report of the test commands says that
// a test failed, although they exit 0. The node and the record name it, later
// environments are not touched, and the next commit, whose tests pass, goes all
// the way. What the commit itself has of reports does not count.
//
// Feature: aphex-pipeline, Property 13: Test result capture
func TestReports_OfAFailedTestStopTheRun(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	const name = "reports"
	p, _, ledger := newSmall(t, l, name)
	first := dev(name, ". ./ledger.sh; did test", "mkdir -p reports/now; cp smoke.xml reports/now/")
	first.reports = []string{"reports/**/*.xml"}
	cfg := config([]string{". ./ledger.sh; did build"}, first, environment{name: "prod", region: "eu-central-1", account: "222222222222", stack: name})
	ctx := limited(t)
	commit, err := p.Push(ctx, gitserver.Change{Message: "with reports", Write: map[string]string{
		"aphex-config.yaml": cfg, "smoke.xml": failingReport, "reports/of-the-commit.xml": failingReport,
	}})
	require.NoError(t, err)
	require.NoError(t, p.Apply(ctx, []byte(cfg)))

	_, status := finish(t, p, commit)
	require.Equal(t, "Failed", status.Phase, "%+v", status)
	node := status.Node("test-dev")
	require.Equal(t, "Failed", node.Phase)
	require.Contains(t, node.Message, "dev: 1 passed, 1 failed, 1 skipped: smoke ready (expected 200, got 503): ")
	require.Contains(t, node.Message, "["+string(fault.TestsFailed)+"]")
	require.Contains(t, []string{"Omitted", ""}, status.Node("deploy-prod").Phase)
	require.Contains(t, object(t, l, node.Output("log-url")), "tests: failed: smoke ready: expected 200, got 503\n")
	require.Equal(t, &record.Tests{Total: 3, Passed: 1, Failed: 1, Skipped: 1, FailedTests: []record.FailedTest{
		{Class: "smoke", Name: "ready", Message: "expected 200, got 503", Report: "reports/now/smoke.xml"},
	}}, recordedTests(t, p, status))

	commit, err = p.Push(ctx, gitserver.Change{Message: "mend it", Write: map[string]string{"smoke.xml": passingReport}})
	require.NoError(t, err)
	_, status = finish(t, p, commit)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Contains(t, status.Node("test-dev").Message, "dev: 2 passed, 0 failed, 1 skipped; 2 test commands passed in ")
	require.Equal(t, &record.Tests{Total: 3, Passed: 2, Skipped: 1}, recordedTests(t, p, status))
	require.Equal(t, 2, ledger.ran()["test"])
}

// recordedTests is what the record of a run has of the tests of dev.
func recordedTests(t *testing.T, p *lab.Pipeline, status lab.Status) *record.Tests {
	t.Helper()
	rec, err := p.Record(t.Context(), status.UID)
	require.NoError(t, err)
	for _, stage := range rec.Stages {
		if stage.StageName == "test-dev" {
			return stage.Tests
		}
	}
	t.Fatalf("no stage test-dev: %+v", rec)
	return nil
}
