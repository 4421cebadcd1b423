package conformance

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
)

// scripted is a plugin that answers as a test wants. It counts the calls by
// the stage in the body.
type scripted struct {
	http *httptest.Server

	mu         sync.Mutex
	calls      map[string]int
	live, most int
	answer     func(stage string, call int) (status int, body string)
}

// Answers that are no answer.
const (
	hangUp   = -1 // the connection ends without a byte
	truncate = -2 // it ends within the body
	hang     = -3 // nothing comes until the client gives up
)

func newScripted(t *testing.T, answer func(stage string, call int) (status int, body string)) *scripted {
	t.Helper()
	s := &scripted{calls: map[string]int{}, answer: answer}
	s.http = httptest.NewServer(s)
	t.Cleanup(func() {
		s.http.CloseClientConnections()
		s.http.Close()
	})
	return s
}

// ServeHTTP implements http.Handler.
func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	stage := "?"
	for _, name := range []string{"subject", "sentinel", "sibling"} {
		if strings.Contains(string(body), `"stage":"`+name+`"`) {
			stage = name
		}
	}
	s.mu.Lock()
	call := s.calls[stage]
	s.calls[stage]++
	s.live++
	s.most = max(s.most, s.live)
	status, answer := s.answer(stage, call)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.live--
	}()
	switch status {
	case hangUp:
		panic(http.ErrAbortHandler)
	case hang:
		<-r.Context().Done()
		// Work that knows nothing of its caller goes on for a while.
		<-time.After(2 * time.Second)
		panic(http.ErrAbortHandler)
	case truncate:
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		_, _ = io.WriteString(w, answer[:len(answer)/2]) // breaks off either way
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, answer) // the agent may have given up
}

func (s *scripted) counts(stage string) (calls, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[stage], s.most
}

var (
	subject  = step{stage: "subject"}
	sentinel = step{stage: "sentinel"}
	sibling  = step{stage: "sibling"}
)

const succeeded = `{"node":{"phase":"Succeeded","message":"done"}}`

// always answers the subject the same, and everything else with success.
func always(status int, body string) func(string, int) (int, string) {
	return func(stage string, _ int) (int, string) {
		if stage == subject.stage {
			return status, body
		}
		return http.StatusOK, succeeded
	}
}

// thenSuccess answers the subject's first call, and everything after with
// success.
func thenSuccess(status int, body string) func(string, int) (int, string) {
	return func(stage string, call int) (int, string) {
		if stage == subject.stage && call == 0 {
			return status, body
		}
		return http.StatusOK, succeeded
	}
}

