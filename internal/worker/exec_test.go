package worker_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

func TestExec_Script(t *testing.T) {
	t.Parallel()
	b := serve(t)
	tests := []struct {
		name, script, want string
		code               int
	}{
		{"merged in order", "echo a; echo b >&2; echo c", "a\nb\nc\n", 0},
		{"several lines", "for i in 1 2; do\n  echo $i\ndone\ncat <<EOF\nhere\nEOF\n", "1\n2\nhere\n", 0},
		{"exit code", "echo before; exit 7; echo after", "before\n", 7},
		{"stops at a failure", "echo before\nfalse\necho after", "before\n", 1},
		{"pipefail", "false | true\necho after", "", 1},
		{"last status without -e", "set +e; false", "", 1},
		{"missing program", "nonexistent-program", "bash: line 1: nonexistent-program: command not found\n", 127},
		{"line numbers are the user's", "true\ntrue\nnonexistent-program", "bash: line 3: nonexistent-program: command not found\n", 127},
		{"no arguments", `echo $# "$0"`, "0 bash\n", 0},
		{"quotes are the user's", `echo "a'b\"c" '$x' \\ "$(echo "in")"`, "a'b\"c $x \\ in\n", 0},
		{"exit trap", "trap 'echo bye' EXIT; echo hi", "hi\nbye\n", 0},
		{"exit trap sees the code", "trap 'echo bye $?' EXIT; exit 3", "bye 3\n", 3},
		{"exit without code", "trap 'echo bye $?' EXIT; true; exit", "bye 0\n", 0},
		{"exit in a subshell", "(exit 4) || echo sub $?; x=$(echo v; exit 0); echo $x", "sub 4\nv\n", 0},
		{"exit in a pipeline", "set +o pipefail; exit 5 | true; echo on", "on\n", 0},
		{"nounset", "set -u; echo ok; exit 0", "ok\n", 0},
		{"empty input", "read -r x || echo none", "none\n", 0},
		{"no trace of ours", "set -x; true; exit 0", "++ true\n++ exit 0\n", 0},
		{"noclobber", "set -C; echo ok", "ok\n", 0},
		{"syntax error", "echo a\nif true; then", "", 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			exit, out := b.script(t, test.script)
			require.Equal(t, test.code, exit.Code, "%s", out)
			if test.name != "syntax error" {
				require.Equal(t, test.want, out)
			} else {
				require.Contains(t, out, "syntax error")
			}
			require.Equal(t, out, string(exit.Tail))
			require.Empty(t, exit.Warning)
			require.Positive(t, exit.Duration)
		})
	}
}

func TestExec_CarriesFolderAndVariables(t *testing.T) {
	t.Parallel()
	b := serve(t)
	tests := map[string]string{
		"plain end":            "",
		"exit 0":               "\nexit 0",
		"bare exit":            "\nexit",
		"builtin exit":         "\nbuiltin exit 0",
		"own trap":             "\ntrap 'echo bye' EXIT",
		"own trap and exit":    "\ntrap 'echo bye' EXIT; exit 0",
		"failure":              "\nfalse",
		"trace":                "\nset -x",
		"noclobber and posix":  "\nset -C; set -o posix",
		"strange IFS and path": "\nIFS=/; export PATH=/nowhere",
		"closed outputs":       "\nexec >&- 2>&-",
		"exit from a function": "\nf() { exit 0; }; f",
	}
	for name, end := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			script := "mkdir -p 'a dir/b'; cd 'a dir/b'; export A=$'two\\nlines = \\'x\\' \"y\" \\xff' E=; B=not; unset LANG" + end
			exit, err := b.Exec(t.Context(), worker.Command{Script: script, Dir: "source", Env: map[string]string{"GIVEN": "g"}}, nil)
			require.NoError(t, err)
			require.Equal(t, "source/a dir/b", exit.Dir)
			require.Equal(t, "two\nlines = 'x' \"y\" \xff", exit.Env["A"])
			require.Contains(t, exit.Env, "E")
			require.Equal(t, "g", exit.Env["GIVEN"])
			require.NotContains(t, exit.Env, "B")
			require.NotContains(t, exit.Env, "LANG")
			for key := range exit.Env {
				require.NotContains(t, strings.ToLower(key), "aphex")
				require.NotContains(t, []string{"_", "SHLVL", "PWD"}, key)
			}
			if strings.Contains(name, "path") {
				return
			}
			var out output
			next, err := b.Exec(t.Context(), worker.Command{
				Script: `pwd; printf '%s|%s' "$A" "${LANG-unset}"`, Dir: exit.Dir, Env: exit.Env, ExactEnv: true,
			}, &out)
			require.NoError(t, err)
			require.Zero(t, next.Code)
			require.True(t, strings.HasPrefix(out.String(), filepath.Join(b.root, "source/a dir/b")+"\n"+exit.Env["A"]+"|unset"), out.String())
		})
	}
}

