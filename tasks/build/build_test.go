package build_test

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
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/cache"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
	"github.com/aphex-pipeline/aphex/internal/testkit/pod"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/internal/workspace"
	"github.com/aphex-pipeline/aphex/tasks/build"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// secretKey is what no build may see that does not ask for it.
const secretKey = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"

// bench is a build stage among real parts.
type bench struct {
	*pod.Pod
	request task.Request
	log     bytes.Buffer
	// out receives the log; tests put something in its way.
	out io.Writer
	// asked counts how often the stage wanted credentials.
	asked int
	// secrets is where references lead; allowed is what the installation has.
	secrets map[string]string
	allowed []string
}

// Read implements build.Secrets.
func (b *bench) Read(_ context.Context, ref string) (string, error) {
	value, ok := b.secrets[ref]
	if !ok {
		return "", fault.Newf(fault.User, fault.SecretMissing, "read "+ref, "Create it", "there is none")
	}
	return value, nil
}

// newBench commits a configuration whose build section is given and some
// other files, and makes a pod to build them in.
func newBench(t *testing.T, cfg pod.Config, section string, files map[string]string) *bench {
	t.Helper()
	server := gitserver.New(t, gitserver.Config{Filter: true})
	change := gitserver.Change{Write: map[string]string{"aphex-config.yaml": "version: \"1.0\"\nbuild:\n" + section + `
environments:
  - name: dev
    region: eu-west-1
    account: "111111111111"
    stacks:
      - {name: shop, path: bin/shop.ts}
`}}
	maps.Copy(change.Write, files)
	commit, err := server.Commit(t.Context(), "shop", change)
	require.NoError(t, err)
	b := &bench{Pod: pod.New(t, cfg), request: task.Request{
		Run:   task.Run{Namespace: "team", Name: "shop-1", UID: "uid-1", Epoch: "2026-11-24T06:00:00Z"},
		Stage: task.StageBuild, Node: "shop-1.build", Pipeline: "shop", ConfigPath: "aphex-config.yaml",
		RepoURL: server.URL("shop"), Commit: commit, Branch: "main",
	}}
	b.out = &b.log
	return b
}

func (b *bench) run(ctx context.Context) (task.Result, error) {
	stage := build.New(build.Config{
		Workspace: b.Workspace, Worker: b.Worker, Trees: b.Worker, Store: b.Objects, WorkerRoot: b.Root, Secrets: b, AllowedSecrets: b.allowed,
		Caches: cache.New(cache.Config{Worker: b.Worker, Store: b.Objects, Commit: b.Workspace, DeployedBranch: "main"}),
		Credentials: func(context.Context, task.Request) (map[string]string, error) {
			b.asked++
			return map[string]string{"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": secretKey}, nil
		},
	})
	return stage.Run(ctx, b.request, task.Env{Output: b.out, Logger: slog.New(slog.DiscardHandler), Progress: func(string) {}})
}

// object reads an object whole, which also verifies its digest.
func (b *bench) object(t *testing.T, key string) []byte {
	t.Helper()
	body, _, err := b.Objects.Get(t.Context(), key)
	require.NoError(t, err)
	content, err := io.ReadAll(body)
	require.NoError(t, err)
	require.NoError(t, body.Close())
	return content
}

func (b *bench) artifacts(t *testing.T) []record.Artifact {
	t.Helper()
	var list []record.Artifact
	require.NoError(t, json.Unmarshal(b.object(t, record.ArtifactsKey(b.request.Run.UID)), &list))
	return list
}

// commands renders a list of commands as the configuration has it.
func commands(list ...string) string {
	var text strings.Builder
	text.WriteString("  commands:\n")
	for _, command := range list {
		fmt.Fprintf(&text, "    - %q\n", command)
	}
	return text.String()
}

// Feature: aphex-pipeline, Property 3: Build command execution
func TestRun_CommandsInOrderWithFolderAndVariablesCarriedOver(t *testing.T) {
	t.Parallel()
	list := []string{"mkdir artifacts && cd artifacts", "export N=0"}
	var want strings.Builder
	for i := 1; i <= 20; i++ {
		list = append(list, fmt.Sprintf("N=$((N+1)); echo \"%d is $N in ${PWD##*/}\" >> order.txt", i))
		fmt.Fprintf(&want, "%d is %d in artifacts\n", i, i)
	}
	b := newBench(t, pod.Config{}, commands(list...), nil)
	got, err := b.run(t.Context())
	require.NoError(t, err)
	require.Equal(t, want.String(), string(b.object(t, b.request.Commit+"/order.txt")))
	require.Contains(t, got.Message, "22 commands in ")
	require.Contains(t, got.Message, "1 artifact, snapshot of ")
	for _, name := range task.Outputs(task.StageBuild) {
		if name != task.OutputLogURL { // the plugin's own
			require.NotEmpty(t, got.Outputs[name], name)
		}
	}
}