// Every row of the table of replies, with what Argo makes of it.
func TestAgent_Replies(t *testing.T) {
	t.Parallel()
	const failedRequeue = `{"node":{"phase":"Failed","message":"not yet"},"requeue":"50ms"}`
	rows := map[string]struct {
		answer  func(stage string, call int) (int, string)
		phase   wfv1.NodePhase
		message string
		calls   int
	}{
		"200 {} is nobody's and fails the stage":        {always(200, `{}`), "Failed", "no plugin executed the template", 1},
		"200 with a null node is nobody's":              {always(200, `{"node":null}`), "Failed", "no plugin executed the template", 1},
		"Succeeded is final and its requeue is ignored": {always(200, `{"node":{"phase":"Succeeded","message":"done"},"requeue":"50ms"}`), "Succeeded", "done", 1},
		"Failed without requeue is final":               {always(200, `{"node":{"phase":"Failed","message":"no"}}`), "Failed", "no", 1},
		"Error without requeue is final":                {always(200, `{"node":{"phase":"Error","message":"no"}}`), "Error", "no", 1},
		"Failed with requeue is called again":           {thenSuccess(200, failedRequeue), "Succeeded", "done", 2},
		"Running with requeue is called again":          {thenSuccess(200, `{"node":{"phase":"Running","message":"on it"},"requeue":"50ms"}`), "Succeeded", "done", 2},
		"Pending with requeue is called again":          {thenSuccess(200, `{"node":{"phase":"Pending"},"requeue":"50ms"}`), "Succeeded", "done", 2},
		"Running without requeue is never called again": {thenSuccess(200, `{"node":{"phase":"Running","message":"on it"}}`), "Running", "on it", 1},
		"a quiet poll is called again":                  {thenSuccess(200, `{"node":{},"requeue":"50ms"}`), "Succeeded", "done", 2},
		"200 with an empty body is fatal":               {always(200, ``), "Failed", "EOF", 1},
		"200 with HTML is fatal":                        {always(200, `<html>`), "Failed", "invalid character", 1},
		"an unparsable requeue is fatal":                {always(200, `{"node":{},"requeue":"soon"}`), "Failed", "soon", 1},
		"a numeric requeue is fatal":                    {always(200, `{"node":{},"requeue":5}`), "Failed", "", 1},
		"truncated JSON is retried five times":          {always(truncate, succeeded), "Failed", "unexpected EOF", 5},
		"a broken connection is retried five times":     {always(hangUp, ``), "Failed", "EOF", 5},
		"201 is fatal":                                {always(201, succeeded), "Failed", "201", 1},
		"202 is fatal":                                {always(202, succeeded), "Failed", "202", 1},
		"204 is fatal":                                {always(204, ``), "Failed", "204", 1},
		"400 is fatal":                                {always(400, `bad`), "Failed", "400", 1},
		"403 is fatal":                                {always(403, `{"message":"no"}`), "Failed", "403", 1},
		"500 is fatal":                                {always(500, `oops`), "Failed", "500", 1},
		"502 is fatal":                                {always(502, `oops`), "Failed", "502", 1},
		"504 is fatal":                                {always(504, `oops`), "Failed", "504", 1},
		"503 is retried five times":                   {always(503, `starting`), "Failed", "starting", 5},
		"503 is retried until it is over":             {thenSuccess(503, `starting`), "Succeeded", "done", 2},
		"500 that speaks of refusal is retried":       {thenSuccess(500, `dial: connection refused`), "Succeeded", "done", 2},
		"500 that speaks of a timeout is retried":     {thenSuccess(500, `read: i/o timeout`), "Succeeded", "done", 2},
		"unknown fields and number outputs are taken": {always(200, `{"x":1,"node":{"phase":"Succeeded","message":"done","y":2,"outputs":{"parameters":[{"name":"n","value":7}]}}}`), "Succeeded", "done", 1},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := newScripted(t, row.answer)
			w.startAgent(brief(), s.http.URL)
			w.schedule(subject)
			result := w.result(subject, row.phase)
			require.Contains(t, result.Message, row.message)
			// Time for a call that must not come: another task's whole life.
			w.schedule(sentinel)
			w.result(sentinel, wfv1.NodeSucceeded)
			calls, _ := s.counts(subject.stage)
			require.Equal(t, row.calls, calls)
		})
	}
}

func TestAgent_RefusedConnectionsAreRetriedFiveTimes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.tap.close()
	w.startAgent(brief(), w.tap.url())
	w.schedule(subject)
	require.Contains(t, w.result(subject, wfv1.NodeFailed).Message, "connection refused")
}

func TestAgent_404DisablesThePluginForGood(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newScripted(t, always(404, `not here`))
	w.startAgent(brief(), s.http.URL)
	w.schedule(subject)
	require.Equal(t, "no plugin executed the template", w.result(subject, wfv1.NodeFailed).Message)
	w.schedule(sentinel)
	require.Equal(t, "no plugin executed the template", w.result(sentinel, wfv1.NodeFailed).Message)
	calls, _ := s.counts(sentinel.stage)
	require.Zero(t, calls, "and it is not even asked")
}

func TestAgent_ASlowHandlerIsCalledAgainWhileItRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newScripted(t, thenSuccess(hang, ``))
	w.startAgent(patience{timeout: 2 * time.Second, backoff: 10 * time.Millisecond}, s.http.URL)
	w.schedule(subject)
	w.result(subject, wfv1.NodeSucceeded)
	calls, most := s.counts(subject.stage)
	require.Equal(t, []int{2, 2}, []int{calls, most})
}

