package sidecar_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/plugin/server"
	"github.com/aphex-pipeline/aphex/plugin/sidecar"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// The secrets that are planted: one with everything that encodings change, one
// of several lines.
const (
	password = `hunter2"&<p@ss word>/+=`
	pem      = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END KEY-----"
)

// traces are pieces that must be nowhere: the secrets, their lines, and what
// is left of them in encodings.
func traces() []string {
	return append(strings.Split(pem, "\n"), password, "hunter2", "ss word", token,
		base64.RawStdEncoding.EncodeToString([]byte(password)), base64.StdEncoding.EncodeToString([]byte("user:" + password))[8:24])
}

// leak writes the secrets into a log in every way a command may.
func leak(env task.Env) {
	say := func(text string) { _, _ = fmt.Fprint(env.Output, text) } // a log never fails
	for _, secret := range []string{password, pem, token} {
		say("whole: " + secret + "\n")
		say("in parts: ")
		for i := range len(secret) {
			say(secret[i : i+1])
		}
		say("\n" + strings.Repeat("x", 64<<10-10) + secret + "\n") // over the end of a line that is too long
		say(strings.ReplaceAll(secret, "\n", "\r\n    | ") + "\n")
	}
	say("Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+password)) + "\n")
	say("unfinished " + password)
	env.Progress("using " + password + " and " + pem)
	env.Logger.Warn("using "+password, slog.String("key", pem), slog.String("json", password))
}

// TestSecrets_AreNowhere: what a stage does with a secret that aphex knows,
// none of the ways out shows it: answers, journal, logs kept and printed, what
// recorders are told, the operator's log.
func TestSecrets_AreNowhere(t *testing.T) {
	t.Parallel()
	spoken := password + " " + pem + " " + token
	ends := map[string]task.RunnerFunc{
		"success": func(_ context.Context, _ task.Request, env task.Env) (task.Result, error) {
			leak(env)
			return task.Result{Message: "built with " + spoken, Outputs: map[string]string{task.OutputSnapshot: spoken, "more": `{"a":"` + pem + `"}`}}, nil
		},
		"the user's failure": func(_ context.Context, _ task.Request, env task.Env) (task.Result, error) {
			leak(env)
			return task.Result{}, fault.Newf(fault.User, fault.CommandFailed, "run "+spoken, "Mend "+spoken, "exit 1: %s", spoken)
		},
		"an error of ours": func(_ context.Context, _ task.Request, env task.Env) (task.Result, error) {
			leak(env)
			return task.Result{}, errors.New(spoken)
		},
		"a panic": func(_ context.Context, _ task.Request, env task.Env) (task.Result, error) {
			leak(env)
			panic(spoken)
		},
		"an oversized output": func(_ context.Context, _ task.Request, env task.Env) (task.Result, error) {
			leak(env)
			return task.Result{Message: "m", Outputs: map[string]string{task.OutputSnapshot: strings.Repeat(spoken, 2000)}}, nil
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			told := &listener{}
			var stdout, operator lockedBuffer
			begun, goOn := make(chan struct{}), make(chan struct{})
			slow := task.RunnerFunc(func(ctx context.Context, req task.Request, env task.Env) (task.Result, error) {
				env.Progress("using " + spoken)
				close(begun)
				<-goOn
				return end(ctx, req, env)
			})
			redactor := redact.New(password, pem)
			p := start(t, options{dir: dir, runs: newRuns(), registry: task.Registry{task.StageBuild: slow}, change: func(c *sidecar.Config) {
				c.Redactor, c.Stdout, c.Recorder = redactor, &stdout, told
				c.Logger = slog.New(slog.NewJSONHandler(redactor.Records(&operator), &slog.HandlerOptions{Level: slog.LevelDebug}))
			}})
			answers := p.post(t, server.ExecutePath, args(body(task.StageBuild)))
			<-begun
			answers += p.post(t, server.ExecutePath, args(body(task.StageBuild, "branch", password)))
			answers += p.post(t, server.ExecutePath, args(body(task.StageBuild, password, "unknown {{tag "+password+"}}")))
			close(goOn)
			final, _ := p.await(args(body(task.StageBuild)))
			require.NotEqual(t, wfv1.NodeRunning, final.Phase)
			answers += p.post(t, server.ExecutePath, args(body(task.StageBuild)))
			p.stop()
			sources := map[string]string{"answers": answers, "stdout": stdout.String(), "the operator's log": operator.String(), "records": told.all()}
			read(t, dir, sources)
			require.Contains(t, sources["stdout"], redact.Marker)
			for source, text := range sources {
				for _, trace := range traces() {
					require.NotContains(t, text, trace, source)
				}
			}
			require.GreaterOrEqual(t, len(sources), 6, "journal and log are among them")
		})
	}
}

// read adds every file below dir, but the token's own.
func read(t *testing.T, dir string, into map[string]string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path == filepath.Join(dir, "token") {
			return err
		}
		text, err := os.ReadFile(path)
		into[path] = string(text)
		return err
	}))
}

// listener keeps what a recorder is told.
type listener struct{ text lockedBuffer }

func (l *listener) StageStarted(_ context.Context, req task.Request, _ time.Time) error {
	_, err := fmt.Fprintln(&l.text, req.Stage)
	return err
}

func (l *listener) StageEnded(_ context.Context, req task.Request, _, _ time.Time, phase, message, reason, logURL string) error {
	_, err := fmt.Fprintln(&l.text, req.Stage, phase, message, reason, logURL)
	return err
}

func (l *listener) all() string { return l.text.String() }

// lockedBuffer may be written and read at once.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
