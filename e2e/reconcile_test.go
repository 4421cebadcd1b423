package e2e

import (
	"context"
	"strings"
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
func TestReconcile_ClosesATerminatedRun(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	p, commit := newApp(t, l, "terminated", config([]string{"echo begun; sleep 600"}, dev("terminated")), settings{"stack": "terminated"})
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	run, err := p.Submit(ctx, commit)
	require.NoError(t, err)
	status, err := run.Until(ctx, "the build's command runs", func(lab.Status) bool {
		log, err := run.Log(ctx)
		return err == nil && strings.Contains(log, "[build] begun")
	})
	require.NoError(t, err)

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
	require.Empty(t, reconcile(ctx, t, l, run), "nothing is left to do")
}

// TestReconcile_LostAgentIsToldAndOneRetryCompletesTheRun: the agent pod fails
// in the middle of a test, as on a node that dies. The run ends Failed with
// reason AgentLost; one retry goes on in a fresh pod, and what was deployed
// before is not deployed again.
func TestReconcile_LostAgentIsToldAndOneRetryCompletesTheRun(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	wait := "echo begun; until aws ssm get-parameter --name /e2e/lost-may-end; do sleep 1; done"
	cfg := config(append(npmCI(), "date +%s%N > built-at"), dev("lost", wait, "test -s built-at"))
	p, commit := newApp(t, l, "lost", cfg, settings{"stack": "lost"})
	ctx, cancel := context.WithTimeout(t.Context(), 2*runLimit)
	defer cancel()
	run, err := p.Submit(ctx, commit)
	require.NoError(t, err)
	status, err := run.Until(ctx, "the test's command runs", func(lab.Status) bool {
		log, err := run.Log(ctx)
		return err == nil && strings.Contains(log, "[test-dev] begun")
	})
	require.NoError(t, err)
	built := status.Node("build")

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

	putParameter(t, l, "/e2e/lost-may-end", "yes")
	require.NoError(t, run.Retry(ctx))
	status, err = run.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	require.Equal(t, built.FinishedAt, status.Node("build").FinishedAt, "the build ran again")
	require.Equal(t, int64(1), parameterVersion(t, l, "/e2e/lost"), "the stack was written once")
	rec, err = p.Record(ctx, status.UID)
	require.NoError(t, err)
	require.Equal(t, record.Succeeded, rec.Status)
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
