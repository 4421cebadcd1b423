package worker_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// The test binary plays a dedicated worker, or a daemon, if told so.
const (
	roleVar   = "WORKER_TEST_ROLE"
	socketVar = "WORKER_TEST_SOCKET"
	rootVar   = "WORKER_TEST_ROOT"
)

func TestMain(m *testing.M) {
	if os.Getenv(roleVar) == "worker" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		err := worker.Serve(ctx, worker.ServerConfig{
			Socket: os.Getenv(socketVar), Root: os.Getenv(rootVar), Environ: os.Environ(), Dedicated: true,
		})
		if err != nil {
			panic(err)
		}
		return
	}
	if os.Getenv(roleVar) == "client" {
		c := worker.NewClient(os.Getenv(socketVar), worker.WithConnectTimeout(time.Second))
		_, err := c.Ping(context.Background())
		fmt.Printf("ping: %v\n", err)
		return
	}
	goleak.VerifyTestMain(m)
}

// testbed is a worker with its client.
type testbed struct {
	*worker.Client
	socket, root string
	stop         func()
}

// serve runs a worker inside the test.
func serve(t *testing.T, change ...func(*worker.ServerConfig)) *testbed {
	t.Helper()
	dir := t.TempDir()
	b := &testbed{socket: filepath.Join(dir, "run", "worker.sock"), root: filepath.Join(dir, "workspace")}
	require.NoError(t, os.Mkdir(filepath.Dir(b.socket), 0o755))
	require.NoError(t, os.Mkdir(b.root, 0o755))
	cfg := worker.ServerConfig{Socket: b.socket, Root: b.root, Environ: []string{"PATH=" + os.Getenv("PATH")}, Version: "v1", Grace: time.Second}
	for _, c := range change {
		c(&cfg)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- worker.Serve(ctx, cfg) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(b.stop)
	b.Client = worker.NewClient(cfg.Socket)
	_, err := b.Ping(t.Context())
	require.NoError(t, err)
	return b
}

// dedicated runs a worker as a process of its own, as in a pod.
func dedicated(t *testing.T, opts ...worker.Option) (*testbed, *exec.Cmd) {
	t.Helper()
	dir := t.TempDir()
	b := &testbed{socket: filepath.Join(dir, "worker.sock"), root: dir}
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{roleVar + "=worker", socketVar + "=" + b.socket, rootVar + "=" + b.root, "PATH=" + os.Getenv("PATH")}
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	b.stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(b.stop)
	b.Client = worker.NewClient(b.socket, opts...)
	return b, cmd
}

// output can be read while it is written.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// line waits for a whole line that starts with prefix and returns the rest.
func (o *output) line(t *testing.T, prefix string) string {
	t.Helper()
	var rest string
	require.Eventually(t, func() bool {
		for line := range strings.Lines(o.String()) {
			if after, ok := strings.CutPrefix(line, prefix); ok && strings.HasSuffix(after, "\n") {
				rest = strings.TrimSpace(after)
				return true
			}
		}
		return false
	}, 20*time.Second, 5*time.Millisecond, "no line %q", prefix)
	return rest
}

// script runs shell text that must be startable.
func (b *testbed) script(t *testing.T, text string) (worker.Exit, string) {
	t.Helper()
	var out output
	exit, err := b.Exec(t.Context(), worker.Command{Script: text}, &out)
	require.NoError(t, err)
	return exit, out.String()
}

// requireReason checks an error's reason, and that it has a text.
func requireReason(t *testing.T, reason fault.Reason, err error) *fault.Fault {
	t.Helper()
	require.Error(t, err)
	f := fault.From(err)
	require.Equal(t, reason, f.Reason, "%v", err)
	return f
}

func TestPing_SaysWhoAnswers(t *testing.T) {
	t.Parallel()
	b := serve(t)
	info, err := b.Ping(t.Context())
	require.NoError(t, err)
	require.Equal(t, worker.Info{Version: "v1", BootID: info.BootID, UID: os.Getuid(), PID: os.Getpid(), Root: b.root}, info)
	require.NotEmpty(t, info.BootID)
	for _, dir := range []string{"source", "home", "tmp", "out"} {
		require.DirExists(t, filepath.Join(b.root, dir))
	}
	socket, err := os.Stat(b.socket)
	require.NoError(t, err)
	require.Equal(t, os.ModeSocket|0o660, socket.Mode())
}

func TestClient_WaitsForAWorkerThatStarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	time.AfterFunc(300*time.Millisecond, func() {
		go func() { done <- worker.Serve(ctx, worker.ServerConfig{Socket: socket, Root: dir}) }()
	})
	_, err := worker.NewClient(socket).Ping(t.Context())
	require.NoError(t, err)
	cancel()
	require.NoError(t, <-done)
	require.NoFileExists(t, socket, "a worker that ends removes its socket")
}

