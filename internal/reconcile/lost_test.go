package reconcile_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/reconcile"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
)

// finish gives a run the node of its finish stage.
func (b *bench) finish(run, phase string) {
	w := b.api.Get("workflows", "shop", run)
	full := run + ".onExit"
	w["status"].(map[string]any)["nodes"].(map[string]any)[kube.NodeID(run, full)] = map[string]any{"name": full, "phase": phase}
	b.api.Put("workflows", w)
}

// put writes an object that nobody can read as a record.
func (b *bench) put(t *testing.T, key string) {
	t.Helper()
	_, err := b.store.Put(t.Context(), key, strings.NewReader("{"), store.PutOptions{})
	require.NoError(t, err)
}

// close makes the record of a run that of one whose finish stage has closed it.
func (b *bench) close(t *testing.T, run string) {
	t.Helper()
	rec, err := b.record(t, run), error(nil)
	rec.Status, rec.CompletedAt = record.Failed, &ended
	rec.Stages, err = b.records.Stages(t.Context(), "uid-"+run)
	require.NoError(t, err)
	require.NoError(t, b.records.Put(t.Context(), rec))
}

// Whatever is wrong with the bucket, the channels hear of the end once, and the
// figures are sent once; but not as long as it may pass.
func TestPass_TellsAndMeasuresWithoutARecord(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, b *bench){
		"a run's record that is none": func(t *testing.T, b *bench) { t.Helper(); b.put(t, record.RunKey("uid-shop-1")) },
		"a stage's record is damaged": func(t *testing.T, b *bench) {
			t.Helper()
			b.put(t, record.StageKey("uid-shop-1", "validate", ""))
		},
		"nothing can be written": func(_ *testing.T, b *bench) { b.budget.Store(0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.run("shop-1", "Failed", "Terminate", nil)
			b.begin(t, "shop-1", "validate", "succeeded", "build", "running")
			b.channels("shop-1", false, slack())
			damage(t, b)
			b.at = ended.Add(5 * time.Minute)
			_, err := b.pass(t)
			require.Error(t, err)
			require.Empty(t, b.told, "it may be well soon")

			b.at = ended.Add(11 * time.Minute)
			for range 3 {
				_, err := b.pass(t)
				require.Error(t, err, "somebody has to mend it")
			}
			require.Len(t, b.events, 1)
			e := b.events[0]
			require.Equal(t, []string{"failed", "Terminated", "shop-1", "abc", ""}, []string{e.Event, e.Reason, e.Run, e.Commit, e.RecordURL})
			require.NotEmpty(t, e.RecordError)
			require.Equal(t, "build", e.Failed.Stage)
			require.Equal(t, []string{"shop-1 failed"}, b.measured)

			// Once it is mended, the record is closed, and nobody hears of it again.
			b.budget.Store(1 << 30)
			delete(b.store.objects, record.RunKey("uid-shop-1"))
			b.begin(t, "shop-1", "validate", "succeeded", "build", "running")
			_, err = b.pass(t)
			require.NoError(t, err)
			require.Equal(t, record.Failed, b.record(t, "shop-1").Status)
			require.Len(t, b.events, 1)
			require.Len(t, b.measured, 1)
		})
	}
}

// What no record says is asked of the Workflow.
func TestWithNodes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run("shop-1", "Failed", "", map[string]string{
		"build": "Succeeded: built", "deploy-pipeline": "Failed: no [SynthFailed]", "deploy-dev": "Succeeded: passed over [Superseded]",
		"test-dev": "Error: lost", "test-dev(0)": "Error: lost", "deploy-prod": "Omitted: ", "onExit": "Succeeded: told",
	})
	w, err := b.client.Workflow(t.Context(), "shop", "shop-1")
	require.NoError(t, err)
	got := map[string]string{}
	for _, s := range reconcile.WithNodes(w, []record.Stage{{StageName: "build", Stage: "build", Status: record.Succeeded, Message: "as recorded"}}) {
		message := s.Message
		if s.ErrorMessage != nil {
			message = *s.ErrorMessage
		}
		got[s.StageName] = strings.Join([]string{s.Stage, s.Environment, string(s.Status), s.Reason, message}, "|")
	}
	require.Equal(t, map[string]string{
		"build": "build||succeeded||as recorded", "deploy-pipeline": "deploy-pipeline||failed|SynthFailed|no [SynthFailed]",
		"deploy-env-dev": "deploy-env|dev|succeeded|Superseded|passed over [Superseded]", "test-dev": "test|dev|failed||lost",
	}, got)
}

// A bucket that does not answer makes no news of runs that have been told of.
func TestPass_ABucketThatIsAwayIsNoNews(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, run := range []string{"told-by-finish", "told-by-a-pass"} {
		b.run(run, "Failed", "", map[string]string{"build": "Error: agent pod failed with reason: gone"})
		b.begin(t, run, "build", "running")
		b.channels(run, false, slack())
	}
	b.finish("told-by-finish", kube.PhaseSucceeded)
	_, err := b.pass(t)
	require.NoError(t, err)
	require.Len(t, b.events, 1)
	for _, run := range []string{"told-by-finish", "told-by-a-pass"} {
		b.put(t, record.RunKey("uid-"+run))
	}
	_, err = b.pass(t)
	require.Error(t, err)
	require.Len(t, b.events, 1)
	require.Equal(t, []string{"told-by-a-pass failed"}, b.measured)
}

