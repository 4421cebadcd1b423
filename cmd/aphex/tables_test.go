package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
)

func at(minute int) time.Time { return time.Date(2026, 11, 24, 6, minute, 0, 0, time.UTC) }

func TestTables_RunsAndStages(t *testing.T) {
	t.Parallel()
	failure := "deploy dev: resource Fn was rejected\nby \x1b[31mLambda"
	run := record.Run{
		WorkflowName: "shop-1", WorkflowID: "u1", Namespace: "team", Pipeline: "shop", CommitSHA: strings.Repeat("ab", 20), Branch: "main",
		Status: record.Failed, Reason: "StackFailed", TriggeredAt: at(0), CompletedAt: new(at(7)),
		Stages: []record.Stage{
			{StageName: "build", Status: record.Succeeded, StartedAt: at(1), CompletedAt: new(at(3)), Message: strings.Repeat("ü", 150)},
			{StageName: "deploy-env-dev", Status: record.Failed, StartedAt: at(3), CompletedAt: new(at(6)), Reason: "StackFailed", ErrorMessage: &failure},
		},
	}
	var out strings.Builder
	require.NoError(t, writeRuns(&out, []record.Run{run, {WorkflowName: "shop-0", Status: record.Running, TriggeredAt: at(1)}}, at(2), false))
	require.Equal(t, `RUN     COMMIT        BRANCH  STATUS   REASON       TRIGGERED            DURATION
shop-1  abababababab  main    failed   StackFailed  2026-11-24 06:00:00  7m0s
shop-0                -       running  -            2026-11-24 06:01:00  1m0s so far
`, out.String())

	out.Reset()
	require.NoError(t, writeRuns(&out, []record.Run{run}, at(2), true))
	require.Equal(t, `RUN     COMMIT        BRANCH  STATUS  REASON       TRIGGERED            DURATION  UID
shop-1  abababababab  main    failed  StackFailed  2026-11-24 06:00:00  7m0s      u1
`, out.String())

	out.Reset()
	run.Notifications = []record.Notification{{Type: "slack", Target: "ssm:/slack", Status: record.NotificationFailed, Error: "the answer is 404 Not Found: no_team"}}
	require.NoError(t, writeRun(&out, run, at(9)))
	require.Regexp(t, `(?m)^slack +failed +ssm:/slack +the answer is 404 Not Found: no_team$`, out.String())
	require.Contains(t, out.String(), "Status      failed (StackFailed)\n")
	require.Contains(t, out.String(), "build           succeeded  06:01:00  2m0s      -            "+strings.Repeat("ü", 100)+"…\n")
	require.Contains(t, out.String(), "deploy-env-dev  failed     06:03:00  3m0s      StackFailed  deploy dev: resource Fn was rejected by  [31mLambda\n",
		"nothing of another's words moves the terminal")
}

// What failed is told whole, however long: the cause is often at the end.
func TestTables_FailuresAreToldWhole(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("the stack could not be made, ", 8) + "since role " + strings.Repeat("r", 120) + "\x1b[1m may not. Ask its owner [StackFailed]"
	short := "command 2 exited with 1 [CommandFailed]"
	var out strings.Builder
	require.NoError(t, writeRun(&out, record.Run{Status: record.Failed, TriggeredAt: at(0), Stages: []record.Stage{
		{StageName: "build", Status: record.Failed, StartedAt: at(1), ErrorMessage: &short},
		{StageName: "deploy-env-dev", Status: record.Failed, StartedAt: at(2), ErrorMessage: &long},
		{StageName: "test-dev", Status: record.Failed, StartedAt: at(3), ErrorMessage: &short, Tests: &record.Tests{Failed: 1, FailedTests: []record.FailedTest{{Name: "t"}}}},
	}}, at(4)))
	_, below, found := strings.Cut(out.String(), "\n\ndeploy-env-dev:\n")
	require.True(t, found, out.String())
	message, tests, _ := strings.Cut(below, "\n\n")
	require.Equal(t, strings.ReplaceAll(long, "\x1b", " "), strings.ReplaceAll(strings.TrimPrefix(message, "  "), "\n  ", " "))
	for line := range strings.SplitSeq(message, "\n") {
		require.True(t, len(line) <= shownMessage+2 || !strings.Contains(strings.TrimSpace(line), " "), line)
	}
	require.True(t, strings.HasPrefix(tests, "TESTS "), tests)
	require.Equal(t, 2, strings.Count(out.String(), short), "what the table has whole is not repeated")
}