func TestClient_WorkerUnavailable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := worker.NewClient(filepath.Join(dir, "s"), worker.WithConnectTimeout(250*time.Millisecond))
	_, err := c.Ping(t.Context())
	f := requireReason(t, fault.WorkerUnavailable, err)
	require.Contains(t, f.Remedy, "container")
	_, err = c.Exec(t.Context(), worker.Command{Script: "true"}, nil)
	requireReason(t, fault.WorkerUnavailable, err)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Ping(ctx)
	requireReason(t, fault.Cancellation, err)
	patient := worker.NewClient(filepath.Join(dir, "s"))
	ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = patient.Exec(ctx, worker.Command{Script: "true"}, nil)
	requireReason(t, fault.StageTimeout, err)
}

func TestServe_ReplacesAStaleSocket(t *testing.T) {
	t.Parallel()
	for name, occupy := range map[string]func(path string) error{
		"file":   func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"socket": func(p string) error { return syscall.Mknod(p, syscall.S_IFSOCK|0o600, 0) },
		"folder": func(p string) error { return os.MkdirAll(filepath.Join(p, "x"), 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			serve(t, func(c *worker.ServerConfig) { require.NoError(t, occupy(c.Socket)) })
		})
	}
}

func TestServe_LongSocketPath(t *testing.T) {
	t.Parallel()
	long := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	require.NoError(t, os.Mkdir(long, 0o755))
	serve(t, func(c *worker.ServerConfig) { c.Socket = filepath.Join(long, "worker.sock") })
}

func TestServe_RefusesWhatItCannotUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	err := worker.Serve(t.Context(), worker.ServerConfig{Socket: filepath.Join(dir, "none", "s"), Root: dir})
	require.ErrorIs(t, err, os.ErrNotExist)
	err = worker.Serve(t.Context(), worker.ServerConfig{Socket: filepath.Join(dir, "s"), Root: filepath.Join(dir, "none")})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestServe_PutsTheSocketBack(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"deleted":  `rm "$SOCKET"; echo done; sleep 0.1`,
		"replaced": `rm "$SOCKET"; echo mine >"$SOCKET"; echo done`,
		"folder":   `rm "$SOCKET"; mkdir -p "$SOCKET/x"; echo done`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := serve(t)
			_, err := b.Exec(t.Context(), worker.Command{Script: text, Env: map[string]string{"SOCKET": b.socket}}, io.Discard)
			require.NoError(t, err)
			c := worker.NewClient(b.socket, worker.WithConnectTimeout(5*time.Second))
			_, err = c.Ping(t.Context())
			require.NoError(t, err)
		})
	}
}

func TestServe_CancelWorksWithoutTheSocket(t *testing.T) {
	t.Parallel()
	b := serve(t)
	var out output
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(0, func() { out.line(t, "gone"); cancel() })
	_, err := b.Exec(ctx, worker.Command{Script: `rm "$SOCKET"; echo gone; sleep 60`, Env: map[string]string{"SOCKET": b.socket}}, &out)
	requireReason(t, fault.Cancellation, err)
}

func TestServe_CommandsCannotUseTheWorker(t *testing.T) {
	t.Parallel()
	b, _ := dedicated(t)
	exe, err := os.Executable()
	require.NoError(t, err)
	var out output
	_, err = b.Exec(t.Context(), worker.Command{
		Script: `"$EXE"; (setsid sh -c '"$EXE"; touch stop' &); until [ -e stop ] || [ $SECONDS -ge 60 ]; do sleep 0.05; done`,
		Env:    map[string]string{"EXE": exe, roleVar: "client", socketVar: b.socket},
	}, &out)
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(out.String(), "the worker went away"), out.String())
}

func TestInstall_CopiesAtomically(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
	require.NoError(t, os.WriteFile(src, []byte("#!/bin/sh\necho new\n"), 0o600))
	require.NoError(t, os.WriteFile(dst, []byte("old"), 0o444))
	require.NoError(t, worker.Install(src, dst))
	info, err := os.Stat(dst)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), info.Mode())
	got, err := exec.Command(dst).Output()
	require.NoError(t, err)
	require.Equal(t, "new\n", string(got))
	require.ErrorIs(t, worker.Install(filepath.Join(dir, "none"), dst), os.ErrNotExist)
	require.ErrorIs(t, worker.Install(src, filepath.Join(dir, "no", "dst")), os.ErrNotExist)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 2)
}
