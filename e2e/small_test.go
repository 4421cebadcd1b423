package e2e

import (
	"context"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

// ledger is told by the commands of testdata/small that they run. It counts
// them, and lets a test hold them or make them fail: whatever runs, and however
// often, is seen where it happens and not in what Argo says of it.
type ledger struct {
	url string

	mu     sync.Mutex
	counts map[string]int
	failed map[string]bool
	gates  map[string]chan struct{}
}

func newLedger(t *testing.T, l *lab.Lab) *ledger {
	t.Helper()
	b := &ledger{counts: map[string]int{}, failed: map[string]bool{}, gates: map[string]chan struct{}{}}
	b.url = listen(t, l, b)
	return b
}

// listen serves what pods send to this machine until the test ends, and returns
// the address.
func listen(t *testing.T, l *lab.Lab, handler http.Handler) (url string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(l.Cluster.HostAddress(), "0"))
	require.NoError(t, err)
	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // ends with Close
	}()
	t.Cleanup(func() {
		require.NoError(t, server.Close())
		<-done
	})
	return "http://" + listener.Addr().String()
}

func (b *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	what := strings.TrimPrefix(r.URL.Path, "/")
	b.mu.Lock()
	b.counts[what]++
	fails, gate := b.failed[what], b.gates[what]
	b.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-r.Context().Done():
			return
		}
	}
	if fails {
		http.Error(w, "as the test wants it", http.StatusInternalServerError)
	}
}

// fail makes what fail, or no longer.
func (b *ledger) fail(what string, fails bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed[what] = fails
}

// hold keeps what from ending until the returned function is called.
func (b *ledger) hold(what string) (release func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	gate := make(chan struct{})
	b.gates[what] = gate
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		close(gate)
		if b.gates[what] == gate {
			delete(b.gates, what)
		}
	})
}

// ran returns how often each command began since the last call.
func (b *ledger) ran() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	counts := b.counts
	b.counts = map[string]int{}
	return counts
}

// began reports whether what began since the last call of ran.
func (b *ledger) began(what string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.counts[what] > 0
}

// newSmall makes a pipeline with testdata/small: a build, one environment with
// one stack, a test, each of which only tells the ledger.
func newSmall(t *testing.T, l *lab.Lab, name string, changes ...func(*pipeline.Installation)) (*lab.Pipeline, string, *ledger) {
	t.Helper()
	p, err := l.NewPipeline(t.Context(), name, changes...)
	require.NoError(t, err)
	b := newLedger(t, l)
	dir := t.TempDir()
	source := os.DirFS(filepath.Join("testdata", "small"))
	require.NoError(t, fs.WalkDir(source, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(source, path)
		if err != nil {
			return err
		}
		target := filepath.Join(dir, strings.ReplaceAll(path, "STACK", name))
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return err
		}
		return os.WriteFile(target, []byte(strings.ReplaceAll(string(text), "STACK", name)), 0o600)
	}))
	cfg := config([]string{". ./ledger.sh; did build"}, dev(name, ". ./ledger.sh; did test"))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "aphex-config.yaml"), []byte(cfg), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ledger-url"), []byte(b.url), 0o600))
	commit, err := p.Push(t.Context(), gitserver.Change{Dir: dir, Message: "first"})
	require.NoError(t, err)
	require.NoError(t, p.Apply(t.Context(), []byte(cfg)))
	return p, commit, b
}

// smallTemplate is the path and the text of the template of testdata/small,
// whose one parameter has the value "one", with another value.
func smallTemplate(t *testing.T, name, value string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "small", "assembly", "STACK.template.json"))
	require.NoError(t, err)
	changed := strings.ReplaceAll(strings.Replace(string(text), `"one"`, `"`+value+`"`, 1), "STACK", name)
	return map[string]string{"assembly/" + name + ".template.json": changed}
}

// held is a run of a small pipeline whose build has begun and does not end
// before release is called.
type held struct {
	*lab.Run
	p       *lab.Pipeline
	ledger  *ledger
	status  lab.Status
	release func()
	// mail is what its channel heard, at /hook.
	mail *mailbox
}

// holdBuild makes a small pipeline and brings a run to its build.
func holdBuild(ctx context.Context, t *testing.T, l *lab.Lab, name string, r runner) held {
	t.Helper()
	p, _, ledger := newSmall(t, l, name, r.use)
	h := held{p: p, ledger: ledger, release: ledger.hold("build"), mail: &mailbox{mail: map[string][]string{}}}
	t.Cleanup(h.release)
	putParameter(t, l, "/e2e/held-"+name, listen(t, l, h.mail)+"/hook")
	cfg := config([]string{". ./ledger.sh; did build"}, dev(name, ". ./ledger.sh; did test")) + "notifications: [{type: webhook, target: \"ssm:/e2e/held-" + name + "\"}]\n"
	commit, err := p.Push(ctx, gitserver.Change{Write: map[string]string{pipeline.DefaultFile: cfg}})
	require.NoError(t, err)
	require.NoError(t, p.Apply(ctx, []byte(cfg)))
	h.Run, err = p.Submit(ctx, commit)
	require.NoError(t, err)
	h.status, err = h.Until(ctx, "the build's command runs", func(s lab.Status) bool { return ledger.began("build") || s.Done() })
	require.NoError(t, err)
	require.False(t, h.status.Done(), "%+v", h.status)
	return h
}

// server returns Argo's server.
func server(t *testing.T, l *lab.Lab) *lab.Server {
	t.Helper()
	s, err := l.Server()
	require.NoError(t, err)
	return s
}

// limited is the context of one scenario of at most two runs.
func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*runLimit)
	t.Cleanup(cancel)
	return ctx
}