func TestExec_CarriesWhatIsNotPlain(t *testing.T) {
	t.Parallel()
	b := serve(t)
	exit, _ := b.script(t, "cd /")
	require.Equal(t, "/", exit.Dir)
	exit, _ = b.script(t, "cd source; cd ..")
	require.Empty(t, exit.Dir)

	// The logical path through a link, as one shell would keep it.
	require.NoError(t, os.MkdirAll(filepath.Join(b.root, "source/real/deep"), 0o755))
	require.NoError(t, os.Symlink("real/deep", filepath.Join(b.root, "source/link")))
	exit, _ = b.script(t, "cd source/link")
	require.Equal(t, "source/link", exit.Dir)
	next, err := b.Exec(t.Context(), worker.Command{Script: "cd ..", Dir: exit.Dir, Env: exit.Env, ExactEnv: true}, nil)
	require.NoError(t, err)
	require.Equal(t, "source", next.Dir)

	// Functions that are exported are exported.
	exit, _ = b.script(t, "greet() { echo hello; }; export -f greet")
	var out output
	_, err = b.Exec(t.Context(), worker.Command{Script: "greet", Env: exit.Env, ExactEnv: true}, &out)
	require.NoError(t, err)
	require.Equal(t, "hello\n", out.String())
}

func TestExec_UnknownEndKeepsTheBeginning(t *testing.T) {
	t.Parallel()
	b := serve(t)
	exit, err := b.Exec(t.Context(), worker.Command{Script: "cd /; exec true", Dir: "source", Env: map[string]string{"A": "b"}}, nil)
	require.NoError(t, err)
	require.Equal(t, "source", exit.Dir)
	require.Equal(t, "b", exit.Env["A"])
	require.Contains(t, exit.Warning, "exec")
	left, err := os.ReadDir(filepath.Join(b.root, ".aphex"))
	require.NoError(t, err)
	require.Empty(t, left, "scripts are removed")
}

func TestExec_EnvironmentIsAnAllowList(t *testing.T) {
	t.Parallel()
	b := serve(t, func(c *worker.ServerConfig) {
		c.Environ = []string{
			"PATH=" + os.Getenv("PATH"), "JAVA_HOME=/jdk", "GOPATH=/go", "HOME=/root", "APP_PORT=8080",
			"APHEX_BUCKET=b", "ARGO_TOKEN=t", "AWS_ROLE_ARN=r", "KUBERNETES_SERVICE_HOST=1.2.3.4",
			"SHOP_SERVICE_HOST=1", "SHOP_SERVICE_PORT=2", "SHOP_SERVICE_PORT_HTTP=2", "SHOP_PORT=tcp://1:2",
			"SHOP_PORT_80_TCP=tcp://1:2", "SHOP_PORT_80_TCP_ADDR=1",
		}
	})
	var out output
	_, err := b.Exec(t.Context(), worker.Command{Argv: []string{"env"}, Env: map[string]string{"AWS_REGION": "eu-west-1", "CI": "1"}}, &out)
	require.NoError(t, err)
	got := map[string]string{}
	for line := range strings.Lines(out.String()) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		got[key] = value
	}
	require.NotEmpty(t, got["APHEX_COMMAND_ID"])
	delete(got, "APHEX_COMMAND_ID")
	require.Equal(t, map[string]string{
		"PATH": os.Getenv("PATH"), "JAVA_HOME": "/jdk", "GOPATH": "/go", "APP_PORT": "8080",
		"HOME": b.root + "/home", "TMPDIR": b.root + "/tmp", "LANG": "C.UTF-8", "CI": "1", "PWD": b.root,
		"AWS_REGION": "eu-west-1", "AWS_EC2_METADATA_DISABLED": "true", "GIT_TERMINAL_PROMPT": "0",
		"GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": b.root + "/source",
		"GIT_CONFIG_KEY_1": "safe.directory", "GIT_CONFIG_VALUE_1": b.root + "/source/*",
	}, got)
}

