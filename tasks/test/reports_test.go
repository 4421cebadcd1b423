package test_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/internal/workspace"
)

// withReports adds patterns to the tests section of an environment.
func withReports(section string, patterns ...string) string {
	return section + fmt.Sprintf("      reports: [\"%s\"]\n", strings.Join(patterns, `", "`))
}

// writes is a command that writes a report with cases: p, f and s for one that
// passes, fails and is skipped.
func writes(path, cases string) string {
	var text strings.Builder
	for n, kind := range cases {
		fmt.Fprintf(&text, "<testcase classname='smoke' name='t%d'>%s</testcase>", n, map[rune]string{
			'p': "", 'f': "<failure message='expected 200, got 503'/>", 's': "<skipped/>",
		}[kind])
	}
	return fmt.Sprintf(`mkdir -p "$(dirname '%[1]s')"; echo "<testsuite name='%[1]s'>%[2]s</testsuite>" > '%[1]s'`, path, text.String())
}

func TestReports_OfPassingTests(t *testing.T) {
	t.Parallel()
	b := newBench(t, withReports(tests(writes("reports/a.xml", "pps"), "cd smoke; "+writes("../reports/deep/b.xml", "p")), "reports/**/*.xml"))
	got, err := b.run(t.Context())
	require.NoError(t, err)
	require.Regexp(t, `^dev: 3 passed, 0 failed, 1 skipped; 2 test commands passed in [0-9.]+m?s$`, got.Message)
	require.Contains(t, b.log.String(), "tests: 3 passed, 0 failed, 1 skipped by 2 test reports\n")
	d := b.result(t)
	require.Equal(t, "passed", d.Status)
	require.Equal(t, &record.Tests{Total: 4, Passed: 3, Skipped: 1}, d.Tests)
	require.Equal(t, []record.TestSuite{
		{Name: "reports/a.xml", Report: "reports/a.xml", Passed: 2, Skipped: 1}, {Name: "../reports/deep/b.xml", Report: "reports/deep/b.xml", Passed: 1},
	}, d.Suites)
	require.Equal(t, []string{"reports/a.xml", "reports/deep/b.xml"}, d.Reports)
	require.Empty(t, d.Warnings)
}

// Both are said of a failure: the test, and the command that ran it.
func TestReports_OfAFailingCommand(t *testing.T) {
	t.Parallel()
	b := newBench(t, withReports(tests("true", writes("junit.xml", "ppfsf")+"; echo oh >&2; exit 3", "touch $HOME/later"), "junit.xml"))
	_, err := b.run(t.Context())
	require.Equal(t, fault.CommandFailed, fault.From(err).Reason)
	require.Equal(t, fault.User, fault.From(err).Class)
	require.Contains(t, fault.Message(err), "dev: 2 passed, 2 failed, 1 skipped: smoke t2 (expected 200, got 503): run command 2 of 3 (mkdir ")
	require.ErrorContains(t, err, "exit code 3")
	require.Contains(t, b.log.String(), "tests: failed: smoke t2: expected 200, got 503\ntests: failed: smoke t4: expected 200, got 503\n")
	d := b.result(t)
	require.Equal(t, "failed", d.Status)
	require.Equal(t, &record.Tests{Total: 5, Passed: 2, Failed: 2, Skipped: 1, FailedTests: []record.FailedTest{
		{Class: "smoke", Name: "t2", Message: "expected 200, got 503", Report: "junit.xml"}, {Class: "smoke", Name: "t4", Message: "expected 200, got 503", Report: "junit.xml"},
	}}, d.Tests)
}

