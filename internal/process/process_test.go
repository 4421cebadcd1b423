package process_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/aphex-pipeline/aphex/internal/process"
)

const (
	// roleVar makes the test binary play a misbehaving child.
	roleVar = "PROCESS_TEST_ROLE"
	// spawnedVar says that it was spawned, and has spawnedFD.
	spawnedVar = "PROCESS_TEST_SPAWNED"
	spawnedFD  = 3
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		play(role)
		return
	}
	goleak.VerifyTestMain(m)
}

// play is the child's side. Children announce themselves by their pid on
// standard output.
func play(role string) {
	switch role {
	case "echo":
		fmt.Println("out")
		fmt.Fprintln(os.Stderr, "err")
	case "env":
		fmt.Print(strings.Join(os.Environ(), "\n"))
	case "fail":
		fmt.Println("last words")
		os.Exit(7)
	case "suicide":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Minute)
	case "polite":
		ch := make(chan os.Signal, 1)
		signal.Notify(ch, syscall.SIGTERM)
		fmt.Println(os.Getpid())
		<-ch
		fmt.Println("bye")
		os.Exit(3)
	case "clean":
		ch := make(chan os.Signal, 1)
		signal.Notify(ch, syscall.SIGTERM)
		fmt.Println(os.Getpid())
		<-ch
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println(os.Getpid())
		if os.Getenv(spawnedVar) != "" {
			_ = os.NewFile(spawnedFD, "sign").Close()
		}
		time.Sleep(time.Minute)
	case "stubborn-family": // leader obeys, grandchild does not
		spawn("stubborn", os.Stdout, false)
		time.Sleep(time.Minute)
	case "quiet-orphan": // ends well, leaves a grandchild without the pipe
		r, w, _ := os.Pipe()
		spawn("stubborn", w, false)
		pid := make([]byte, 32)
		n, _ := r.Read(pid)
		fmt.Print(string(pid[:n]))
	case "holds-pipe":
		spawn("stubborn", os.Stdout, false)
	case "daemon": // own session, holds the pipe
		spawn("stubborn", os.Stdout, true)
	case "flood":
		line := strings.Repeat("x", 1023) + "\n"
		for range 300 {
			fmt.Print(line)
		}
		fmt.Print("END")
	}
}

// spawn starts a grandchild and returns when it has said its PID, of which it
// gives a sign by closing spawnedFD.
func spawn(role string, out *os.File, session bool) {
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{roleVar + "=" + role, spawnedVar + "=1"}
	cmd.Stdout = out
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: session}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	_ = w.Close()
	_, _ = r.Read(make([]byte, 1))
	_ = r.Close()
}

func child(t *testing.T, role string, out *buffer) process.Command {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	return process.Command{Name: role, Path: exe, Env: []string{roleVar + "=" + role}, Output: out, Grace: 300 * time.Millisecond}
}

// buffer is an output that can be read while it is written.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// pid waits for the first line of the output and parses it.
func (b *buffer) pid(t *testing.T) int {
	t.Helper()
	var pid int
	require.Eventually(t, func() bool {
		line, _, ok := strings.Cut(b.String(), "\n")
		if !ok {
			return false
		}
		var err error
		pid, err = strconv.Atoi(line)
		return err == nil
	}, 10*time.Second, 5*time.Millisecond)
	return pid
}

// requireGone fails unless the process is dead (a zombie counts as dead: who
// reaps it is PID 1's business).
func requireGone(t *testing.T, pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ")
	}, 5*time.Second, 5*time.Millisecond, "process %d is alive", pid)
}

func TestRun_MergesOutputInOrder(t *testing.T) {
	t.Parallel()
	var out buffer
	exit, err := process.Run(t.Context(), child(t, "echo", &out))
	require.NoError(t, err)
	require.Equal(t, "out\nerr\n", out.String())
	require.Equal(t, "out\nerr\n", string(exit.Tail))
	require.Zero(t, exit.Code)
	require.Empty(t, exit.Warning)
}

func TestRun_KeepsStdoutApart(t *testing.T) {
	t.Parallel()
	var out, results buffer
	cmd := child(t, "echo", &out)
	cmd.Stdout = &results
	exit, err := process.Run(t.Context(), cmd)
	require.NoError(t, err)
	require.Equal(t, "err\n", out.String())
	require.Equal(t, "out\n", results.String())
	require.Equal(t, "err\n", string(exit.Tail))
}

func TestRun_PassesOnlyTheGivenEnvironment(t *testing.T) {
	t.Parallel()
	var out buffer
	cmd := child(t, "env", &out)
	cmd.Env = append(cmd.Env, "A=b")
	_, err := process.Run(t.Context(), cmd)
	require.NoError(t, err)
	require.Equal(t, roleVar+"=env\nA=b", out.String())

	out = buffer{}
	_, err = process.Run(t.Context(), process.Command{Name: "env", Path: "/usr/bin/env", Output: &out})
	require.NoError(t, err)
	require.Empty(t, out.String(), "nil is an empty environment")
}

func TestRun_ReportsCodeAndTail(t *testing.T) {
	t.Parallel()
	exit, err := process.Run(t.Context(), child(t, "fail", &buffer{}))
	exitErr, ok := errors.AsType[*process.ExitError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, 7, exitErr.Code)
	require.Equal(t, "last words\n", string(exitErr.Tail))
	require.EqualError(t, err, "fail: exit code 7")
	require.Equal(t, 7, exit.Code)
}

func TestRun_ReportsSignal(t *testing.T) {
	t.Parallel()
	exit, err := process.Run(t.Context(), child(t, "suicide", &buffer{}))
	require.EqualError(t, err, "suicide: ended by SIGKILL")
	require.Equal(t, 128+9, exit.Code)
	require.Equal(t, "SIGKILL", exit.Signal)
}