func TestExec_ArgvIsNoShell(t *testing.T) {
	t.Parallel()
	b := serve(t)
	var out output
	exit, err := b.Exec(t.Context(), worker.Command{Argv: []string{"printf", "%s|", "$HOME", "a b", "; rm -rf /", ""}}, &out)
	require.NoError(t, err)
	require.Equal(t, "$HOME|a b|; rm -rf /||", out.String())
	require.Nil(t, exit.Env)

	require.NoError(t, os.WriteFile(filepath.Join(b.root, "source/tool"), []byte("#!/bin/sh\necho tool $1\n"), 0o755))
	out = output{}
	_, err = b.Exec(t.Context(), worker.Command{Argv: []string{"./tool", "x"}, Dir: "source"}, &out)
	require.NoError(t, err)
	require.Equal(t, "tool x\n", out.String())
}

func TestExec_WhatCannotStart(t *testing.T) {
	t.Parallel()
	b := serve(t)
	_, err := b.Exec(t.Context(), worker.Command{Argv: []string{"no-such-tool"}}, nil)
	f := requireReason(t, fault.ToolMissing, err)
	require.Contains(t, f.Remedy, "no-such-tool")
	require.Equal(t, fault.User, f.Class)
	_, err = b.Exec(t.Context(), worker.Command{Script: "true", Env: map[string]string{"PATH": "/nowhere"}}, nil)
	f = requireReason(t, fault.ToolMissing, err)
	require.Contains(t, f.Remedy, "image with bash")
	_, err = b.Exec(t.Context(), worker.Command{Script: "true", Dir: "source/gone"}, nil)
	requireReason(t, fault.DirectoryMissing, err)
	require.ErrorContains(t, err, "source/gone")
	for _, cmd := range []worker.Command{
		{},
		{Script: "true", Argv: []string{"true"}},
		{Script: "a\x00b"},
		{Argv: []string{""}},
		{Argv: []string{"a\x00"}},
		{Script: "true", Env: map[string]string{"A=B": ""}},
		{Script: "true", Env: map[string]string{"A": "\x00"}},
		{Script: "true", Dir: "\x00"},
	} {
		_, err = b.Exec(t.Context(), cmd, nil)
		requireReason(t, fault.BadRequest, err)
	}
}

func TestExec_Signal(t *testing.T) {
	t.Parallel()
	b := serve(t)
	exit, _ := b.script(t, "kill -9 $$")
	require.Equal(t, 137, exit.Code)
	require.Equal(t, "SIGKILL", exit.Signal)
}

func TestExec_StreamsLiveAndKeepsTheTail(t *testing.T) {
	t.Parallel()
	b := serve(t)
	var out output
	gate := filepath.Join(b.root, "gate")
	go func() {
		out.line(t, "first") // arrives while the command still runs
		_ = os.WriteFile(gate, nil, 0o600)
	}()
	exit, err := b.Exec(t.Context(), worker.Command{
		Script: `echo first; until [ -e gate ]; do sleep 0.02; done; for i in $(seq 20000); do echo "line $i"; done; echo last`,
	}, &out)
	require.NoError(t, err)
	require.Greater(t, len(out.String()), 3*worker.TailBytes)
	require.Len(t, exit.Tail, worker.TailBytes)
	require.True(t, strings.HasSuffix(out.String(), string(exit.Tail)))
	require.True(t, strings.HasSuffix(out.String(), "line 20000\nlast\n"))
}

func TestExec_LimitsOutput(t *testing.T) {
	t.Parallel()
	b := serve(t)
	var out output
	exit, err := b.Exec(t.Context(), worker.Command{Script: "seq 100000", MaxOutput: 1000}, &out)
	require.NoError(t, err)
	require.Len(t, out.String(), 1000)
	require.True(t, strings.HasSuffix(string(exit.Tail), "100000\n"))
	require.Contains(t, exit.Warning, "beyond the limit of 1000")
}

