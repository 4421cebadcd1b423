package reconcile_test

import (
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/internal/record"
)

const lost = `Error: agent pod failed with reason:"the node was low on memory"`

func TestPass_ClosesTheRecordOfARunThat(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		phase, shutdown string
		nodes           map[string]string
		stages          []string
		status          record.Status
		reason          fault.Reason
	}{
		"was terminated": {
			"Failed", "Terminate",
			map[string]string{"build": "Failed: workflow shutdown with strategy: Terminate"},
			[]string{"validate", "succeeded", "build", "running"},
			record.Failed, fault.Terminated,
		},
		"was terminated and whose plugin said so in time": {
			"Failed", "Terminate", nil, []string{"validate", "succeeded", "build", "failed Cancelled"}, record.Failed, fault.Terminated,
		},
		"was stopped, and the end handler too": {
			"Failed", "Stop", nil, []string{"build", "running"}, record.Failed, fault.Stopped,
		},
		"lost its agent pod": {
			"Error", "",
			map[string]string{"build": "Succeeded: built", "deploy-dev": lost, "finish": lost},
			[]string{"build", "succeeded", "deploy-env/dev", "running"},
			record.Failed, fault.AgentLost,
		},
		"lost its agent pod, whose plugin noticed its end": {
			"Error", "", map[string]string{"deploy-dev": lost}, []string{"deploy-env/dev", "failed Cancelled"}, record.Failed, fault.AgentLost,
		},
		"lost its agent pod, whose plugin saw the worker go first": {
			"Error", "",
			map[string]string{"test-dev": lost},
			[]string{"deploy-env/dev", "succeeded", "test/dev", "failed WorkerLost"},
			record.Failed, fault.AgentLost,
		},
		"ended without anybody knowing why": {
			"Error", "", nil, []string{"build", "running"}, record.Failed, fault.AgentLost,
		},
		"failed by itself before its pod was lost": {
			"Error", "", map[string]string{"finish": lost}, []string{"build", "failed CommandFailed"}, record.Failed, fault.CommandFailed,
		},
		"failed and could not record the stage": {
			"Failed", "",
			map[string]string{"build": "Failed: command 2 exited with 1 [CommandFailed]"},
			[]string{"build", "running"},
			record.Failed, fault.CommandFailed,
		},
		"failed after deploy-pipeline had failed too": {
			"Error", "",
			map[string]string{"test-dev": lost},
			[]string{"deploy-pipeline", "failed KubernetesRejected", "test/dev", "running"},
			record.Failed, fault.AgentLost,
		},
		"succeeded and could not record that": {
			"Succeeded", "", map[string]string{"build": "Succeeded: built"}, []string{"build", "running"}, record.Succeeded, "",
		},
		"was passed over and could not record that": {
			"Succeeded", "", nil, []string{"deploy-env/dev", "succeeded Superseded"}, record.Succeeded, fault.Superseded,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.run("shop-1", tt.phase, tt.shutdown, tt.nodes)
			b.begin(t, "shop-1", tt.stages...)
			said, err := b.pass(t)
			require.NoError(t, err)
			require.Contains(t, said, "closed the record of run shop-1 (uid-shop-1): "+string(tt.status))

			rec := b.record(t, "shop-1")
			require.Equal(t, tt.status, rec.Status)
			require.Equal(t, string(tt.reason), rec.Reason)
			require.Equal(t, ended, *rec.CompletedAt)
			require.Equal(t, began, rec.TriggeredAt)
			require.Len(t, rec.Stages, len(tt.stages)/2)
			for _, stage := range rec.Stages {
				require.NotEqual(t, record.Running, stage.Status, stage.StageName)
				require.NotNil(t, stage.CompletedAt, stage.StageName)
			}
			stages, err := b.records.Stages(t.Context(), "uid-shop-1")
			require.NoError(t, err)
			require.Equal(t, stages, rec.Stages, "the stages' own records are closed too")

			said, err = b.pass(t)
			require.NoError(t, err)
			require.Empty(t, said, "nothing is left for a second pass")
		})
	}
}

func TestPass_SaysToPeopleThatTheAgentWasLost(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run("shop-1", "Error", "", map[string]string{"deploy-dev": lost})
	b.begin(t, "shop-1", "deploy-env/dev", "running")
	said, err := b.pass(t)
	require.NoError(t, err)
	require.Contains(t, said, "labelled run shop-1 aphex.dev/reason=AgentLost\n")
	require.Equal(t, map[string]any{"aphex.dev/reason": "AgentLost"}, b.labels("shop-1"))
	message := *b.record(t, "shop-1").Stages[0].ErrorMessage
	require.Contains(t, message, "the node was low on memory")
	require.Contains(t, message, "argo retry shop-1 -n shop")
	require.Contains(t, message, "[AgentLost]")
}