// Feature: aphex-pipeline, Property 13: Test result capture
//
// Tests that failed stop what comes after them, whatever the command that ran
// them made of it.
func TestReports_FailuresFailTheStageAlthoughTheCommandsPassed(t *testing.T) {
	t.Parallel()
	b := newBench(t, withReports(tests(writes("junit.xml", "pf")+" || true"), "junit.xml"))
	got, err := b.run(t.Context())
	require.Empty(t, got)
	require.Equal(t, fault.TestsFailed, fault.From(err).Reason)
	require.Equal(t, fault.User, fault.From(err).Class)
	require.Equal(t, "dev: 1 passed, 1 failed, 0 skipped: smoke t1 (expected 200, got 503): judge the tests by their reports: the commands exited 0, but tests failed. "+
		"Mend the tests that failed; the log of the stage names them [TestsFailed]", fault.Message(err))
	d := b.result(t)
	require.Equal(t, "failed", d.Status)
	require.True(t, d.Commands[0].Passed)
	require.Equal(t, 1, d.Tests.Failed)
}

// What the commit has, or the build left, is no result of these tests.
func TestReports_FromBeforeTheCommandsDoNotCount(t *testing.T) {
	t.Parallel()
	const failing = "<testsuite><testcase name='old'><failure/></testcase></testsuite>"
	for name, tt := range map[string]struct {
		command, message string
	}{
		"nothing new":           {"true", "dev: no test report that the commands wrote matches old/*.xml (2 from before them); 1 test command"},
		"read, with a new mode": {"cat old/a.xml; chmod 600 old/*.xml; touch -r old/a.xml old/a.xml", "dev: no test report that the commands wrote matches old/*.xml (2 from before them); 1 test command"},
		"one beside them":       {writes("old/c.xml", "p"), "dev: 1 passed, 0 failed, 0 skipped; 1 test command"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, withReports(tests(tt.command), "old/*.xml"))
			b.shell(t, `mkdir old; echo "`+failing+`" | tee old/a.xml > old/b.xml`)
			_, err := b.Workspace.Snapshot(t.Context(), record.SnapshotKey("uid-1"), workspace.Selection{}, io.Discard)
			require.NoError(t, err)
			got, err := b.run(t.Context())
			require.NoError(t, err)
			require.Contains(t, got.Message, tt.message)
		})
	}
	for name, command := range map[string]string{
		"written again with the same content": `cat old/a.xml > "$TMPDIR/a"; cat "$TMPDIR/a" > old/a.xml`,
		"replaced by one of the same content": `cp -p old/a.xml old/n; mv old/n old/a.xml`,
		"added to":                            `echo >> old/a.xml`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, withReports(tests(command), "old/*.xml"))
			b.shell(t, `mkdir old; echo "`+failing+`" > old/a.xml`)
			_, err := b.Workspace.Snapshot(t.Context(), record.SnapshotKey("uid-1"), workspace.Selection{}, io.Discard)
			require.NoError(t, err)
			_, err = b.run(t.Context())
			require.Equal(t, fault.TestsFailed, fault.From(err).Reason, "%v", err)
		})
	}
}