// full is a log without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestExec_FailingOutputEndsTheCommand(t *testing.T) {
	t.Parallel()
	b := serve(t)
	_, err := b.Exec(t.Context(), worker.Command{Script: "echo x; sleep 60"}, full{})
	require.ErrorIs(t, err, syscall.ENOSPC)
}

func TestExec_Cancel(t *testing.T) {
	t.Parallel()
	b := serve(t)
	pids := func(out *output) []string {
		return []string{out.line(t, "main "), out.line(t, "bg "), out.line(t, "daemon ")}
	}
	// A stubborn child in the group, and a stubborn daemon out of it.
	const tree = `echo main $$
(trap '' TERM; echo bg $BASHPID; sleep 60; sleep 60) &
setsid bash -c 'trap "" TERM; (echo daemon $BASHPID; sleep 60; sleep 60) & ' &
`
	t.Run("cause", func(t *testing.T) {
		t.Parallel()
		var out output
		ctx, cancel := context.WithCancelCause(t.Context())
		var found []string
		go func() { found = pids(&out); cancel(errors.New("the run was stopped")) }()
		exit, err := b.Exec(ctx, worker.Command{Script: tree + "wait", Grace: 200 * time.Millisecond}, &out)
		f := requireReason(t, fault.Cancellation, err)
		require.ErrorContains(t, err, "the run was stopped")
		require.Equal(t, fault.Cancelled, f.Class)
		require.NotEmpty(t, exit.Tail)
		requireGone(t, found)
	})
	t.Run("timeout", func(t *testing.T) {
		t.Parallel()
		var out output
		_, err := b.Exec(t.Context(), worker.Command{
			Script: tree + "wait", Grace: 200 * time.Millisecond, Timeout: 5 * time.Second, TimeoutLabel: "build.timeout",
		}, &out)
		f := requireReason(t, fault.StageTimeout, err)
		require.ErrorContains(t, err, "timeout 5s (build.timeout)")
		require.Contains(t, f.Remedy, "build.timeout")
		requireGone(t, pids(&out))
	})
	t.Run("a good end leaves nothing either", func(t *testing.T) {
		t.Parallel()
		var out output
		exit, err := b.Exec(t.Context(), worker.Command{Script: tree + "until [ -s ready ]; do sleep 0.02; echo 1 >ready; done; sleep 0.3"}, &out)
		require.NoError(t, err)
		require.Zero(t, exit.Code)
		require.Contains(t, exit.Warning, "left running")
		requireGone(t, pids(&out))
	})
	t.Run("graceful", func(t *testing.T) {
		t.Parallel()
		var out output
		ctx, cancel := context.WithCancel(t.Context())
		go func() { out.line(t, "up"); cancel() }()
		exit, err := b.Exec(ctx, worker.Command{Script: `trap 'echo cleaned; exit 0' TERM; echo up; sleep 60 & wait`, Grace: 10 * time.Second}, &out)
		require.NoError(t, err, "a good end in spite of the cancellation is one")
		require.Zero(t, exit.Code)
		require.Contains(t, out.String(), "cleaned")
	})
}

// requireGone checks at once: no descendant may live when Exec has returned.
func requireGone(t *testing.T, pids []string) {
	t.Helper()
	require.NotEmpty(t, pids)
	for _, pid := range pids {
		require.NotEmpty(t, pid)
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		require.True(t, err != nil || strings.Contains(string(stat), ") Z "), "process is alive: %s", stat)
	}
}

func TestExec_TimeoutOfTheContext(t *testing.T) {
	t.Parallel()
	b := serve(t)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, worker.Timeout(90*time.Minute, "build.timeout"))
	defer cancel()
	_, err := b.Exec(ctx, worker.Command{Script: "sleep 60"}, nil)
	requireReason(t, fault.StageTimeout, err)
	require.ErrorContains(t, err, "timeout 1h30m (build.timeout)")
}