func TestRun_SuccessorTakesOverWithoutRunningACommand(t *testing.T) {
	t.Parallel()
	b := newBench(t, pod.Config{}, commands("echo built > product", "date +%N >> stamps", "mkdir artifacts && cp stamps artifacts"), nil)
	first, err := b.run(t.Context())
	require.NoError(t, err)

	fresh := &bench{request: b.request}
	fresh.Pod, fresh.out = pod.New(t, pod.Config{Objects: b.Objects}), io.Discard
	fresh.request.Run.Name, fresh.request.Run.UID, fresh.request.Predecessor = "shop-1-s0123456789", "uid-2", b.request.Run.UID
	for range 2 { // asked again, as after a death
		got, err := fresh.run(t.Context())
		require.NoError(t, err)
		require.Contains(t, got.Message, "uid-1, not built again")
		require.Equal(t, first.Outputs, got.Outputs)
	}
	entries, err := fresh.Worker.Stat(t.Context(), []string{worker.SourceDir + "/product", worker.SourceDir + "/stamps"})
	require.NoError(t, err)
	require.Len(t, entries, 2, "what the predecessor built is there")
	require.Len(t, fresh.artifacts(t), 1)
	require.Equal(t, b.artifacts(t), fresh.artifacts(t), "and is its artifacts too")

	fresh.request.Predecessor = "uid-of-nobody"
	_, err = fresh.run(t.Context())
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.SnapshotInvalid})
}

// Feature: aphex-pipeline, Property 4: Artifact tagging
// Feature: aphex-pipeline, Property 5: Artifact storage and retrieval
func TestRun_ArtifactsAreTaggedListedAndTheSameBytes(t *testing.T) {
	t.Parallel()
	b := newBench(t, pod.Config{}, commands(
		"mkdir -p dist/deep/er && cp app.bin dist/app && printf 'PK\\003\\004' > dist/deep/layer.zip && printf x > 'dist/deep/er/a b.tar'",
		"ln -s ../app.bin dist/link && : > dist/empty.txt",
	)+"  artifacts: dist\n", map[string]string{"app.bin": "\x00\x01binary\xff\n"})
	before := time.Now().UTC().Truncate(time.Second)
	got, err := b.run(t.Context())
	require.NoError(t, err)
	require.Contains(t, b.log.String(), `artifact "link" is a symbolic link, which is not published`)

	want := map[string]struct {
		content string
		kind    record.ArtifactType
	}{
		"app": {"\x00\x01binary\xff\n", "binary"}, "deep/layer.zip": {"PK\x03\x04", "lambda-layer"},
		"deep/er/a b.tar": {"x", "package"}, "empty.txt": {"", "package"},
	}
	list, folder := b.artifacts(t), strings.TrimSuffix(got.Outputs[task.OutputArtifactPath], "/")+"/"
	require.Len(t, list, len(want), "files only, each once: %v", list)
	bucket := b.Objects.(*store.Dir) // the bench's own
	for _, artifact := range list {
		require.Equal(t, b.request.Commit, artifact.CommitSHA)
		name, found := strings.CutPrefix(artifact.S3Path, folder)
		require.True(t, found, "%s is not below %s", artifact.S3Path, folder)
		expected, known := want[name]
		require.True(t, known, name)
		delete(want, name)

		key := b.request.Commit + "/" + name
		content := b.object(t, key)
		require.Equal(t, expected.content, string(content), name)
		require.Equal(t, expected.kind, artifact.ArtifactType, name)
		sum := sha256.Sum256(content)
		require.Equal(t, "sha256:"+hex.EncodeToString(sum[:]), artifact.Checksum, name)
		require.EqualValues(t, len(content), artifact.SizeBytes, name)

		tags, err := bucket.Tags(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, b.request.Commit, tags["commit-sha"])
		at, err := time.Parse(time.RFC3339, tags["timestamp"])
		require.NoError(t, err)
		require.False(t, at.Before(before) || at.After(time.Now()), "%s was tagged with %s", name, at)
		require.Equal(t, at, artifact.Timestamp.Truncate(time.Second))
	}
}

func TestRun_WithoutArtifacts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ command, said string }{
		"no folder":     {"true", ""},
		"a file":        {"touch artifacts", "nothing is published: artifacts/ (build.artifacts) is no folder but a file"},
		"an empty one":  {"mkdir artifacts", ""},
		"a link to one": {"mkdir elsewhere && touch elsewhere/x && ln -s elsewhere artifacts", "nothing is published: artifacts/ (build.artifacts) is no folder but a symbolic link, which is not followed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, pod.Config{}, commands(tt.command), nil)
			got, err := b.run(t.Context())
			require.NoError(t, err)
			require.Contains(t, got.Message, "0 artifacts")
			require.Contains(t, got.Message, tt.said)
			require.Equal(t, tt.said != "", strings.Contains(got.Message, "warning"))
			require.Contains(t, b.log.String(), tt.said)
			require.JSONEq(t, "[]", string(b.object(t, record.ArtifactsKey("uid-1"))))
		})
	}
}