// A report that is of no use is told, and fails nothing.
func TestReports_ThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		command string
		pattern string
		// message and warning are what the node and the result say.
		message, warning string
	}{
		"none":          {"true", "reports/**/*.xml", "dev: no test report matches reports/**/*.xml; 1 test", "no test report matches reports/**/*.xml"},
		"no XML":        {"echo '{}' > r.xml", "r.xml", "dev: test report r.xml cannot be understood: it holds no XML element; 1 test", ""},
		"another kind":  {"echo '<coverage/>' > r.xml", "r.xml", "dev: test report r.xml cannot be understood: line 1: it begins with <coverage>", ""},
		"half a report": {"printf '<testsuite><testcase/><testcase' > r.xml", "r.xml", "dev: 1 passed, 0 failed, 0 skipped; test report r.xml breaks off; the 1 test cases before count: XML syntax error on line 1: unexpected EOF; 1 test", ""},
		"too large":     {"truncate -s 16777217 r.xml", "r.xml", "dev: test report r.xml has 16777217 bytes and is not read: at most 16 MiB are; 1 test", ""},
		"too large together": {
			"for n in 1 2 3 4 5; do echo '<testsuite><testcase/></testsuite>' > $n.xml; truncate -s 16M $n.xml; done", "*.xml",
			"dev: 4 passed, 0 failed, 0 skipped", "1 test reports from 5.xml on are not read: at most 1000 with 64 MiB in all are",
		},
		"too many": {
			"mkdir r; for n in {1000..2010}; do echo '<testsuite><testcase/></testsuite>' > r/$n.xml; done", "r/",
			"dev: 1000 passed, 0 failed, 0 skipped; 11 test reports from r/2000.xml on are not read: at most 1000 with 64 MiB in all are; 1 test", "",
		},
		"many that are broken": {"mkdir r; for n in {10..40}; do echo > r/$n.xml; done", "r", "dev: test report r/10.xml cannot be understood: it holds no XML element; 30 more warnings in the log; 1 test", ""},
		"no files":             {"mkdir -p r/a.xml; mkfifo r/b.xml; ln -s ../aphex-config.yaml r/c.xml; ln -s /etc/passwd r/d.xml", "r/*.xml", "dev: no test report matches r/*.xml; 1 test", ""},
		"in git's folder":      {"echo '<testsuite><testcase/></testsuite>' > .git/r.xml", "r.xml", "dev: no test report matches r.xml; 1 test", ""},
		"an odd name":          {"echo > $'a\\nb\\033[31m\\xff.xml'", "*.xml", "dev: test report a b [31m\uFFFD.xml cannot be understood", ""},
		"no checkout any more": {"cd ..; rm -rf source", "*.xml", "dev: no test report matches *.xml; 1 test", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, withReports(tests(tt.command), tt.pattern))
			got, err := b.run(t.Context())
			require.NoError(t, err)
			require.Contains(t, got.Message, tt.message)
			d := b.result(t)
			require.Equal(t, "passed", d.Status)
			require.NotEmpty(t, d.Warnings)
			require.LessOrEqual(t, len(d.Warnings), 20)
			require.Contains(t, strings.Join(d.Warnings, "\n"), tt.warning)
			require.Contains(t, b.log.String(), "tests: warning: "+d.Warnings[0]+"\n")
		})
	}
}

func TestReports_OfAStoppedTest(t *testing.T) {
	t.Parallel()
	b := newBench(t, withReports(tests(writes("r.xml", "pf")+"; echo it has begun; "+block), "r.xml", "later.xml"))
	ctx, cancel := context.WithCancelCause(t.Context())
	b.out = trigger{&b.log, "it has begun\n", func() { cancel(errors.New("the run was stopped")) }}
	_, err := b.run(ctx)
	require.Equal(t, fault.Cancellation, fault.From(err).Reason)
	require.ErrorContains(t, err, "dev: 1 passed, 1 failed, 0 skipped: smoke t1 (expected 200, got 503): run command 1 of 1")
	require.ErrorContains(t, err, "the run was stopped")
	require.NotContains(t, err.Error(), "no test report", "it had no time to write it")
	require.Equal(t, &record.Tests{Total: 2, Passed: 1, Failed: 1, FailedTests: []record.FailedTest{{Class: "smoke", Name: "t1", Message: "expected 200, got 503", Report: "r.xml"}}}, b.result(t).Tests)
}

