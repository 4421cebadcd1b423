package handover_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/handover"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

func run() handover.Run {
	return handover.Run{Namespace: "shop", Name: "shop-1", UID: "uid-1", Pipeline: "shop"}
}

// cluster holds the run.
func cluster(tb testing.TB) *kubetest.Server {
	tb.Helper()
	s := kubetest.New(tb)
	s.Put("workflows", kubetest.Object{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
		"metadata": map[string]any{"name": "shop-1", "namespace": "shop", "uid": "uid-1"},
		"spec": map[string]any{"arguments": map[string]any{"parameters": []any{
			map[string]any{"name": "commit-sha", "value": "abc"},
		}}},
	})
	return s
}

func annotation(s *kubetest.Server, name, key string) any {
	meta, _ := s.Get("workflows", "shop", name)["metadata"].(map[string]any) // nil has none
	found, _ := meta["annotations"].(map[string]any)                         // nil is none
	return found[key]
}

// created are the names that were ever asked for.
func created(s *kubetest.Server) map[string]int {
	names := map[string]int{}
	successor, _ := pipeline.Successor(pipeline.HandedOver{Name: "shop-1", UID: "uid-1"})
	for _, call := range s.Calls() {
		if call.Verb == "create" {
			names[successor]++
		}
	}
	return names
}

func TestBegin_LinksBothWays(t *testing.T) {
	t.Parallel()
	s := cluster(t)
	h := handover.New(s.Client(t))
	before, err := h.Successor(t.Context(), run())
	require.NoError(t, err)
	require.Empty(t, before)
	name, err := h.Begin(t.Context(), run())
	require.NoError(t, err)
	require.Equal(t, name, annotation(s, "shop-1", pipeline.AnnotationHandedOver))
	require.Equal(t, "shop-1", annotation(s, name, pipeline.AnnotationSucceeds))
	object := s.Get("workflows", "shop", name)
	for range 2 {
		again, err := h.Begin(t.Context(), run())
		require.NoError(t, err)
		require.Equal(t, name, again)
		found, err := h.Successor(t.Context(), run())
		require.NoError(t, err)
		require.Equal(t, name, found)
	}
	require.Equal(t, object, s.Get("workflows", "shop", name), "it is the first one still")
}

func TestBegin_TwoAtOnce(t *testing.T) {
	t.Parallel()
	s := cluster(t)
	h := handover.New(s.Client(t))
	names := make([]string, 8)
	var wg sync.WaitGroup
	for i := range names {
		wg.Go(func() {
			name, err := h.Begin(t.Context(), run())
			if err != nil {
				t.Error(err)
			}
			names[i] = name
		})
	}
	wg.Wait()
	for _, name := range names {
		require.Equal(t, names[0], name)
	}
	require.Len(t, created(s), 1)
}

func TestBegin_AnotherRunOfTheSameNameIsNotTouched(t *testing.T) {
	t.Parallel()
	s := cluster(t)
	other := run()
	other.UID = "uid-earlier"
	_, err := handover.New(s.Client(t)).Begin(t.Context(), other)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.KubernetesRejected})
	require.Empty(t, created(s))
	require.Nil(t, annotation(s, "shop-1", pipeline.AnnotationHandedOver))
}

func TestBegin_Refused(t *testing.T) {
	t.Parallel()
	for verb, op := range map[string]string{
		"get": "read the run", "patch": "mark the run as handed over", "create": "start the successor of the run",
	} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			s := cluster(t)
			s.Forbid("workflows", verb)
			_, err := handover.New(s.Client(t)).Begin(t.Context(), run())
			require.ErrorIs(t, err, &fault.Fault{Reason: fault.KubernetesRejected})
			require.Equal(t, op, fault.From(err).Op)
			require.Equal(t, fault.User, fault.From(err).Class)
		})
	}
}

func TestBegin_Cancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the run was stopped"))
	_, err := handover.New(cluster(t).Client(t)).Begin(ctx, run())
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.Cancellation})
}

// A run whose deploy-pipeline stage hands over and whose two environments ask,
// each of them killed, refused or left without an answer at any call and asked
// again some times: at most one successor; once one environment was passed
// over, none is deployed any more; what was passed over has a successor; what
// was handed over without an error is passed over.
func TestHandover_NeverTwoSuccessorsNorNone(t *testing.T) {
	t.Parallel()
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		s := cluster(outer)
		h := handover.New(s.Client(outer))
		// trouble lets some calls through and then hits one, or all.
		trouble := func(stage string) {
			left := rapid.IntRange(0, 4).Draw(t, stage+": calls before the trouble")
			lost := rapid.Bool().Draw(t, stage+": answers are lost")
			hit := func() bool { left--; return left < 0 }
			s.Deny(nil)
			s.Lose(nil)
			if lost {
				s.Lose(func(c kubetest.Call) bool { return c.Verb != "get" && hit() })
				return
			}
			s.Deny(func(kubetest.Call) *metav1.Status {
				if hit() {
					return &metav1.Status{Code: http.StatusInternalServerError, Message: "killed"}
				}
				return nil
			})
		}
		attempt := func(stage string, do func() error) (ok bool) {
			for range rapid.IntRange(1, 3).Draw(t, stage+": times asked") {
				trouble(stage)
				if do() == nil {
					return true
				}
			}
			return false
		}
		begun := attempt("deploy-pipeline", func() error {
			_, err := h.Begin(t.Context(), run())
			return err
		})
		passed, deployed := 0, 0
		for _, stage := range []string{"deploy-dev", "deploy-prod"} {
			var name string
			asked := func() (err error) { name, err = h.Successor(t.Context(), run()); return err }
			if !attempt(stage, asked) {
				// The stage fails and ends the run; a retry asks again.
				s.Deny(nil)
				s.Lose(nil)
				require.NoError(t, asked())
			}
			if name == "" {
				require.Zero(t, passed, "deployed although the run was handed over")
				deployed++
				continue
			}
			passed++
			require.NotNil(t, s.Get("workflows", "shop", name), "passed over, and nobody deploys")
		}
		if begun {
			require.Zero(t, deployed, "handed over, and deployed here too")
		}
		name, _ := pipeline.Successor(pipeline.HandedOver{Name: "shop-1", UID: "uid-1"})
		for _, call := range s.Calls() {
			if call.Verb == "create" {
				require.Contains(t, string(call.Body), `"name":"`+name+`"`)
			}
		}
		if deployed == 2 {
			require.Nil(t, s.Get("workflows", "shop", name), "deployed here, and by a successor too")
		}
	})
}
