package conformance

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/plugin/execution"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/plugin/nudge"
	"github.com/aphex-pipeline/aphex/plugin/server"
	"github.com/aphex-pipeline/aphex/plugin/sidecar"
	"github.com/aphex-pipeline/aphex/plugin/watchdog"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// plugin is one process of the sidecar, as far as a test can have it in its
// own.
type plugin struct {
	t         *testing.T
	addr      string
	cancel    context.CancelFunc
	listeners []net.Listener
	done      chan error
	once      sync.Once
	err       error
}

// startPlugin starts the sidecar with the given stages in the pod called pod
// and directs the tap to it.
func (w *world) startPlugin(pod string, stages task.Registry, changes ...func(*sidecar.Config)) *plugin {
	w.t.Helper()
	listeners, err := server.Listen(w.t.Context(), 0)
	require.NoError(w.t, err)
	tokenFile := filepath.Join(w.dir, "token")
	require.NoError(w.t, os.WriteFile(tokenFile, []byte(token), 0o600))
	logger := slog.New(slog.NewTextHandler(w.t.Output(), nil))
	client := w.kube.Client(w.t)
	cfg := sidecar.Config{
		Registry: stages, Journal: journal.NewKube(client, pod, "shop"), PodUID: pod,
		Runs: execution.NewKubeRuns(client), Nudger: nudge.New(client, nudge.Timing{}, logger),
		Keeper: watchdog.New(client, watchdog.Timing{}, logger),
		LogDir: filepath.Join(w.dir, pod, "logs"), Logs: store.NewDir(filepath.Join(w.dir, "bucket")),
		TokenFile: tokenFile, Listeners: listeners, Stdout: w.t.Output(), Logger: logger,
		FirstPoll: 100 * time.Millisecond, LongPoll: 400 * time.Millisecond, Requeue: 50 * time.Millisecond,
		ReportEvery: time.Hour, Grace: 3 * time.Second,
	}
	for _, change := range changes {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	p := &plugin{t: w.t, addr: listeners[0].Addr().String(), cancel: cancel, listeners: listeners, done: make(chan error, 1)}
	go func() { p.done <- sidecar.Run(ctx, cfg) }()
	w.t.Cleanup(func() { p.crash() })
	ready, cancelReady := context.WithTimeout(w.t.Context(), deadline)
	defer cancelReady()
	if cfg.TokenFile == tokenFile {
		require.NoError(w.t, sidecar.WaitReady(ready, p.addr))
	}
	w.tap.to(p.addr)
	return p
}

// watchful makes the plugin look for lost results in a test's time.
func (w *world) watchful(cfg *sidecar.Config) {
	cfg.Keeper = watchdog.New(w.kube.Client(w.t), watchdog.Timing{Delay: 500 * time.Millisecond, Every: 200 * time.Millisecond}, cfg.Logger)
}

// crash ends the process without a farewell: its connections break, and what
// its stages and its journal were about to do is cut off.
func (p *plugin) crash() {
	for _, l := range p.listeners {
		_ = l.Close() // the sidecar takes that for the end of the world
	}
	_ = p.wait() // that its listeners broke
	p.cancel()
}

// terminate is SIGTERM. It does not wait.
func (p *plugin) terminate() { p.cancel() }

// wait returns how the process ended.
func (p *plugin) wait() error {
	p.once.Do(func() { p.err = <-p.done })
	return p.err
}

// returns is a stage that ends at once.
func returns(result task.Result, err error) task.Runner {
	return task.RunnerFunc(func(context.Context, task.Request, task.Env) (task.Result, error) { return result, err })
}

// done is the result of a stage that went well.
func done() task.Result { return task.Result{Message: "all done"} }

// gate is a stage that ends when it is let, and counts its runs.
type gate struct {
	mu               sync.Mutex
	runs, live, most int
	open             chan struct{}
	once             sync.Once
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

// Run implements task.Runner.
func (g *gate) Run(ctx context.Context, _ task.Request, env task.Env) (task.Result, error) {
	g.add(1)
	defer g.add(-1)
	_, _ = fmt.Fprintln(env.Output, "working") // a log never fails
	select {
	case <-g.open:
		return done(), nil
	case <-ctx.Done():
		return task.Result{}, context.Cause(ctx)
	}
}

func (g *gate) add(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.live += n
	if n > 0 {
		g.runs++
		g.most = max(g.most, g.live)
	}
}

// release lets the stage end, now and whenever it is run again.
func (g *gate) release() { g.once.Do(func() { close(g.open) }) }

// counts returns how often the stage was run, and how often at once.
func (g *gate) counts() [2]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return [2]int{g.runs, g.most}
}

// running says whether the stage is at work.
func (g *gate) running() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.live > 0
}