func TestReports_HoldNoSecret(t *testing.T) {
	t.Parallel()
	padding := strings.Repeat("x", 120)
	const given = "${AWS_SECRET_ACCESS_KEY}"
	report := "<testsuite name='" + given + "'><testcase name='" + padding + given + "' classname='" + given + "'><failure>" + padding + given + "</failure></testcase>&" + given
	b := newBench(t, withReports(tests(`echo "`+report+`" | tee $AWS_SECRET_ACCESS_KEY.xml`), "**"))
	var log strings.Builder
	out := redact.NewWriter(&log, redact.New(secretKey))
	b.out = out
	_, err := b.run(t.Context())
	require.NoError(t, out.Flush())
	require.Equal(t, fault.TestsFailed, fault.From(err).Reason)
	require.Contains(t, fault.Message(err), "dev: 0 passed, 1 failed, 0 skipped: "+padding+redact.Marker+" ("+padding+redact.Marker+")")
	body, _, err2 := b.Objects.Get(t.Context(), record.TestKey("uid-1", "dev"))
	require.NoError(t, err2)
	document, err2 := io.ReadAll(body)
	require.NoError(t, errors.Join(err2, body.Close()))
	require.Contains(t, string(document), redact.Marker+".xml")
	for _, text := range []string{fault.Message(err), string(document), log.String()} {
		require.NotContains(t, text, secretKey[:12])
	}
}

// A message of a node has 1 KiB, and loses its middle beyond.
func TestReports_LeaveRoomForTheCommand(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ü", 300)
	report := "<testsuite><testcase name='" + long + "'><failure message='" + long + "'/></testcase></testsuite>"
	b := newBench(t, withReports(tests("echo '"+long+"' >&2; echo \""+report+"\" > r.xml; exit 7"), "r.xml", strings.Repeat("missing", 60)+".xml"))
	_, err := b.run(t.Context())
	const head = 1024 - 400 - len(" … ")
	message := fault.Message(err)
	require.Contains(t, message[:head], "dev: 0 passed, 1 failed, 0 skipped: üü")
	require.Contains(t, message[:head], "run command 1 of 1 (echo 'üü")
	require.Contains(t, message[:head], "exit code 7")
}

// away is a worker whose files cannot be reached after the commands.
type away struct {
	*worker.Client

	lists  *int
	reads  bool
	reason fault.Class
}

func (a away) List(ctx context.Context, dir string) ([]worker.Entry, error) {
	if *a.lists++; *a.lists > 1 && !a.reads {
		return nil, fault.Newf(a.reason, fault.WorkerLost, "list", "", "the worker went away")
	}
	return a.Client.List(ctx, dir)
}

func (a away) ReadTree(ctx context.Context, dir string, paths []string) (io.ReadCloser, error) {
	if a.reads {
		return nil, fault.Newf(a.reason, fault.WorkerLost, "read", "", "the worker went away")
	}
	return a.Client.ReadTree(ctx, dir, paths)
}

// Whoever cannot look does not know whether tests failed.
func TestReports_ThatCannotBeReachedFailTheStage(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		reads bool
		class fault.Class
		exit  string
		want  fault.Reason
	}{
		"listing":                       {false, fault.Transient, "true", fault.WorkerLost},
		"reading":                       {true, fault.Transient, "true", fault.WorkerLost},
		"listing after a failure":       {false, fault.Transient, "false", fault.CommandFailed},
		"what is a matter of the files": {true, fault.System, "true", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, withReports(tests(writes("r.xml", "p")+"; "+tt.exit), "r.xml"))
			lists := 0
			b.trees = away{b.Worker, &lists, tt.reads, tt.class}
			_, err := b.run(t.Context())
			if tt.want == "" {
				require.NoError(t, err)
			} else {
				require.Equal(t, tt.want, fault.From(err).Reason, "%v", err)
			}
			require.Contains(t, b.log.String()+fmt.Sprint(err), "the worker went away")
		})
	}
}

// The worker is not asked for files that nobody wants.
func TestReports_NobodyAsksFor(t *testing.T) {
	t.Parallel()
	b := newBench(t, tests(writes("junit.xml", "f")))
	lists := 0
	b.trees = away{b.Worker, &lists, false, fault.Transient}
	got, err := b.run(t.Context())
	require.NoError(t, err)
	require.Contains(t, got.Message, "dev: 1 test command passed in")
	require.Zero(t, lists)
	require.FileExists(t, b.Path(worker.SourceDir, "junit.xml"))
	require.Nil(t, b.result(t).Tests)
}
