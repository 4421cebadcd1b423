package cluster_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/cluster"
	"github.com/aphex-pipeline/aphex/internal/testkit/need"
)

// victimDir is the variable that makes the test binary bring up a cluster in
// a directory and wait to be killed.
const victimDir = "APHEX_TEST_VICTIM_DIR"

func TestMain(m *testing.M) {
	dir := os.Getenv(victimDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	config := cluster.ConfigFromEnv(dir, os.Stdout)
	config.Provider = cluster.ProviderLocal
	if _, err := cluster.Up(context.Background(), config); err != nil {
		_, _ = os.Stdout.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	_, _ = os.Stdout.WriteString("victim is up\n")
	select {}
}

func TestLocal_RemovesWhatKilledRunsLeft(t *testing.T) {
	need.Require(t, need.Cluster)
	root := t.TempDir()
	// One is killed while it starts Kubernetes, the other when all runs, and
	// both live at the same time.
	half := startVictim(t, filepath.Join(root, "half"), "start containerd and etcd")
	whole := startVictim(t, filepath.Join(root, "whole"), "victim is up")
	for _, name := range []string{"half", "whole"} {
		require.NotEmpty(t, traces(t, filepath.Join(root, name)))
	}
	for _, victim := range []*exec.Cmd{half, whole} {
		require.NoError(t, victim.Process.Kill())
		_ = victim.Wait()
	}

	config := cluster.ConfigFromEnv(filepath.Join(root, "next"), &testLog{t: t})
	config.Provider = cluster.ProviderLocal
	c, err := cluster.Up(t.Context(), config)
	require.NoError(t, err)
	require.NoFileExists(t, filepath.Join(root, "whole", "cluster.json"))
	require.NoError(t, c.Down(t.Context()))
	for _, name := range []string{"half", "whole", "next"} {
		require.Empty(t, traces(t, filepath.Join(root, name)))
	}
}

func TestLocal_InterruptedStartLeavesNothing(t *testing.T) {
	need.Require(t, need.Cluster)
	ctx, cancel := context.WithCancelCause(t.Context())
	log := newWatch()
	dir := filepath.Join(t.TempDir(), "c")
	config := cluster.ConfigFromEnv(dir, log)
	config.Provider = cluster.ProviderLocal
	go func() {
		<-log.seen("start containerd and etcd")
		cancel(context.Canceled)
	}()
	_, err := cluster.Up(ctx, config)
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, traces(t, dir))
}

// startVictim starts a process that brings up a cluster in dir, and returns
// it when it has said word.
func startVictim(t *testing.T, dir, word string) *exec.Cmd {
	t.Helper()
	log := newWatch()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), victimDir+"="+dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	select {
	case <-log.seen(word):
	case <-time.After(10 * time.Minute):
		t.Fatalf("the victim never said %q: %s", word, log)
	}
	return cmd
}

// watch is a log in which words can be waited for.
type watch struct {
	mu    sync.Mutex
	text  strings.Builder
	words map[string]chan struct{}
}

func newWatch() *watch { return &watch{words: map[string]chan struct{}{}} }

// seen returns a channel that is closed once word was written.
func (w *watch) seen(word string) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.words[word] = make(chan struct{})
	found := w.words[word]
	w.look()
	return found
}

func (w *watch) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	w.look()
	return len(p), nil
}

func (w *watch) look() {
	for word, found := range w.words {
		if strings.Contains(w.text.String(), word) {
			close(found)
			delete(w.words, word)
		}
	}
}

func (w *watch) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}
