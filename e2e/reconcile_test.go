package e2e

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
)

// reconcilers are tests that run the reconciler, which closes the records of
// everybody's runs: one at a time, or one would miss what another one did.
var reconcilers sync.Mutex

// aloneWithReconciler waits until no other test runs the reconciler. The test
// has it until it calls release, at the latest until it ends.
func aloneWithReconciler(t *testing.T) (release func()) {
	t.Helper()
	reconcilers.Lock()
	release = sync.OnceFunc(reconcilers.Unlock)
	t.Cleanup(release)
	return release
}

// reconcileUntil runs the reconciler until the run's record is closed, and
// returns the record and everything that was said of the run. A terminated
// pod takes its time.
func reconcileUntil(ctx context.Context, t *testing.T, l *lab.Lab, p *lab.Pipeline, run *lab.Run, uid string) (record.Run, string) {
	t.Helper()
	var said strings.Builder
	for {
		said.WriteString(reconcile(ctx, t, l, run))
		rec, err := p.Record(ctx, uid)
		if err == nil && rec.CompletedAt != nil {
			return rec, said.String()
		}
		select {
		case <-ctx.Done():
			require.FailNow(t, "the record was not closed", "%+v, said: %s", rec, said.String())
		case <-time.After(3 * time.Second):
		}
	}
}

// reconcile runs the reconciler once and returns what it said of the run.
func reconcile(ctx context.Context, t *testing.T, l *lab.Lab, run *lab.Run, args ...string) string {
	t.Helper()
	out, err := l.Reconcile(ctx, append(args, "--settle", "0s")...)
	require.NoError(t, err)
	var lines strings.Builder
	for line := range strings.Lines(out) {
		if strings.Contains(line, run.Name) {
			lines.WriteString(line)
		}
	}
	return lines.String()
}

// TestReconcile_ClosesATerminatedRun: while the run is alive the reconciler
// leaves it alone; once it is terminated, and its pod gone, the record says so.
//
// Feature: aphex-pipeline, Property 16: Workflow metadata recording
func TestReconcile_ClosesATerminatedRun(t *testing.T) {
	t.Parallel()
	closesATerminatedRun(t, pluginRunner())
}

func TestReconcile_ClosesATerminatedRunOfStagePods(t *testing.T) {
	t.Parallel()
	closesATerminatedRun(t, containerRunner())
}

func closesATerminatedRun(t *testing.T, r runner) {
	t.Helper()
	l := needLab(t)
	ctx := limited(t)
	held := holdBuild(ctx, t, l, "terminated"+r.suffix, r)
	p, run, status := held.p, held.Run, held.status
	aloneWithReconciler(t)
	require.Empty(t, reconcile(ctx, t, l, run), "a run that is alive")
	rec, err := p.Record(ctx, status.UID)
	require.NoError(t, err)
	require.Equal(t, record.Running, rec.Status)
	now, err := run.Status(ctx)
	require.NoError(t, err)
	require.False(t, now.Done(), "%+v", now)
	require.NotContains(t, []string{"Succeeded", "Failed", "Error"}, now.Node("build").Phase)

	require.NoError(t, run.Terminate(ctx))
	_, err = run.Wait(ctx)
	require.NoError(t, err)
	rec, said := reconcileUntil(ctx, t, l, p, run, status.UID)
	require.Contains(t, said, "closed the record of run "+run.Name+" ("+status.UID+"): failed, Terminated\n")
	require.Equal(t, record.Failed, rec.Status)
	require.Equal(t, string(fault.Terminated), rec.Reason)
	require.Len(t, rec.Stages, 2)
	require.NotNil(t, rec.Stages[1].CompletedAt)
	reason, err := run.Label(ctx, pipeline.LabelReason)
	require.NoError(t, err)
	require.Equal(t, string(fault.Terminated), reason)
	require.Contains(t, said, "told webhook ssm:/e2e/held-terminated"+r.suffix+" of the end of run "+run.Name+"\n")
	require.Empty(t, reconcile(ctx, t, l, run), "nothing is left to do")
	require.Len(t, held.mail.received("/hook"), 1)
	require.Contains(t, held.mail.received("/hook")[0], `"event":"failed"`)
	require.Contains(t, held.mail.received("/hook")[0], `"reason":"Terminated"`)
}

// TestReconcile_LostAgentIsToldAndOneRetryCompletesTheRun: the agent pod fails
// in the middle of a test, as on a node that dies. The run ends Failed with
// reason AgentLost; one retry goes on in a fresh pod, and what was deployed
// before is not deployed again.
func TestReconcile_LostAgentIsToldAndOneRetryCompletesTheRun(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	p, commit, ledger := newSmall(t, l, "lost-agent")
	release := ledger.hold("test")
	defer release()
	ctx := limited(t)
	run, err := p.Submit(ctx, commit)
	require.NoError(t, err)
	status, err := run.Until(ctx, "the test's command runs", func(s lab.Status) bool { return ledger.began("test") || s.Done() })
	require.NoError(t, err)
	require.Equal(t, map[string]int{"build": 1, "synth": 1, "test": 1}, ledger.ran(), "%+v", status)
	built := status.Node("build")

	alone := aloneWithReconciler(t)
	require.NoError(t, run.FailAgent(ctx))
	status, err = run.Wait(ctx)
	require.NoError(t, err)
	require.NotEqual(t, "Succeeded", status.Phase)
	require.Contains(t, status.Node("test-dev").Message, "agent pod failed")
	rec, said := reconcileUntil(ctx, t, l, p, run, status.UID)
	require.Contains(t, said, "failed, AgentLost")
	require.Equal(t, record.Failed, rec.Status)
	require.Equal(t, string(fault.AgentLost), rec.Reason)
	reason, err := run.Label(ctx, pipeline.LabelReason)
	require.NoError(t, err)
	require.Equal(t, string(fault.AgentLost), reason)
	alone()

	release()
	require.NoError(t, run.Retry(ctx))
	status, err = run.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Equal(t, built.FinishedAt, status.Node("build").FinishedAt, "the build ran again")
	require.Equal(t, map[string]int{"test": 1}, ledger.ran())
	require.Equal(t, int64(1), parameterVersion(t, l, "/e2e/lost-agent"), "the stack was written once")
	rec, err = p.Record(ctx, status.UID)
	require.NoError(t, err)
	require.Equal(t, record.Succeeded, rec.Status)
	aloneWithReconciler(t)
	_ = reconcile(ctx, t, l, run)
	reason, err = run.Label(ctx, pipeline.LabelReason)
	require.NoError(t, err)
	require.Empty(t, reason, "the label is that of the last try")
}

// parameterVersion counts the writes of an SSM parameter.
func parameterVersion(t *testing.T, l *lab.Lab, name string) int64 {
	t.Helper()
	client := ssm.NewFromConfig(l.AWS.Config(aws.AccountTools, "eu-west-1"))
	out, err := client.GetParameter(t.Context(), &ssm.GetParameterInput{Name: &name})
	require.NoError(t, err)
	return out.Parameter.Version
}
