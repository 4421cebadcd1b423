package commands_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/internal/worker/commands"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a worker.
func start(t *testing.T) (*worker.Client, string) {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() {
		done <- worker.Serve(ctx, worker.ServerConfig{Socket: filepath.Join(dir, "s"), Root: dir, Environ: []string{"PATH=" + os.Getenv("PATH")}})
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	client := worker.NewClient(filepath.Join(dir, "s"))
	_, err := client.Ping(t.Context())
	require.NoError(t, err)
	return client, dir
}

// timeless replaces times in a log.
func timeless(log string) string {
	return regexp.MustCompile(`after [0-9.m]+s`).ReplaceAllString(log, "after T")
}

func TestRun_CarriesOver(t *testing.T) {
	t.Parallel()
	client, _ := start(t)
	var log bytes.Buffer
	results, err := commands.Run(t.Context(), client, commands.List{
		Commands: []string{
			"mkdir -p app && cd app\nexport A=\"$GIVEN and more\"; B=lost; unset LANG",
			"printf 'no newline'",
			"echo \"${PWD##*/}|$A|${B-unset}|${LANG-unset}\"; exit 0",
		},
		Dir: "source", Env: map[string]string{"GIVEN": "given"},
	}, &log)
	require.NoError(t, err)
	require.Len(t, results, 3)
	for _, r := range results {
		require.Zero(t, r.Exit.Code)
		require.Nil(t, r.Exit.Env, "results hold no secrets")
	}
	require.Equal(t, `==> [1/3] mkdir -p app && cd app …
<== done after T
==> [2/3] printf 'no newline'
no newline
<== done after T
==> [3/3] echo "${PWD##*/}|$A|${B-unset}|${LANG-unset}"; exit 0
app|given and more|unset|unset
<== done after T
`, timeless(log.String()))
}

func TestRun_StopsAtTheFirstFailure(t *testing.T) {
	t.Parallel()
	client, dir := start(t)
	var log bytes.Buffer
	results, err := commands.Run(t.Context(), client, commands.List{
		Commands: []string{"true", "seq 100; exit 3", "touch reached"},
	}, &log)
	require.Len(t, results, 2)
	require.Equal(t, 3, results[1].Exit.Code)
	f := fault.From(err)
	require.Equal(t, fault.CommandFailed, f.Reason)
	require.Equal(t, fault.User, f.Class)
	require.EqualError(t, err, "run command 2 of 3 (seq 100; exit 3): exit code 3; last lines:\n95\n96\n97\n98\n99\n100")
	require.NoFileExists(t, filepath.Join(dir, "reached"))
	require.Contains(t, timeless(log.String()), "100\n<== exit code 3 after T\n")
}

func TestRun_AdvisesByCode(t *testing.T) {
	t.Parallel()
	client, _ := start(t)
	for command, want := range map[string]string{
		"no-such-program": "worker.image", "echo >x; ./x": "chmod", "kill -9 $$": "memory", "false": "log",
	} {
		_, err := commands.Run(t.Context(), client, commands.List{Commands: []string{command}}, &bytes.Buffer{})
		require.Contains(t, fault.From(err).Remedy, want, command)
	}
}

func TestRun_TimeoutIsForAllTogether(t *testing.T) {
	t.Parallel()
	client, _ := start(t)
	var log bytes.Buffer
	results, err := commands.Run(t.Context(), client, commands.List{
		Commands: []string{"sleep 0.6", "sleep 60"}, Timeout: 5 * time.Second, TimeoutLabel: "build.timeout",
	}, &log)
	require.Len(t, results, 2)
	require.Error(t, results[1].Err)
	require.Equal(t, fault.StageTimeout, fault.From(err).Reason)
	require.ErrorContains(t, err, "run command 2 of 2 (sleep 60)")
	require.ErrorContains(t, err, "timeout 5s (build.timeout)")
	require.Contains(t, fault.Message(err), "Raise build.timeout")
}

func TestRun_CancelReportsTheCause(t *testing.T) {
	t.Parallel()
	client, _ := start(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("stopped by jane")
	cancel(cause)
	_, err := commands.Run(ctx, client, commands.List{Commands: []string{"true"}}, &bytes.Buffer{})
	require.ErrorIs(t, err, cause)
	require.Equal(t, fault.Cancellation, fault.From(err).Reason)
}

func TestRun_ShortensLongCommands(t *testing.T) {
	t.Parallel()
	client, _ := start(t)
	var log bytes.Buffer
	_, err := commands.Run(t.Context(), client, commands.List{Commands: []string{": " + strings.Repeat("é", 200), ""}}, &log)
	require.Equal(t, fault.BadRequest, fault.From(err).Reason, "an empty command is none: %v", err)
	first, _, _ := strings.Cut(log.String(), "\n")
	require.Less(t, len(first), 150)
	require.True(t, strings.HasSuffix(first, "é …"))
}
