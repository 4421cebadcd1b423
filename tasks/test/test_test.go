package test_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/artifacts"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
	"github.com/aphex-pipeline/aphex/internal/testkit/pod"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/internal/workspace"
	"github.com/aphex-pipeline/aphex/tasks/task"
	"github.com/aphex-pipeline/aphex/tasks/test"
)

const (
	secretKey = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
	// outputs is what the deployment of dev left.
	outputs = `{
  "shop-api": {"Url": "https://api.example.com/?a=1&b=<2>", "tableArn": "arn:aws:dynamodb:eu-west-1:111111111111:table/t"},
  "shop-data": {}
}`
)

// bench is a test stage among real parts, after a build and a deployment.
type bench struct {
	*pod.Pod
	request task.Request
	log     bytes.Buffer
	out     io.Writer
	// trees stands for the worker's files; the worker itself if nil.
	trees testTrees
	// credentials are those of the environment; an error if nil.
	credentials map[string]string
	// missing is why commands get none.
	missing string
}

// testTrees is what the stage needs of the worker's files.
type testTrees interface {
	List(ctx context.Context, dir string) ([]worker.Entry, error)
	ReadTree(ctx context.Context, dir string, paths []string) (io.ReadCloser, error)
	WriteTree(ctx context.Context, dir string, tree io.Reader, opts worker.WriteOptions) error
}

// newBench commits a configuration with the tests section of environment dev,
// builds (one file added, changed and removed) and saves the snapshot.
func newBench(t *testing.T, tests string) *bench {
	t.Helper()
	server := gitserver.New(t, gitserver.Config{Filter: true})
	commit, err := server.Commit(t.Context(), "shop", gitserver.Change{Write: map[string]string{
		"committed": "committed\n", "changed": "committed\n", "removed": "committed\n", "smoke/check.sh": "true\n",
		"aphex-config.yaml": `version: "1.0"
build:
  commands: ["true"]
environments:
  - name: dev
    region: eu-west-1
    account: "111111111111"
    stacks:
      - {name: shop, path: bin/shop.ts}
` + tests + `
  - name: prod
    region: eu-central-1
    account: "222222222222"
    stacks:
      - {name: shop, path: bin/shop.ts}
`,
	}})
	require.NoError(t, err)
	b := &bench{Pod: pod.New(t, pod.Config{}), request: task.Request{
		Run:   task.Run{Namespace: "team", Name: "shop-1", UID: "uid-1", Epoch: "2026-11-24T06:00:00Z"},
		Stage: task.StageTest, Node: "shop-1.test-dev", Pipeline: "shop", Environment: "dev", ConfigPath: "aphex-config.yaml",
		RepoURL: server.URL("shop"), Commit: commit, Branch: "main",
	}}
	b.out = &b.log
	b.credentials = map[string]string{"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": secretKey, "AWS_SESSION_TOKEN": "token", "AWS_REGION": "us-east-1"}
	require.NoError(t, b.Workspace.Prepare(t.Context(), workspace.Source{RepoURL: b.request.RepoURL, Commit: commit, Branch: "main"}, io.Discard))
	require.NoError(t, b.Workspace.Materialize(t.Context(), io.Discard))
	b.shell(t, "echo built > built; echo built > changed; rm removed")
	_, err = b.Workspace.Snapshot(t.Context(), record.SnapshotKey("uid-1"), workspace.Selection{}, io.Discard)
	require.NoError(t, err)
	b.put(t, record.OutputsKey("uid-1", "dev"), outputs)
	return b
}

// shell runs a command in the checkout as another stage would.
func (b *bench) shell(t *testing.T, script string) {
	t.Helper()
	exit, err := b.Worker.Exec(t.Context(), worker.Command{Script: script, Dir: worker.SourceDir}, io.Discard)
	require.NoError(t, err)
	require.Zero(t, exit.Code, string(exit.Tail))
}

func (b *bench) run(ctx context.Context) (task.Result, error) {
	trees := b.trees
	if trees == nil {
		trees = b.Worker
	}
	stage := test.New(test.Config{
		Workspace: b.Workspace, Worker: b.Worker, Trees: trees, Store: b.Objects, WorkerRoot: b.Root,
		Redact:    redact.New(secretKey).String,
		Artifacts: artifacts.NewVerifier(b.Worker, b.Workspace, record.New(b.Objects)),
		Credentials: func(_ context.Context, _ task.Request, target pipeline.Environment) (map[string]string, string, error) {
			if b.missing != "" {
				return nil, b.missing, nil
			}
			if b.credentials == nil {
				return nil, "", fault.Newf(fault.User, fault.RoleDenied, "assume the role of "+target.Name, "", "access denied")
			}
			return b.credentials, "", nil
		},
	})
	return stage.Run(ctx, b.request, task.Env{Output: b.out, Logger: slog.New(slog.DiscardHandler), Progress: func(string) {}})
}