func TestRun_CancelReportsTheCause(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"polite", "stubborn"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			var out buffer
			ctx, cancel := context.WithCancelCause(t.Context())
			cmd := child(t, role, &out)
			if role == "polite" {
				cmd.Grace = 20 * time.Second
			}
			p, err := process.Start(ctx, cmd)
			require.NoError(t, err)
			pid := out.pid(t)
			require.Equal(t, p.PID(), pid)
			cause := errors.New("the run was stopped")
			cancel(cause)
			exit, err := p.Wait()
			require.ErrorIs(t, err, cause)
			requireGone(t, pid)
			if role == "polite" {
				require.Contains(t, out.String(), "bye", "grace was given")
				require.Equal(t, 3, exit.Code)
			} else {
				require.Equal(t, "SIGKILL", exit.Signal)
			}
		})
	}
}

func TestRun_CleanExitAfterCancelIsSuccess(t *testing.T) {
	t.Parallel()
	var out buffer
	ctx, cancel := context.WithCancel(t.Context())
	cmd := child(t, "clean", &out)
	cmd.Grace = 20 * time.Second
	p, err := process.Start(ctx, cmd)
	require.NoError(t, err)
	out.pid(t)
	cancel()
	exit, err := p.Wait()
	require.NoError(t, err)
	require.Zero(t, exit.Code)
}

func TestRun_CancelKillsStubbornGrandchild(t *testing.T) {
	t.Parallel()
	var out buffer
	ctx, cancel := context.WithCancel(t.Context())
	p, err := process.Start(ctx, child(t, "stubborn-family", &out))
	require.NoError(t, err)
	grandchild := out.pid(t)
	require.NotEqual(t, p.PID(), grandchild)
	cancel()
	_, err = p.Wait()
	require.ErrorIs(t, err, context.Canceled)
	requireGone(t, grandchild)
}

func TestRun_LeavesNoOrphanOfTheGroup(t *testing.T) {
	t.Parallel()
	var out buffer
	_, err := process.Run(t.Context(), child(t, "quiet-orphan", &out))
	require.NoError(t, err)
	requireGone(t, out.pid(t))
}

func TestRun_HeldPipeIsSuccessWithWarning(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"holds-pipe", "daemon"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			var out buffer
			cmd := child(t, role, &out)
			swept := 0
			cmd.Sweep = func() string { swept++; return "" }
			start := time.Now()
			exit, err := process.Run(t.Context(), cmd)
			require.NoError(t, err)
			require.Contains(t, exit.Warning, "held its output")
			require.Equal(t, 1, swept)
			require.Less(t, time.Since(start), 10*time.Second)
			if role == "daemon" { // out of the group's reach: Sweep is for it
				require.NoError(t, unix.Kill(out.pid(t), unix.SIGKILL))
			}
			requireGone(t, out.pid(t))
		})
	}
}

func TestRun_KeepsTheLast64KiB(t *testing.T) {
	t.Parallel()
	var out buffer
	exit, err := process.Run(t.Context(), child(t, "flood", &out))
	require.NoError(t, err)
	require.Len(t, out.String(), 300*1024+3)
	require.Len(t, exit.Tail, process.TailBytes)
	require.True(t, strings.HasSuffix(out.String(), string(exit.Tail)))
}

// slow is a writer that takes its time in the end, as a congested log does.
type slow struct{ buffer }

func (s *slow) Write(p []byte) (int, error) {
	if len(s.String()) > 200<<10 {
		time.Sleep(1200 * time.Millisecond)
	}
	return s.buffer.Write(p)
}

func TestRun_SlowWriterLosesNothing(t *testing.T) {
	t.Parallel()
	var out slow
	cmd := child(t, "flood", nil)
	cmd.Output = &out
	cmd.Grace = 10 * time.Millisecond // no time to settle: the rest is read from the pipe
	exit, err := process.Run(t.Context(), cmd)
	require.NoError(t, err)
	require.Len(t, out.String(), 300*1024+3)
	require.True(t, strings.HasSuffix(string(exit.Tail), "END"))
}

// broken is a writer whose disk is full.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestRun_FailingWriterEndsTheCommand(t *testing.T) {
	t.Parallel()
	cmd := child(t, "stubborn", nil)
	cmd.Output = broken{}
	_, err := process.Run(t.Context(), cmd)
	require.ErrorIs(t, err, syscall.ENOSPC)
}

func TestStart_RefusesWhatCannotRun(t *testing.T) {
	t.Parallel()
	cmd := child(t, "echo", &buffer{})
	cmd.Dir = filepath.Join(t.TempDir(), "gone")
	_, err := process.Start(t.Context(), cmd)
	require.ErrorIs(t, err, process.ErrDir)
	require.ErrorContains(t, err, cmd.Dir)

	_, err = process.Start(t.Context(), process.Command{Name: "gone", Path: "/nonexistent/gone"})
	require.ErrorIs(t, err, fs.ErrNotExist)

	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("too late")
	cancel(cause)
	_, err = process.Start(ctx, child(t, "echo", &buffer{}))
	require.ErrorIs(t, err, cause)
}

func TestStart_RetriesABusyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "script")
	exe, err := os.ReadFile("/bin/true")
	require.NoError(t, err)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	require.NoError(t, err)
	_, err = f.Write(exe)
	require.NoError(t, err)
	_, err = process.Run(t.Context(), process.Command{Name: "script", Path: path})
	require.ErrorIs(t, err, syscall.ETXTBSY, "bounded")
	time.AfterFunc(5*time.Millisecond, func() { _ = f.Close() })
	_, err = process.Run(t.Context(), process.Command{Name: "script", Path: path})
	require.NoError(t, err)
}