func TestWarnUnread(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	warnUnread(&out, []record.Unread{{UID: "u1", Name: "shop-1", TriggeredAt: at(1), Err: fault.Newf(fault.System, fault.StoreFailed, "read run.json", "", "no\nrecord\x1b[1m")}})
	require.Equal(t, "warning: run shop-1 (UID u1, triggered 2026-11-24 06:01:00) is not listed: read run.json: no record [1m [StoreFailed]\n", out.String())
}

// TestRecordedAs: what the list of runs calls a run is enough to find it.
func TestRecordedAs(t *testing.T) {
	t.Parallel()
	records := record.New(store.NewDir(t.TempDir()))
	for uid, name := range map[string]string{"u1": "shop-1", "u2": "shop-2", "u3": "shop-2"} {
		require.NoError(t, records.Begin(t.Context(), record.Run{WorkflowID: uid, WorkflowName: name, TriggeredAt: at(len(name) + int(uid[1]-'0'))}))
	}
	for name, want := range map[string]string{"shop-1": "u1", "u2": "u2", "never-recorded": "never-recorded"} {
		uid, err := recordedAs(t.Context(), records, name)
		require.NoError(t, err)
		require.Equal(t, want, uid)
	}
	_, err := recordedAs(t.Context(), records, "shop-2")
	require.Equal(t, fault.RunUnknown, fault.From(err).Reason)
	require.ErrorContains(t, err, "2 runs have had this name, the latest first: u3, u2")
	require.Contains(t, fault.From(err).Remedy, "UID")
}

func TestTables_Tests(t *testing.T) {
	t.Parallel()
	run := record.Run{WorkflowName: "shop-1", Status: record.Failed, TriggeredAt: at(0), Stages: []record.Stage{
		{StageName: "build", Status: record.Succeeded, StartedAt: at(1), CompletedAt: new(at(2))},
		{StageName: "test-dev", Status: record.Succeeded, StartedAt: at(2), CompletedAt: new(at(3)), Tests: &record.Tests{Total: 12, Passed: 10, Skipped: 2}},
		{StageName: "test-prod", Status: record.Failed, StartedAt: at(3), CompletedAt: new(at(4)), Tests: &record.Tests{Total: 4, Passed: 1, Failed: 3, FailedTests: []record.FailedTest{
			{Name: "t\x1b[1m1", Class: "smoke", Message: "expected 200, got 503"}, {Name: "smoke t2"},
		}}},
	}}
	var out strings.Builder
	require.NoError(t, writeRun(&out, run, at(9)))
	require.Contains(t, out.String(), `
TESTS      PASSED  FAILED  SKIPPED  FAILED TEST  WHY
test-dev   10      0       2        -
test-prod  1       3       0        smoke t [1m1  expected 200, got 503
                                    smoke t2
                                    and 1 more
`)

	out.Reset()
	run.Stages = run.Stages[:1]
	require.NoError(t, writeRun(&out, run, at(9)))
	require.NotContains(t, out.String(), "TESTS")
}

func TestTables_Metrics(t *testing.T) {
	t.Parallel()
	for want, m := range map[string]*record.Metrics{
		"none": nil, "sent": {Sent: true}, `not sent: put 3 figures: not you \[AWSRejected\]`: {Error: "put 3 figures: not you [AWSRejected]"},
	} {
		var out strings.Builder
		require.NoError(t, writeRun(&out, record.Run{TriggeredAt: at(0), CompletedAt: new(at(1)), Metrics: m}, at(9)))
		require.Regexp(t, "(?m)^Metrics +"+want+"$", out.String())
		out.Reset()
		require.NoError(t, writeRun(&out, record.Run{TriggeredAt: at(0)}, at(9)))
		require.NotContains(t, out.String(), "Metrics", "while it lasts nobody sends them")
	}
}