// put stores an object.
func (b *bench) put(t *testing.T, key, content string) {
	t.Helper()
	_, err := b.Objects.Put(t.Context(), key, strings.NewReader(content), store.PutOptions{})
	require.NoError(t, err)
}

// result is the stored result of the tests.
func (b *bench) result(t *testing.T) record.TestResult {
	t.Helper()
	return b.stored(t, record.TestKey("uid-1", "dev"))
}

// stored is a result of tests in the bucket.
func (b *bench) stored(t *testing.T, key string) record.TestResult {
	t.Helper()
	body, object, err := b.Objects.Get(t.Context(), key)
	require.NoError(t, err)
	require.Equal(t, "application/json", object.ContentType)
	var d record.TestResult
	require.NoError(t, json.NewDecoder(body).Decode(&d))
	require.NoError(t, body.Close())
	return d
}

// tests renders the tests section of an environment.
func tests(commands ...string) string {
	var text strings.Builder
	text.WriteString("    tests:\n      commands:\n")
	for _, command := range commands {
		fmt.Fprintf(&text, "        - %q\n", command)
	}
	return text.String()
}

// Feature: aphex-pipeline, Property 12: Test command execution
// Feature: aphex-pipeline, Property 13: Test result capture
// Feature: aphex-pipeline, Property 24: Stage output propagation
func TestRun_PassingTestsSeeOutputsAndCredentials(t *testing.T) {
	t.Parallel()
	b := newBench(t, tests("cd smoke && export FIRST=carried", `cat "$APHEX_OUTPUTS_FILE" > $HOME/outputs.json; env -0 > $HOME/env; echo "$FIRST in ${PWD##*/}"`))
	before := time.Now().Add(-time.Second)
	got, err := b.run(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]string{task.OutputResult: "passed"}, got.Outputs)
	require.Contains(t, got.Message, "dev: 2 test commands passed in ")
	require.Contains(t, b.log.String(), "carried in smoke\n")

	seen, err := os.ReadFile(b.Path(worker.HomeDir, "outputs.json"))
	require.NoError(t, err)
	require.Equal(t, outputs, string(seen))
	environ, err := os.ReadFile(b.Path(worker.HomeDir, "env"))
	require.NoError(t, err)
	vars := map[string]string{}
	for entry := range strings.SplitSeq(string(environ), "\x00") {
		name, value, _ := strings.Cut(entry, "=")
		vars[name] = value
	}
	for name, want := range map[string]string{
		"APHEX_OUTPUT_SHOP_API_URL": "https://api.example.com/?a=1&b=<2>", "APHEX_OUTPUT_SHOP_API_TABLEARN": "arn:aws:dynamodb:eu-west-1:111111111111:table/t",
		"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": secretKey, "AWS_SESSION_TOKEN": "token",
		"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1", "AWS_ACCOUNT": "111111111111",
		"APHEX_ENVIRONMENT": "dev", "APHEX_PIPELINE": "shop", "APHEX_COMMIT": b.request.Commit, "APHEX_ARTIFACTS": b.Path(worker.SourceDir, "artifacts"),
	} {
		require.Equal(t, want, vars[name], name)
	}

	d := b.result(t)
	require.Equal(t, "passed", d.Status)
	require.Equal(t, []string{record.SchemaVersion, "uid-1", "dev", b.request.Commit}, []string{d.SchemaVersion, d.WorkflowID, d.Environment, d.CommitSHA})
	require.WithinRange(t, d.CompletedAt, before, time.Now())
	require.Len(t, d.Commands, 2)
	for _, command := range d.Commands {
		require.True(t, command.Passed)
		require.Zero(t, command.ExitCode)
		require.Positive(t, command.Seconds)
	}
}

func TestRun_TestsWithoutCredentialsAreTold(t *testing.T) {
	t.Parallel()
	b := newBench(t, tests(`test -z "$AWS_ACCESS_KEY_ID$AWS_SECRET_ACCESS_KEY$AWS_SESSION_TOKEN"`))
	b.missing = "role dev could not be assumed"
	_, err := b.run(t.Context())
	require.NoError(t, err)
	require.Contains(t, b.log.String(), "warning: the commands have no AWS credentials: role dev could not be assumed\n")
}