func TestAgent_SeveralPlugins(t *testing.T) {
	t.Parallel()
	failsOnce := thenSuccess(200, `{"node":{"phase":"Failed","message":"no"}}`)
	for name, c := range map[string]struct {
		first  string
		code   int
		second func(string, int) (int, string)
		phase  wfv1.NodePhase
		calls  int // of the second
	}{
		"what is not the first's is asked of the second": {`{}`, 200, always(200, succeeded), wfv1.NodeSucceeded, 1},
		"what the first leaves in its answer sticks":     {`{"requeue":"50ms"}`, 200, failsOnce, wfv1.NodeSucceeded, 2},
		"an error of the first fails the second's stage": {`oops`, 500, always(200, succeeded), wfv1.NodeFailed, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			first, second := newScripted(t, always(c.code, c.first)), newScripted(t, c.second)
			w.startAgent(brief(), first.http.URL, second.http.URL)
			w.schedule(subject)
			w.result(subject, c.phase)
			calls, _ := second.counts(subject.stage)
			require.Equal(t, c.calls, calls)
		})
	}
}

func TestAgent_AClosedWatchOffersEverythingAgainAndNothingIsCalledTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newScripted(t, always(200, succeeded))
	w.startAgent(brief(), s.http.URL)
	w.schedule(subject)
	w.result(subject, wfv1.NodeSucceeded)
	watches := func() (n int) {
		for _, c := range w.kube.Calls() {
			if c.Verb == "watch" && c.Resource == taskSets {
				n++
			}
		}
		return n
	}
	before := watches()
	w.kube.EndWatches()
	w.until("the agent watches again", func() bool { return watches() > before })
	w.schedule(sentinel)
	w.result(sentinel, wfv1.NodeSucceeded)
	calls, _ := s.counts(subject.stage)
	require.Equal(t, 1, calls)
}

func TestAgent_OneBusyWorkerHoldsUpAllTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.workers = "1"
	s := newScripted(t, thenSuccess(hang, ``))
	w.startAgent(patience{timeout: 2 * time.Second, backoff: 10 * time.Millisecond}, s.http.URL)
	w.schedule(subject)
	w.until("the worker is busy", func() bool { calls, _ := s.counts(subject.stage); return calls == 1 })
	w.schedule(sentinel)
	w.result(sentinel, wfv1.NodeSucceeded)
	calls, _ := s.counts(subject.stage)
	require.Equal(t, 2, calls, "the other task had to wait for the first one's second try")
}

func TestAgent_ARestartCallsEverythingInTheSpecAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newScripted(t, always(200, succeeded))
	a := w.startAgent(brief(), s.http.URL)
	w.schedule(subject)
	w.result(subject, wfv1.NodeSucceeded)
	a.kill()
	w.startAgent(brief(), s.http.URL)
	w.until("the answered task is called again", func() bool { calls, _ := s.counts(subject.stage); return calls == 2 })
}

func TestAgent_ARefusedPatchRuinsItsSiblings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := newScripted(t, always(200, fmt.Sprintf(`{"node":{"phase":"Succeeded","message":%q}}`, strings.Repeat("x", 1000))))
	w.kube.Deny(tooLarge(1000))
	w.schedule(subject, sibling)
	w.startAgent(brief(), s.http.URL)
	w.result(subject, wfv1.NodeError)
	require.Contains(t, w.result(sibling, wfv1.NodeError).Message, "an error occurred when patching its result")
}

func TestAgent_AnAPIServerThatIsAwayEndsTheAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.startAgent(brief(), w.tap.url())
	w.kube.Deny(refuse(taskSets, "watch", http.StatusInternalServerError))
	w.kube.EndWatches()
	require.Equal(t, 64, a.wait())
}

func TestAgent_TheCompletedLabelEndsTheAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.startAgent(brief(), w.tap.url())
	w.end("Succeeded")
	require.Equal(t, 0, a.wait())
}

// TestAgent_StaleEntries: what an entry that was left in the task set does to
// a node, with nothing having been run.
func TestAgent_StaleEntries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.schedule(subject)
	w.stop()
	require.Equal(t, "Failed", w.phase(subject))
	w.kube.Change(taskSets, namespace, wfName, func(o kubetest.Object) {
		var late map[string]any
		require.NoError(t, json.Unmarshal([]byte(succeeded), &late))
		branch(o, "status", "nodes")[subject.id()] = late["node"]
	})
	w.reconcile()
	require.Equal(t, "Succeeded", w.phase(subject), "the failed node has turned green")
	require.Empty(t, w.results())
}