func TestExec_ConcurrentCommandsAreApart(t *testing.T) {
	t.Parallel()
	b, _ := dedicated(t)
	var long output
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	group.Go(func() {
		_, _ = b.Exec(ctx, worker.Command{Script: `
			setsid bash -c 'echo daemon $BASHPID; sleep 60' &
			setsid env -i bash -c '(echo env $BASHPID; exec sleep 61) &'
			wait`}, &long)
	})
	daemon, bare := long.line(t, "daemon "), long.line(t, "env ")
	for range 5 {
		// The daemon has left the session before the script ends; one that has
		// not is ended with the group, which is no reason to warn.
		exit, _ := b.script(t, `exec >/dev/null 2>&1; f=$(mktemp -u); sleep 60 &
			setsid bash -c 'touch "$0"; exec sleep 60' "$f" & until [ -e "$f" ]; do sleep 0.01; done; rm "$f"`)
		require.Contains(t, exit.Warning, "left running")
	}
	for _, pid := range []string{daemon, bare} {
		require.FileExists(t, "/proc/"+pid+"/stat", "the other command's processes live")
	}
	cancel()
	group.Wait()
	requireGone(t, []string{daemon, bare})
}

func TestExec_DedicatedWorkerEndsWhatHides(t *testing.T) {
	t.Parallel()
	b, cmd := dedicated(t)
	// Own session, twice forked, empty environment: only its parent, which is
	// the worker that adopted it, tells.
	exit, out := b.script(t, `setsid env -i bash -c '(trap "" TERM HUP; echo pid $BASHPID; exec sleep 60) & ' ; sleep 2; umask`)
	require.Contains(t, exit.Warning, "sleep")
	require.Contains(t, out, "0002\n")
	pid, _, _ := strings.Cut(strings.TrimPrefix(out, "pid "), "\n")
	requireGone(t, []string{pid})
	// Orphans are reaped.
	require.Eventually(t, func() bool {
		_, err := os.Stat("/proc/" + pid)
		return err != nil
	}, 5*time.Second, 10*time.Millisecond, "a zombie stays")
	// The worker cannot be read by commands of the same user (root may).
	info, err := os.Stat(fmt.Sprintf("/proc/%d/environ", cmd.Process.Pid))
	require.NoError(t, err)
	require.EqualValues(t, 0, info.Sys().(*syscall.Stat_t).Uid)
}

func TestExec_ManyShortCommandsAreNotStolen(t *testing.T) {
	t.Parallel()
	b, _ := dedicated(t)
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for range 15 {
				exit, err := b.Exec(t.Context(), worker.Command{Script: fmt.Sprintf("(sleep 0.01 &) ; exit %d", i)}, nil)
				if err != nil || exit.Code != i {
					t.Errorf("exit %d: %v", exit.Code, err)
				}
			}
		})
	}
	group.Wait()
}

func TestExec_WorkerLost(t *testing.T) {
	t.Parallel()
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		b, cmd := dedicated(t)
		var out output
		go func() { out.line(t, "up"); _ = cmd.Process.Kill() }()
		exit, err := b.Exec(t.Context(), worker.Command{Script: "echo up; exec sleep 5"}, &out)
		f := requireReason(t, fault.WorkerLost, err)
		require.Contains(t, f.Remedy, "OOMKilled")
		require.Equal(t, "up\n", string(exit.Tail))
	})
	t.Run("hangs", func(t *testing.T) {
		t.Parallel()
		b, cmd := dedicated(t, worker.WithSilenceTimeout(3*time.Second))
		var out output
		go func() { out.line(t, "up"); _ = cmd.Process.Signal(syscall.SIGSTOP) }()
		_, err := b.Exec(t.Context(), worker.Command{Script: "echo up; exec sleep 60"}, &out)
		requireReason(t, fault.WorkerLost, err)
		require.ErrorContains(t, err, "silent")
	})
	t.Run("shut down", func(t *testing.T) {
		t.Parallel()
		b := serve(t)
		var out output
		go func() { out.line(t, "up"); b.stop() }()
		_, err := b.Exec(t.Context(), worker.Command{Script: "echo up; sleep 60"}, &out)
		requireReason(t, fault.WorkerLost, err)
	})
	t.Run("shut down, with the grace of the command", func(t *testing.T) {
		t.Parallel()
		b := serve(t, func(c *worker.ServerConfig) { c.Grace = 20 * time.Second })
		var out output
		go func() { out.line(t, "up"); b.stop() }()
		exit, err := b.Exec(t.Context(), worker.Command{Script: `trap 'sleep 0.3; echo cleaned; exit 0' TERM; echo up; sleep 60 & wait`}, &out)
		require.NoError(t, err, "a good end in spite of the shutdown is one")
		require.Zero(t, exit.Code)
		require.Contains(t, out.String(), "cleaned")
	})
	t.Run("heartbeats keep a quiet command alive", func(t *testing.T) {
		t.Parallel()
		b := serve(t, func(c *worker.ServerConfig) { c.Heartbeat = 50 * time.Millisecond })
		c := worker.NewClient(b.socket, worker.WithSilenceTimeout(2*time.Second))
		_, err := c.Exec(t.Context(), worker.Command{Script: "sleep 3"}, nil)
		require.NoError(t, err)
	})
}