func TestRun_TestsSeeThePublishedArtifactsOrNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, tests(`cp "$APHEX_ARTIFACTS/app" $HOME/seen`))
	sum := sha256.Sum256([]byte("app\n"))
	records, list := record.New(b.Objects), []record.Artifact{{Path: "app", Checksum: "sha256:" + hex.EncodeToString(sum[:])}}
	b.shell(t, "mkdir artifacts; echo app > artifacts/app")
	require.NoError(t, records.PutArtifacts(t.Context(), "uid-1", b.request.Commit, time.Now(), list))
	_, err := b.Workspace.Snapshot(t.Context(), record.SnapshotKey("uid-1"), workspace.Selection{}, io.Discard)
	require.NoError(t, err)
	b.shell(t, "echo other > artifacts/app") // the stage before left it so
	_, err = b.run(t.Context())
	require.NoError(t, err, b.log.String())
	require.Contains(t, b.log.String(), "artifacts: 1 verified in ")
	seen, err := os.ReadFile(b.Path(worker.HomeDir, "seen"))
	require.NoError(t, err)
	require.Equal(t, "app\n", string(seen))

	list[0].Checksum = "sha256:" + strings.Repeat("0", 64)
	require.NoError(t, records.PutArtifacts(t.Context(), "uid-1", b.request.Commit, time.Now(), list))
	require.NoError(t, os.Remove(b.Path(worker.HomeDir, "seen")))
	_, err = b.run(t.Context())
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.SnapshotInvalid})
	require.NoFileExists(t, b.Path(worker.HomeDir, "seen"), "no command has run")
}

func TestRun_TestsSeeExactlyCommitAndSnapshot(t *testing.T) {
	t.Parallel()
	for name, fresh := range map[string]bool{"in the pod of the build": false, "in a fresh pod": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, tests("find . -path ./.git -prune -o -type f -print | sort > $HOME/files; cat committed changed built > $HOME/content; git status --short > $HOME/status"))
			if fresh {
				b.Pod = pod.New(t, pod.Config{Objects: b.Objects})
			} else {
				b.shell(t, "echo dirt > dirt; echo dirt > committed; echo dirt > built; rm smoke/check.sh; rm -rf .git; chmod 0 aphex-config.yaml; mkdir -p "+b.Path(worker.OutDir, "test-dev")+" && touch "+b.Path(worker.OutDir, "test-dev", "stale"))
			}
			_, err := b.run(t.Context())
			require.NoError(t, err, b.log.String())
			for file, want := range map[string]string{
				"files":   "./aphex-config.yaml\n./built\n./changed\n./committed\n./smoke/check.sh\n",
				"content": "committed\nbuilt\nbuilt\n", "status": " M changed\n D removed\n?? built\n",
			} {
				got, err := os.ReadFile(b.Path(worker.HomeDir, file))
				require.NoError(t, err)
				require.Equal(t, want, string(got), file)
			}
			require.NoFileExists(t, b.Path(worker.OutDir, "test-dev", "stale"))
		})
	}
}

// Feature: aphex-pipeline, Property 13: Test result capture
func TestRun_FailingTestIsRecorded(t *testing.T) {
	t.Parallel()
	b := newBench(t, tests("true", "echo 'expected 200, got 503' >&2; exit 3", "touch $HOME/later"))
	got, err := b.run(t.Context())
	require.Empty(t, got)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.CommandFailed})
	require.Equal(t, fault.User, fault.From(err).Class)
	for _, text := range []string{"command 2 of 3", "exit code 3", "expected 200, got 503"} {
		require.ErrorContains(t, err, text)
	}
	require.NoFileExists(t, b.Path(worker.HomeDir, "later"))
	d := b.result(t)
	require.Equal(t, "failed", d.Status)
	require.Len(t, d.Commands, 2, "those that were started")
	require.True(t, d.Commands[0].Passed)
	require.False(t, d.Commands[1].Passed)
	require.Equal(t, 3, d.Commands[1].ExitCode)
}

// trigger calls fn when text passes by.
type trigger struct {
	w    io.Writer
	text string
	fn   func()
}

func (r trigger) Write(p []byte) (int, error) {
	if strings.Contains(string(p), r.text) {
		r.fn()
	}
	return r.w.Write(p)
}

// A retry leaves the result of the try before, which says what failed then.
//
// Feature: aphex-pipeline, Property 13: Test result capture
func TestRun_EachTryKeepsItsResult(t *testing.T) {
	t.Parallel()
	healed := filepath.Join(t.TempDir(), "healed")
	b := newBench(t, tests("test -e '"+healed+"'"))
	_, err := b.run(t.Context())
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.CommandFailed})
	first := b.result(t)
	require.NoError(t, os.WriteFile(healed, nil, 0o600))
	b.request.Run.Epoch, b.request.Attempt = "2026-11-24T07:00:00Z", 1
	_, err = b.run(t.Context())
	require.NoError(t, err)
	require.Equal(t, "passed", b.result(t).Status)
	for key, want := range map[string]record.TestResult{
		"runs/uid-1/tries/20261124T060000Z-0/tests/dev.json": first, "runs/uid-1/tries/20261124T070000Z-1/tests/dev.json": b.result(t),
	} {
		require.Equal(t, want, b.stored(t, key))
	}
}