func TestRun_SnapshotIsStoredBeforeTheResult(t *testing.T) {
	t.Parallel()
	b := newBench(t, pod.Config{}, commands("mkdir built && echo new > built/file", "rm gone", "echo more >> kept"),
		map[string]string{"gone": "x", "kept": "old\n"})
	got, err := b.run(t.Context())
	require.NoError(t, err)
	require.Equal(t, b.Objects.URL(record.SnapshotKey("uid-1")), got.Outputs[task.OutputSnapshot])

	other := pod.New(t, pod.Config{Objects: b.Objects})
	source := workspace.Source{RepoURL: b.request.RepoURL, Commit: b.request.Commit, Branch: b.request.Branch}
	require.NoError(t, other.Workspace.Prepare(t.Context(), source, io.Discard))
	require.NoError(t, other.Workspace.Reset(t.Context(), record.SnapshotKey("uid-1"), io.Discard))
	for name, want := range map[string]string{"built/file": "new\n", "kept": "old\nmore\n"} {
		content, err := os.ReadFile(other.Path(worker.SourceDir, name))
		require.NoError(t, err)
		require.Equal(t, want, string(content))
	}
	require.NoFileExists(t, other.Path(worker.SourceDir, "gone"))
}

// refusing is a bucket that does not take one key.
type refusing struct {
	*store.Dir
	key string
}

func (r refusing) Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error) {
	if strings.HasSuffix(key, r.key) {
		return store.Object{}, fault.Newf(fault.Transient, fault.StoreFailed, "store "+key, "", "no space")
	}
	return r.Dir.Put(ctx, key, body, opts)
}

func TestRun_NothingStoredNoResult(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"snapshot.tar.zst", "/artifact.txt", "artifacts.json"} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			objects := refusing{store.NewDir(t.TempDir()), key}
			b := newBench(t, pod.Config{Objects: objects}, commands("mkdir artifacts && echo x > artifacts/artifact.txt"), nil)
			got, err := b.run(t.Context())
			require.ErrorIs(t, err, &fault.Fault{Reason: fault.StoreFailed})
			require.ErrorContains(t, err, "no space")
			require.Empty(t, got)
		})
	}
}

func TestRun_FailingCommandEndsTheBuild(t *testing.T) {
	t.Parallel()
	b := newBench(t, pod.Config{}, commands("mkdir artifacts && touch artifacts/x", "echo compiling; echo 'main.ts(3): no such name' >&2; exit 7", "touch later"), nil)
	got, err := b.run(t.Context())
	require.Empty(t, got)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.CommandFailed})
	require.Equal(t, fault.User, fault.From(err).Class)
	for _, part := range []string{"command 2 of 3", "echo compiling", "exit code 7", "main.ts(3): no such name"} {
		require.ErrorContains(t, err, part)
	}
	require.NoFileExists(t, b.Path(worker.SourceDir, "later"))
	require.NotContains(t, b.log.String(), "[3/3]")
	for _, key := range []string{record.SnapshotKey("uid-1"), record.ArtifactsKey("uid-1"), b.request.Commit + "/x"} {
		_, _, err := b.Objects.Get(t.Context(), key)
		require.ErrorIs(t, err, store.ErrNotFound, key)
	}
}

// block makes a command wait for nothing, without using the processor.
const block = "mkfifo $TMPDIR/block; read x < $TMPDIR/block"

func TestRun_TimeoutNamesTheSetting(t *testing.T) {
	t.Parallel()
	b := newBench(t, pod.Config{}, commands(block)+"  timeout: 1s\n", nil)
	_, err := b.run(t.Context())
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StageTimeout})
	require.ErrorContains(t, err, "timeout 1s (build.timeout)")
	require.ErrorContains(t, err, "command 1 of 1")
	require.Contains(t, fault.From(err).Remedy, "build.timeout")
}

// variables reads what `env -0` wrote as an artifact.
func (b *bench) variables(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for entry := range strings.SplitSeq(string(b.object(t, b.request.Commit+"/env")), "\x00") {
		name, value, _ := strings.Cut(entry, "=")
		found[name] = value
	}
	return found
}