func TestExec_ClientGoneEndsTheCommand(t *testing.T) {
	t.Parallel()
	b := serve(t)
	proxy := cutter(t, b.socket)
	var out output
	go func() { out.line(t, "pid "); proxy.cut() }()
	_, err := worker.NewClient(proxy.socket).Exec(t.Context(), worker.Command{Script: "echo pid $$; sleep 60"}, &out)
	requireReason(t, fault.WorkerLost, err)
	pid := out.line(t, "pid ")
	require.Eventually(t, func() bool {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	}, 10*time.Second, 10*time.Millisecond)
}

func TestLookPath(t *testing.T) {
	t.Parallel()
	b := serve(t)
	require.NoError(t, os.MkdirAll(filepath.Join(b.root, "source/bin"), 0o755))
	for name, mode := range map[string]os.FileMode{"good": 0o755, "plain": 0o644} {
		require.NoError(t, os.WriteFile(filepath.Join(b.root, "source/bin", name), nil, mode))
	}
	found, err := b.LookPath(t.Context(), []string{"bash", "good", "plain", "./bin/good", "none", "/bin/sh"}, map[string]string{
		"PATH": filepath.Join(b.root, "source/bin") + ":/bin:/usr/bin",
	})
	require.NoError(t, err)
	require.Equal(t, map[string]string{
		"bash": "/bin/bash", "/bin/sh": "/bin/sh",
		"good": filepath.Join(b.root, "source/bin/good"), "./bin/good": filepath.Join(b.root, "source/bin/good"),
	}, found)
}

// A sidecar that is killed hangs up. What it had started is killed without
// grace, and its successor's commands and changes of the folders wait for that.
func TestExec_EndsWhatAKilledSidecarLeft(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]func(*testing.T, *testbed){
		"a command": func(t *testing.T, b *testbed) {
			t.Helper()
			b.script(t, "true")
		},
		"a change of files": func(t *testing.T, b *testbed) {
			t.Helper()
			require.NoError(t, b.Remove(t.Context(), "source", []string{"other"}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := serve(t, func(c *worker.ServerConfig) { c.Grace = 2 * time.Minute })
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", b.socket)
			require.NoError(t, err)
			bytes := func(text string) string { return `"` + base64.StdEncoding.EncodeToString([]byte(text)) + `"` }
			body := `{"id": "` + t.Name() + `", "dir": ` + bytes("source") + `, "argv": [` + bytes("node") + `, ` + bytes("-e") + `, ` + bytes(`
				process.on("SIGTERM", () => {})
				setInterval(() => {}, 1000)
				require("fs").writeFileSync("pid.new", String(process.pid))
				require("fs").renameSync("pid.new", "pid")`) + `]}`
			_, err = fmt.Fprintf(conn, "POST /v1/exec HTTP/1.1\r\nHost: worker\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			require.NoError(t, err)
			var text []byte
			require.Eventually(t, func() bool {
				text, err = os.ReadFile(filepath.Join(b.root, "source", "pid"))
				return err == nil
			}, 30*time.Second, 10*time.Millisecond)
			pid, err := strconv.Atoi(string(text))
			require.NoError(t, err)
			require.NoError(t, syscall.Kill(pid, 0), "it runs")
			require.NoError(t, conn.Close())
			// The worker notices that in its own time; the command has two minutes.
			require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, 30*time.Second, 10*time.Millisecond)
			next(t, b)
		})
	}
}