// A finish stage that died after it closed the record has told nobody.
func TestPass_TellsForAFinishStageThatDied(t *testing.T) {
	t.Parallel()
	for phase, told := range map[string]int{kube.PhaseError: 1, kube.PhaseSucceeded: 0} {
		b := newBench(t)
		b.run("shop-1", "Failed", "", nil)
		b.begin(t, "shop-1", "build", "failed CommandFailed")
		b.finish("shop-1", phase)
		b.channels("shop-1", false, slack())
		b.close(t, "shop-1")
		for range 2 {
			_, err := b.pass(t)
			require.NoError(t, err)
			require.Len(t, b.events, told, phase)
			require.Len(t, b.measured, told, phase)
			require.Len(t, b.record(t, "shop-1").Notifications, told, phase)
		}
	}
}

// Nobody is told whom it does not concern, however often a pass looks.
func TestPass_WritesNothingForAnEndThatConcernsNobody(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run("shop-1", "Failed", "", nil)
	b.begin(t, "shop-1", "build", "failed CommandFailed")
	b.finish("shop-1", kube.PhaseError)
	b.close(t, "shop-1")
	_, err := b.pass(t)
	require.NoError(t, err)
	require.Empty(t, b.events)
	b.budget.Store(0) // a write would fail
	_, err = b.pass(t)
	require.NoError(t, err)
}

func TestPass_MeasuresTheStagesOfThisTry(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run("shop-1", "Failed", "Terminate", nil)
	b.begin(t, "shop-1", "build", "running")
	rec := b.record(t, "shop-1")
	rec.Metrics = &record.Metrics{Sent: true, Until: new(began.Add(-time.Hour))}
	require.NoError(t, b.records.Put(t.Context(), rec))
	_, err := b.pass(t)
	require.NoError(t, err)
	require.Equal(t, []string{"shop-1 failed since " + stamp(began.Add(-time.Hour))}, b.measured)
	require.Equal(t, &record.Metrics{Sent: true, Until: &ended}, b.record(t, "shop-1").Metrics)

	b.run("shop-2", "Failed", "Terminate", nil)
	b.begin(t, "shop-2", "build", "running")
	b.refuse = true
	output, err := b.pass(t)
	require.NoError(t, err, "figures are beside the point")
	require.Contains(t, output, "sent no figures of run shop-2: CloudWatch is away")
	require.Equal(t, "CloudWatch is away [Internal]", b.record(t, "shop-2").Metrics.Error)
	require.NotEmpty(t, b.api.Get("workflows", "shop", "shop-2")["metadata"].(map[string]any)["labels"].(map[string]any)[pipeline.LabelAnnounced])
}

// A finish stage whose node has failed may still be telling, and a run may have
// been retried since it was listed.
func TestPass_TellsForNobodyWhoMayStillTell(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(b *bench){
		"its pod is at its end": func(b *bench) { b.pod("shop-1", "Running") },
		"it is retried": func(b *bench) {
			b.api.Deny(func(c kubetest.Call) *metav1.Status {
				if c.Verb == "get" && c.Resource == "configmaps" { // between the list and the second look
					b.api.Change("workflows", "shop", "shop-1", func(o kubetest.Object) {
						o["status"].(map[string]any)["phase"] = "Running"
					})
				}
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.run("shop-1", "Failed", "", nil)
			b.begin(t, "shop-1", "build", "failed CommandFailed")
			b.finish("shop-1", kube.PhaseError)
			b.channels("shop-1", false, slack())
			b.close(t, "shop-1")
			meanwhile(b)
			said, err := b.pass(t)
			require.NoError(t, err)
			require.Empty(t, said)
			require.Empty(t, b.events)
			require.Empty(t, b.measured)
			require.Empty(t, b.writes())
		})
	}
}

// Argo calls a run Succeeded that was terminated before it began: no record
// that can be read says otherwise.
func TestPass_ARunThatNeverBeganDidNotSucceed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		nodes map[string]string
		want  string
	}{
		{nil, pipeline.EventFailed},
		{map[string]string{"build": "Succeeded: built"}, pipeline.EventSucceeded},
	} {
		b := newBench(t)
		b.run("shop-1", "Succeeded", "Terminate", tt.nodes)
		b.channels("shop-1", false, slack())
		b.put(t, record.RunKey("uid-shop-1"))
		_, err := b.pass(t)
		require.Error(t, err)
		require.Len(t, b.events, 1)
		require.Equal(t, tt.want, b.events[0].Event)
	}
}

// A bucket that answers nothing costs a pass little, however many runs there
// are, and the channels hear of the end of each.
func TestPass_ABucketThatHangsKeepsNobodyFromBeingTold(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	runs := []string{"shop-1", "shop-2", "shop-3"}
	for _, run := range runs {
		b.run(run, "Failed", "Terminate", map[string]string{"build": "Failed: [Cancelled]"})
		b.channels(run, false, slack())
	}
	b.hangs = true
	for n := range int64(2) {
		_, err := b.pass(t)
		require.ErrorContains(t, err, "the bucket did not answer within 100ms")
		require.Len(t, b.events, len(runs))
		require.Len(t, b.measured, len(runs))
		require.Equal(t, n+1, b.asked.Load(), "once a pass")
	}
	for n, run := range runs {
		require.Equal(t, run, b.events[n].Run)
		require.Contains(t, b.events[n].RecordError, "the bucket did not answer")
	}
}