// block makes a command wait for nothing, without using the processor.
const block = "mkfifo $TMPDIR/block; read x < $TMPDIR/block"

// Feature: aphex-pipeline, Property 13: Test result capture
func TestRun_StoppedTestIsRecorded(t *testing.T) {
	t.Parallel()
	b := newBench(t, tests("echo it has begun; "+block))
	ctx, cancel := context.WithCancelCause(t.Context())
	b.out = trigger{&b.log, "it has begun\n", func() { cancel(errors.New("the run was stopped")) }}
	_, err := b.run(ctx)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.Cancellation})
	require.ErrorContains(t, err, "the run was stopped")
	d := b.result(t)
	require.Equal(t, "failed", d.Status)
	require.False(t, d.Commands[0].Passed)
}

func TestRun_TimeoutNamesTheSetting(t *testing.T) {
	t.Parallel()
	b := newBench(t, tests(block)+"      timeout: 1s\n")
	_, err := b.run(t.Context())
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StageTimeout})
	require.ErrorContains(t, err, "timeout 1s (environments[].tests.timeout)")
	require.Equal(t, "failed", b.result(t).Status)
}

func TestRun_EnvironmentWithoutTests(t *testing.T) {
	t.Parallel()
	b := newBench(t, tests("touch $HOME/ran"))
	for _, environment := range []string{"prod", "no-longer-there"} {
		b.request.Environment = environment
		got, err := b.run(t.Context())
		require.NoError(t, err)
		require.Equal(t, map[string]string{task.OutputResult: "none"}, got.Outputs)
		require.Equal(t, environment+": this commit has no tests for the environment", got.Message)
		_, _, err = b.Objects.Get(t.Context(), record.TestKey("uid-1", environment))
		require.ErrorIs(t, err, store.ErrNotFound)
	}
	require.NoFileExists(t, b.Path(worker.HomeDir, "ran"))
}

func TestRun_FaultsBeforeAnyCommand(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*testing.T, *bench)
		reason fault.Reason
		text   string
	}{
		"no credentials":          {func(_ *testing.T, b *bench) { b.credentials = nil }, fault.RoleDenied, "assume the role of dev"},
		"a deployment without it": {func(_ *testing.T, b *bench) { b.request.Run.UID = "uid-2"; b.credentials["x"] = "y" }, fault.SnapshotInvalid, "no such object"},
		"no stack outputs": {func(t *testing.T, b *bench) {
			t.Helper()
			require.NoError(t, os.Remove(strings.TrimPrefix(b.Objects.URL(record.OutputsKey("uid-1", "dev")), "file://")))
		}, fault.StoreFailed, "read the stack outputs of dev"},
		"outputs that are no JSON": {func(t *testing.T, b *bench) { t.Helper(); b.put(t, record.OutputsKey("uid-1", "dev"), "{") }, fault.Internal, "read the stack outputs of dev"},
		"a damaged snapshot": {func(t *testing.T, b *bench) {
			t.Helper()
			b.Pod = pod.New(t, pod.Config{Objects: b.Objects})
			b.put(t, record.SnapshotKey("uid-1"), "no archive")
		}, fault.SnapshotInvalid, "snapshot"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, tests("touch $HOME/ran"))
			tt.change(t, b)
			got, err := b.run(t.Context())
			require.Empty(t, got)
			require.ErrorIs(t, fault.From(err), &fault.Fault{Reason: tt.reason})
			require.ErrorContains(t, err, tt.text)
			require.NoFileExists(t, b.Path(worker.HomeDir, "ran"))
		})
	}
}

// refusing is a bucket that takes no test result.
type refusing struct{ pod.Objects }

func (r refusing) Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error) {
	if strings.HasSuffix(key, "/tests.json") {
		return store.Object{}, fault.Newf(fault.Transient, fault.StoreFailed, "store "+key, "", "no space")
	}
	return r.Objects.Put(ctx, key, body, opts)
}

func TestRun_ResultThatCannotBeStoredHidesNoFailure(t *testing.T) {
	t.Parallel()
	b := newBench(t, tests("test $AWS_SESSION_TOKEN = good"))
	b.Objects = refusing{b.Objects}
	_, err := b.run(t.Context())
	require.Equal(t, fault.CommandFailed, fault.From(err).Reason)
	require.ErrorContains(t, err, "no space")

	b.credentials["AWS_SESSION_TOKEN"] = "good"
	_, err = b.run(t.Context())
	require.Equal(t, fault.StoreFailed, fault.From(err).Reason)
}