func TestTables_Artifacts(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	checksum := record.Checksum(strings.Repeat("ab", 32))
	require.NoError(t, writeArtifacts(&out, []record.Artifact{
		{Path: "site/index.html", ArtifactType: record.Package, SizeBytes: 4404019, Checksum: checksum, Timestamp: at(1), WorkflowName: "shop-1"},
		{Path: "app\x1b[31m", ArtifactType: record.Binary, Checksum: checksum, Timestamp: at(2), DiffersFrom: "s3://bucket/app"},
	}))
	require.Equal(t, `PATH             TYPE     SIZE     CHECKSUM             STORED               RUN     NOTE
site/index.html  package  4.2 MiB  sha256:abababababab  2026-11-24 06:01:00  shop-1  -
app [31m         binary   0 B      sha256:abababababab  2026-11-24 06:02:00  -       unlike the first build's
`, out.String())

	out.Reset()
	require.NoError(t, writeRun(&out, record.Run{Artifacts: &record.ArtifactTotal{Count: 3, SizeBytes: 4404019}}, at(1)))
	require.Contains(t, out.String(), "Artifacts  3, 4.2 MiB\n")
	out.Reset()
	require.NoError(t, writeRun(&out, record.Run{}, at(1)))
	require.NotContains(t, out.String(), "Artifacts")
}

func TestTables_Events(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.NoError(t, writeEvents(&out, []record.Events{{
		Environment: "dev", Account: "111111111111", Region: "eu-west-1", Stack: "shop-api", Truncated: true,
		Events: []record.Event{{Time: at(1), Status: "CREATE_FAILED", Type: "AWS::SSM::Parameter", LogicalID: "P", Path: "shop-api/P", Reason: "no"}},
	}, {Environment: "prod", Stack: "shop-api"}}))
	require.Equal(t, `shop-api in dev (account 111111111111, eu-west-1)
TIME                 STATUS         TYPE                 LOGICAL ID      REASON
2026-11-24 06:01:00  CREATE_FAILED  AWS::SSM::Parameter  P (shop-api/P)  no
…                    later ones were left out

shop-api in prod (account , )
TIME  STATUS  TYPE  LOGICAL ID  REASON
`, out.String())
}

func TestTables_EventsThatWereLeftOut(t *testing.T) {
	t.Parallel()
	event := func(minute int, status string) record.Event {
		return record.Event{Time: at(minute), Status: status, Type: "T", LogicalID: "P", Reason: "r"}
	}
	var out strings.Builder
	require.NoError(t, writeEvents(&out, []record.Events{{
		Environment: "dev", Account: "111111111111", Region: "eu-west-1", Stack: "api", Epoch: "2026-11-24T06:00:00Z", Attempt: 2,
		Truncated: true, Omitted: 7, OmittedAfter: 1, Events: []record.Event{event(1, "CREATE_IN_PROGRESS"), event(9, "CREATE_FAILED")},
	}}))
	require.Equal(t, `api in dev (account 111111111111, eu-west-1), try of 2026-11-24T06:00:00Z, attempt 2
TIME                 STATUS              TYPE  LOGICAL ID  REASON
2026-11-24 06:01:00  CREATE_IN_PROGRESS  T     P           r
…                    …                   …     …           7 were left out
2026-11-24 06:09:00  CREATE_FAILED       T     P           r
`, out.String())
}

// TestRecordFlags_FindTheBucket: the run's label leads to the installation,
// which leads to the bucket.
func TestRecordFlags_FindTheBucket(t *testing.T) {
	t.Parallel()
	server := kubetest.New(t)
	f := lookupFlags{namespace: "team"}
	_, _, err := f.find(t.Context(), server.Client(t), "shop-1")
	require.ErrorContains(t, err, "there is no such Workflow")
	f.pipeline = "shop"
	uid, name, err := f.find(t.Context(), server.Client(t), "uid-1")
	require.NoError(t, err)
	require.Equal(t, []string{"uid-1", "shop"}, []string{uid, name})
}