func TestRun_EnvironmentOfCommands(t *testing.T) {
	t.Parallel()
	// What the container has must not reach the commands either.
	container := pod.Config{Environ: []string{"AWS_SECRET_ACCESS_KEY=" + secretKey, "APHEX_GIT_CREDENTIALS=/var/run/git", "JAVA_HOME=/opt/java"}}
	section := commands("mkdir artifacts && env -0 > artifacts/env") + "  env:\n    NODE_ENV: production\n    GREETING: \"two words\"\n"
	t.Run("without credentials", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, container, section, nil)
		_, err := b.run(t.Context())
		require.NoError(t, err)
		require.Zero(t, b.asked)
		got := b.variables(t)
		for name, want := range map[string]string{
			"NODE_ENV": "production", "GREETING": "two words", "JAVA_HOME": "/opt/java", "APHEX_PIPELINE": "shop",
			"APHEX_COMMIT": b.request.Commit, "APHEX_BRANCH": "main", "APHEX_RUN": "shop-1", "HOME": b.Path(worker.HomeDir),
			"APHEX_ARTIFACTS": b.Path(worker.SourceDir, "artifacts"),
		} {
			require.Equal(t, want, got[name], name)
		}
		for name, value := range got {
			require.False(t, strings.HasPrefix(name, "AWS_") && name != "AWS_EC2_METADATA_DISABLED", name)
			require.NotContains(t, value, secretKey, name)
		}
		require.NotContains(t, got, "APHEX_GIT_CREDENTIALS")
	})
	t.Run("with credentials", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, container, section+"  credentials: true\n", nil)
		_, err := b.run(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, b.asked)
		require.Equal(t, secretKey, b.variables(t)["AWS_SECRET_ACCESS_KEY"])
	})
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

func TestRun_AgainAfterInterruptionStartsClean(t *testing.T) {
	t.Parallel()
	b := newBench(t, pod.Config{}, commands(
		"test ! -e stale && grep -qx committed file",
		"touch stale; echo changed > file; git config user.name stale",
		"if [ ! -e $HOME/second ]; then touch $HOME/second; echo it has begun; "+block+"; fi",
		"mkdir artifacts && cp file artifacts/",
	), map[string]string{"file": "committed\n"})
	ctx, interrupt := context.WithCancelCause(t.Context())
	stopped := errors.New("the pod is going away")
	b.out = trigger{&b.log, "it has begun\n", func() { interrupt(stopped) }}
	_, err := b.run(ctx)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.Cancellation})
	require.ErrorContains(t, err, stopped.Error())
	require.FileExists(t, b.Path(worker.SourceDir, "stale"))

	b.out = &b.log
	b.Restart()
	got, err := b.run(t.Context())
	require.NoError(t, err)
	require.Contains(t, got.Message, "1 artifact")
	require.Equal(t, "changed\n", string(b.object(t, b.request.Commit+"/file")))
}

func TestRun_FaultsBeforeAnyCommand(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*task.Request)
		reason fault.Reason
	}{
		"a tag nobody filled in": {func(r *task.Request) { r.Commit = "{{body.after}}" }, fault.CommitInvalid},
		"a commit nobody pushed": {func(r *task.Request) { r.Commit = strings.Repeat("ab", 20) }, fault.CommitUnknown},
		"no configuration":       {func(r *task.Request) { r.ConfigPath = "deploy/aphex.yaml" }, fault.ConfigMissing},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, pod.Config{}, commands("touch $HOME/ran"), nil)
			tt.change(&b.request)
			_, err := b.run(t.Context())
			require.ErrorIs(t, err, &fault.Fault{Reason: tt.reason})
			require.Equal(t, fault.User, fault.From(err).Class)
			require.NoFileExists(t, b.Path(worker.HomeDir, "ran"))
		})
	}
}

// A build that was cut off in the middle begins again in a clean checkout: what
// the first one left is neither in its way nor in the snapshot.
func TestRun_BeginsAgainInACleanCheckout(t *testing.T) {
	t.Parallel()
	once := filepath.Join(t.TempDir(), "once")
	list := commands(`test ! -e half && test ! -e deep/half`, `mkdir -p deep && touch half deep/half`,
		`if test -e `+once+`; then rm -r half deep; else touch `+once+`; echo halfway; sleep 300; fi`, "echo built > product")
	b := newBench(t, pod.Config{}, list, nil)
	ctx, cut := context.WithCancelCause(t.Context())
	halfway := errors.New("the pod is drained")
	b.out = writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), "halfway") {
			cut(halfway)
		}
		return len(p), nil
	})
	_, err := b.run(ctx)
	require.Error(t, err)
	require.ErrorIs(t, err, halfway, "%v", err)
	require.FileExists(t, b.Path("source", "deep/half"), "it was cut off in the middle")

	b.out = &b.log
	_, err = b.run(t.Context())
	require.NoError(t, err, b.log.String())
	require.NoError(t, b.Workspace.Reset(t.Context(), record.SnapshotKey("uid-1"), io.Discard))
	require.FileExists(t, b.Path("source", "product"))
	require.NoFileExists(t, b.Path("source", "half"))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