func TestPass_MakesARecordForARunThatNeverBegan(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run("shop-1", "Succeeded", "Terminate", nil) // what Argo calls a queued run that was terminated
	_, err := b.pass(t)
	require.NoError(t, err)
	rec := b.record(t, "shop-1")
	require.Equal(t, record.Failed, rec.Status)
	require.Equal(t, string(fault.Terminated), rec.Reason)
	require.Equal(t, "abc", rec.CommitSHA)
	require.Equal(t, began, rec.TriggeredAt)
	require.Empty(t, rec.Stages)
	said, err := b.pass(t)
	require.NoError(t, err)
	require.Empty(t, said)
}

// Feature: aphex-pipeline, Property 26: Cluster resource isolation
func TestPass_LeavesAlone(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*testing.T, *bench){
		"a run that goes on": func(t *testing.T, b *bench) {
			t.Helper()
			b.run("shop-1", "Running", "", nil)
			b.pod("shop-1", "Running")
			b.begin(t, "shop-1", "build", "running")
		},
		"a run that waits for its turn": func(_ *testing.T, b *bench) { b.run("shop-1", "Pending", "", nil) },
		"a run whose pod is still at its end": func(t *testing.T, b *bench) {
			t.Helper()
			b.run("shop-1", "Failed", "Terminate", nil)
			b.pod("shop-1", "Running")
			b.begin(t, "shop-1", "build", "running")
		},
		"a run that ended just now": func(t *testing.T, b *bench) {
			t.Helper()
			b.run("shop-1", "Failed", "", nil)
			b.begin(t, "shop-1", "build", "running")
			b.api.Change("workflows", "shop", "shop-1", func(o kubetest.Object) {
				o["status"].(map[string]any)["finishedAt"] = stamp(now.Add(-29e9))
			})
		},
		"a pod that is being deleted": func(_ *testing.T, b *bench) {
			name := b.pod("shop-1", "Failed")
			b.api.Change("pods", "shop", name, func(o kubetest.Object) {
				o["metadata"].(map[string]any)["deletionTimestamp"] = stamp(now)
			})
		},
		"a failed pod of somebody else": func(_ *testing.T, b *bench) {
			name := b.pod("other-1", "Failed")
			b.api.Change("pods", "shop", name, func(o kubetest.Object) {
				delete(o["metadata"].(map[string]any)["labels"].(map[string]any), "aphex.dev/pipeline")
			})
		},
		"a Workflow of somebody else": func(_ *testing.T, b *bench) {
			b.run("other-1", "Failed", "", nil)
			b.api.Change("workflows", "shop", "other-1", func(o kubetest.Object) {
				delete(o["metadata"].(map[string]any), "labels")
			})
		},
		"a journal whose run is there": func(_ *testing.T, b *bench) {
			b.run("shop-1", "Running", "", nil)
			b.journal("shop-1")
		},
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			prepare(t, b)
			said, err := b.pass(t)
			require.NoError(t, err)
			require.Empty(t, said)
			require.Empty(t, b.writes())
			open, err := b.records.Run(t.Context(), "uid-shop-1")
			if err == nil {
				require.Equal(t, record.Running, open.Status)
			}
		})
	}
}

func TestPass_LeavesARunAloneThatIsRetriedMeanwhile(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run("shop-1", "Failed", "", nil)
	b.begin(t, "shop-1", "build", "running")
	b.api.Deny(func(c kubetest.Call) *metav1.Status {
		if c.Verb == "get" && c.Resource == "pods" { // between the list and the second look
			b.api.Change("workflows", "shop", "shop-1", func(o kubetest.Object) {
				o["status"].(map[string]any)["phase"] = "Running"
			})
		}
		return nil
	})
	said, err := b.pass(t)
	require.NoError(t, err)
	require.Empty(t, said)
	require.Equal(t, record.Running, b.record(t, "shop-1").Status)
}

func TestPass_ARetryOpensTheQuestionAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run("shop-1", "Error", "", map[string]string{"deploy-dev": lost})
	b.begin(t, "shop-1", "deploy-env/dev", "running")
	_, err := b.pass(t)
	require.NoError(t, err)
	// The retry succeeds, but its end is not recorded.
	b.api.Change("workflows", "shop", "shop-1", func(o kubetest.Object) {
		o["status"] = map[string]any{"phase": "Succeeded", "startedAt": stamp(ended.Add(3600e9)), "finishedAt": stamp(ended.Add(7200e9))}
	})
	require.NoError(t, b.records.PutStage(t.Context(), "uid-shop-1", record.Stage{
		StageName: "deploy-env-dev", Stage: "deploy-env", Environment: "dev", Status: record.Succeeded, CompletedAt: &ended,
	}))
	_, err = b.pass(t)
	require.NoError(t, err)
	rec := b.record(t, "shop-1")
	require.Equal(t, record.Succeeded, rec.Status)
	require.Empty(t, rec.Reason)
	require.Equal(t, map[string]any{"aphex.dev/recorded": "true"}, b.labels("shop-1"))
}

