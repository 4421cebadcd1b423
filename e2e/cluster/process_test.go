package cluster

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// sleeper starts a process that the test owns, ignoring SIGTERM if told so.
func sleeper(t *testing.T, script string) (process, *exec.Cmd) {
	t.Helper()
	ready := filepath.Join(t.TempDir(), "ready")
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script+" : >"+ready+"; while :; do sleep 0.05; done")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Wait() })
	require.NoError(t, poll(t.Context(), 10*time.Second, processPoll, "the start", func(context.Context) (bool, error) {
		_, err := os.Stat(ready)
		return err == nil, nil
	}))
	p, err := identify("sleeper", cmd.Process.Pid)
	require.NoError(t, err)
	return p, cmd
}

func TestSignal_NeverReachesAnotherProcessWithTheNumber(t *testing.T) {
	t.Parallel()
	answer := filepath.Join(t.TempDir(), "answer")
	p, _ := sleeper(t, "trap ': >"+answer+"' TERM;")
	stale := p
	stale.Start--
	require.False(t, stale.alive())
	require.NoError(t, stale.signal(unix.SIGKILL))
	require.NoError(t, stop(t.Context(), []process{stale}))
	// Only a process that was not killed can still answer.
	require.NoError(t, p.signal(unix.SIGTERM))
	require.NoError(t, poll(t.Context(), 5*time.Second, processPoll, "the answer of a process that must live", func(context.Context) (bool, error) {
		_, err := os.Stat(answer)
		return err == nil, nil
	}))
	require.NoError(t, stop(t.Context(), []process{p}))
	require.False(t, p.alive())
}

func TestStop_KillsWhatIgnoresSIGTERM(t *testing.T) {
	t.Parallel()
	stubborn, _ := sleeper(t, "trap '' TERM;")
	polite, _ := sleeper(t, "")
	require.NoError(t, stop(t.Context(), []process{stubborn, polite}))
	require.Empty(t, living([]process{stubborn, polite}))
}

func TestSignal_ToNobodyIsNoError(t *testing.T) {
	t.Parallel()
	p, cmd := sleeper(t, "")
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.NoError(t, p.signal(unix.SIGTERM))
	require.False(t, p.alive())
}

func TestIdentify_NamesWithParenthesesAndBlanks(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "a) S 1 (b")
	shell, err := exec.LookPath("sleep")
	require.NoError(t, err)
	require.NoError(t, os.Symlink(shell, program))
	cmd := exec.CommandContext(t.Context(), program, "60")
	require.NoError(t, cmd.Start())
	p, err := identify("odd", cmd.Process.Pid)
	require.NoError(t, err)
	require.True(t, p.alive())
	require.NoError(t, stop(t.Context(), []process{p}))
	_ = cmd.Wait()
	own, err := identify("test", os.Getpid())
	require.NoError(t, err)
	require.GreaterOrEqual(t, p.Start, own.Start)
}

func TestPoll_TellsWhatTookTooLong(t *testing.T) {
	t.Parallel()
	err := poll(t.Context(), 20*time.Millisecond, time.Millisecond, "the moon", func(context.Context) (bool, error) { return false, nil })
	require.EqualError(t, err, "the moon took longer than 20ms")
}
