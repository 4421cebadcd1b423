package conformance

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	executorplugins "github.com/argoproj/argo-workflows/v3/pkg/plugins/executor"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/tasks/task"
)

// tap stands between the agent and the plugin. It can lose, hold back and
// count answers, and at the end of the test it holds every answer that the
// plugin gave against the rules of the wire.
type tap struct {
	t     *testing.T
	world *world

	mu     sync.Mutex
	addr   string // of the tap; fixed once it listened
	server *http.Server
	target string // of the plugin
	fault  func(call int) answerFault
	seen   []exchange
}

// answerFault is what happens to one answer on its way to the agent.
type answerFault struct {
	// lost: the connection ends instead. cut: after half of the body.
	lost, cut bool
	hold      time.Duration
}

// exchange is one call and the plugin's answer.
type exchange struct {
	stage, key string
	ours       bool
	status     int
	body       []byte
	wrongToken bool
}

func newTap(t *testing.T, w *world) *tap {
	t.Helper()
	tp := &tap{t: t, world: w}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	tp.addr = l.Addr().String()
	tp.serve(l)
	t.Cleanup(func() {
		tp.close()
		tp.check()
	})
	return tp
}

func (tp *tap) url() string { return "http://" + tp.addr }

func (tp *tap) serve(l net.Listener) {
	s := &http.Server{Handler: tp, ReadHeaderTimeout: time.Minute}
	tp.mu.Lock()
	tp.server = s
	tp.mu.Unlock()
	go func() { _ = s.Serve(l) }() // ends with close
}

// close refuses connections from here on.
func (tp *tap) close() {
	tp.mu.Lock()
	s := tp.server
	tp.mu.Unlock()
	_ = s.Close()
}

// reopen listens again where it did before.
func (tp *tap) reopen() {
	tp.t.Helper()
	var l net.Listener
	tp.world.until("the port is free again", func() (ok bool) {
		var err error
		l, err = net.Listen("tcp", tp.addr)
		return err == nil
	})
	tp.serve(l)
}

// to makes the plugin at addr the one that answers.
func (tp *tap) to(addr string) {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	tp.target = addr
}

// disturb sets what happens to the answers, by the number of the call from 0.
func (tp *tap) disturb(fault func(call int) answerFault) {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	tp.fault = fault
}

// exchanges returns what was said so far.
func (tp *tap) exchanges() []exchange {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	return append([]exchange(nil), tp.seen...)
}

// count returns how often the plugin has answered as match wants it.
func (tp *tap) count(match func(exchange) bool) (n int) {
	for _, e := range tp.exchanges() {
		if match(e) {
			n++
		}
	}
	return n
}

// ServeHTTP hands the call on. A plugin that cannot be reached, or that breaks
// off, is a connection that ends without an answer.
func (tp *tap) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	tp.mu.Lock()
	target := tp.target
	tp.mu.Unlock()
	req, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+target+r.URL.Path, bytes.NewReader(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	req.Header = r.Header.Clone()
	// A connection of its own, so that one the plugin closed is never used.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	fault := tp.record(body, r.Header.Get("Authorization") != "Bearer "+token, resp.StatusCode, answer)
	if fault.hold > 0 {
		select {
		case <-time.After(fault.hold):
		case <-r.Context().Done():
		}
	}
	if fault.lost {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	w.WriteHeader(resp.StatusCode)
	if fault.cut {
		_, _ = w.Write(answer[:len(answer)/2])
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(answer) // the agent may have given up
}

func (tp *tap) record(body []byte, wrongToken bool, status int, answer []byte) answerFault {
	var args struct {
		Template struct {
			Plugin map[string]struct {
				Stage   string `json:"stage"`
				Node    string `json:"node"`
				Attempt string `json:"attempt"`
			} `json:"plugin"`
		} `json:"template"`
	}
	err := json.Unmarshal(body, &args)
	mine, ours := args.Template.Plugin["aphex"]
	tp.world.mu.Lock()
	epoch := tp.world.epoch
	tp.world.mu.Unlock()
	tp.mu.Lock()
	defer tp.mu.Unlock()
	if err != nil {
		tp.t.Errorf("the agent sends what is not of the known shape: %v", err)
	}
	call := len(tp.seen)
	tp.seen = append(tp.seen, exchange{
		stage: mine.Stage, key: mine.Node + " " + mine.Attempt + " " + epoch.String(), ours: ours,
		status: status, body: answer, wrongToken: wrongToken,
	})
	if tp.fault == nil {
		return answerFault{}
	}
	return tp.fault(call)
}

// check holds every answer against what the plugin must and must not say.
func (tp *tap) check() {
	finals := map[string]string{}
	for _, e := range tp.exchanges() {
		tp.checkOne(e, finals)
	}
}

func (tp *tap) checkOne(e exchange, finals map[string]string) {
	t := tp.t
	require.True(t, json.Valid(e.body), "%s", e.body)
	switch {
	case e.wrongToken:
		require.Equal(t, http.StatusForbidden, e.status)
		return
	case e.status == http.StatusServiceUnavailable:
		return
	}
	require.Equal(t, http.StatusOK, e.status, "%s", e.body)
	require.Less(t, len(e.body), 80<<10, "one reply stays small")
	var reply executorplugins.ExecuteTemplateReply
	require.NoError(t, json.Unmarshal(e.body, &reply))
	if !e.ours {
		require.Equal(t, `{}`, string(e.body), "not mine")
		return
	}
	require.NotNil(t, reply.Node, "%s", e.body)
	node := reply.Node
	switch node.Phase {
	case "", wfv1.NodeRunning:
		require.Positive(t, reply.GetRequeue(), "%s", e.body)
		require.Nil(t, node.Outputs, "%s", e.body)
		require.Equal(t, node.Phase == "", node.Message == "", "%s", e.body)
		if node.Phase == wfv1.NodeRunning {
			require.Empty(t, finals[e.key], "running after final")
		}
	case wfv1.NodeSucceeded, wfv1.NodeFailed, wfv1.NodeError:
		require.Nil(t, reply.Requeue, "a final reply has no requeue: %s", e.body)
		require.NotEmpty(t, node.Message)
		require.LessOrEqual(t, len(node.Message), 1<<10)
		declared := parameters(node)
		for _, name := range task.Outputs(e.stage) {
			require.Contains(t, declared, name, "every declared output is there")
		}
		require.NotNil(t, node.Outputs.ExitCode)
		if before := finals[e.key]; before != "" {
			require.Equal(t, before, string(e.body), "a final reply stays what it is")
		}
		finals[e.key] = string(e.body)
	default:
		require.Fail(t, "unknown phase", "%s", e.body)
	}
}