func TestPass_RemovesFailedAgentPods(t *testing.T) {
	t.Parallel()
	for _, phase := range []string{"Running", "Error"} {
		t.Run("of a run that is "+phase, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.run("shop-1", phase, "", nil)
			name := b.pod("shop-1", "Failed")
			said, err := b.pass(t)
			require.NoError(t, err)
			require.Contains(t, said, "removed agent pod "+name+" of run shop-1: it had failed (Evicted, the node was low on memory)\n")
			require.Nil(t, b.api.Get("pods", "shop", name))
		})
	}
}

func TestPass_KeepsTheNextPodOfTheSameName(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run("shop-1", "Running", "", nil)
	name := b.pod("shop-1", "Failed")
	var once sync.Once
	b.api.Deny(func(c kubetest.Call) *metav1.Status {
		if c.Verb == "delete" {
			once.Do(func() {
				b.api.Delete("pods", "shop", name)
				b.pod("shop-1", "Running")
				b.api.Change("pods", "shop", name, func(o kubetest.Object) { o["metadata"].(map[string]any)["uid"] = "another" })
			})
		}
		return nil
	})
	said, err := b.pass(t)
	require.NoError(t, err)
	require.Empty(t, said)
	require.NotNil(t, b.api.Get("pods", "shop", name))
}

// journal puts the journal of a run without its owner.
func (b *bench) journal(run string) {
	m := meta("aphex-journal-"+run, map[string]any{"aphex.dev/component": "journal"})
	m["annotations"] = map[string]any{"aphex.dev/workflow": run}
	b.api.Put("configmaps", kubetest.Object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": m})
}

// Feature: aphex-pipeline, Property 27: Pipeline destruction cleanup
func TestPass_RemovesJournalsOfRunsThatAreGone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.journal("gone-1")
	said, err := b.pass(t)
	require.NoError(t, err)
	require.Equal(t, "removed journal aphex-journal-gone-1: run gone-1 is gone\n", said)
	require.Nil(t, b.api.Get("configmaps", "shop", "aphex-journal-gone-1"))
}

func TestPass_DryRunSaysTheSameAndDoesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run("shop-1", "Failed", "Terminate", nil)
	b.begin(t, "shop-1", "build", "running")
	pod := b.pod("shop-1", "Failed")
	b.journal("gone-1")
	b.dryRun = true
	said, err := b.pass(t)
	require.NoError(t, err)
	require.Equal(t, "would remove agent pod "+pod+" of run shop-1: it had failed (Evicted, the node was low on memory)\n"+
		"would close the record of run shop-1 (uid-shop-1): failed, Terminated\n"+
		"would label run shop-1 aphex.dev/reason=Terminated\n"+
		"would remove journal aphex-journal-gone-1: run gone-1 is gone\n", said)
	require.Empty(t, b.writes())
	require.Equal(t, record.Running, b.record(t, "shop-1").Status)
}

func TestPass_OneTroubleDoesNotStopTheRest(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, name := range []string{"shop-1", "shop-2"} {
		b.run(name, "Failed", "Terminate", nil)
		b.begin(t, name, "build", "running")
	}
	b.api.Deny(func(c kubetest.Call) *metav1.Status {
		if c.Resource == "pods" && c.Verb == "list" {
			return kubetest.Status(http.StatusForbidden, metav1.StatusReasonForbidden, "the test cannot list pods")
		}
		if c.Name == "shop-1" && c.Verb == "get" {
			return &metav1.Status{Code: http.StatusInternalServerError, Message: "etcd is away"}
		}
		return nil
	})
	_, err := b.pass(t)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.KubernetesRejected})
	require.ErrorContains(t, err, "cannot list pods")
	require.ErrorContains(t, err, "etcd is away")
	require.Equal(t, record.Running, b.record(t, "shop-1").Status)
	require.Equal(t, record.Failed, b.record(t, "shop-2").Status)
}

func TestPass_APipelineThatIsNotInstalledIsSaidOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run("shop-1", "Failed", "", nil)
	b.run("shop-2", "Failed", "", nil)
	b.api.Delete("configmaps", "shop", "aphex-pipeline-shop")
	said, err := b.pass(t)
	require.NoError(t, err)
	require.Equal(t, "left the runs of pipeline shop alone: it is not installed here (no ConfigMap aphex-pipeline-shop)\n", said)
}

// Two that work at once do what one does.
func TestPass_TwoAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, name := range []string{"shop-1", "shop-2", "shop-3"} {
		b.run(name, "Error", "", map[string]string{"build": lost})
		b.begin(t, name, "validate", "succeeded", "build", "running")
		b.pod(name, "Failed")
	}
	other := &bench{api: b.api, client: b.client, store: b.store, records: b.records}
	other.budget.Store(1 << 30)
	var wg sync.WaitGroup
	for _, each := range []*bench{b, other} {
		wg.Go(func() {
			_, err := each.pass(t)
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, name := range []string{"shop-1", "shop-2", "shop-3"} {
		require.Equal(t, string(fault.AgentLost), b.record(t, name).Reason)
		require.Equal(t, map[string]any{"aphex.dev/reason": "AgentLost"}, b.labels(name))
	}
	said, err := b.pass(t)
	require.NoError(t, err)
	require.Empty(t, said)
}
