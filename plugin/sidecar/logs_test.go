package sidecar_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/stagelog"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/plugin/execution"
	"github.com/aphex-pipeline/aphex/plugin/sidecar"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// bucket is a folder whose objects have the URLs of a bucket.
type bucket struct{ execution.Logs }

func (b bucket) Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error) {
	object, err := b.Logs.Put(ctx, key, body, opts)
	object.URL = "s3://shop/team/" + key
	return object, err
}

func TestLogs_AreInTheBucketWhileTheStageRunsAndMainLogsAfterwards(t *testing.T) {
	t.Parallel()
	objects := store.NewDir(t.TempDir())
	release := make(chan struct{})
	told := &listener{}
	p := start(t, options{runs: newRuns(), registry: task.Registry{task.StageDeployEnv: task.RunnerFunc(
		func(_ context.Context, _ task.Request, env task.Env) (task.Result, error) {
			_, err := io.WriteString(env.Output, "one\ntwo\n")
			<-release
			return task.Result{Message: "deployed", Outputs: map[string]string{task.OutputDeployed: "true"}}, err
		})}, change: func(c *sidecar.Config) {
		c.Logs, c.MainLogs, c.LogEvery, c.Recorder = bucket{objects}, true, 5*time.Millisecond, told
	}})
	p.running(args(body(task.StageDeployEnv, "environment", "dev")))
	require.Eventually(t, func() bool {
		entries, err := stagelog.List(t.Context(), objects, wfUID)
		require.NoError(t, err)
		if len(entries) != 1 {
			return false
		}
		var log bytes.Buffer
		require.NoError(t, stagelog.NewCursor(objects, wfUID, entries[0]).Copy(t.Context(), &log))
		return log.String() == "one\ntwo\n"
	}, 20*time.Second, time.Millisecond)
	close(release)

	final, _ := p.await(args(body(task.StageDeployEnv, "environment", "dev")))
	require.Len(t, final.Outputs.Artifacts, 1)
	artifact := final.Outputs.Artifacts[0]
	require.Equal(t, "main-logs", artifact.Name, "the name Argo's log panel looks for")
	require.Equal(t, "s3://shop/"+artifact.S3.Key, parameters(final)[task.OutputLogURL])
	require.Contains(t, told.all(), " s3://shop/"+artifact.S3.Key+"\n", "the record has the log's place too")
	whole, _, err := objects.Get(t.Context(), strings.TrimPrefix(artifact.S3.Key, "team/"))
	require.NoError(t, err)
	text, err := io.ReadAll(whole)
	require.NoError(t, err)
	require.NoError(t, whole.Close())
	require.Equal(t, "one\ntwo\naphex: deploy-dev Succeeded\n", string(text))
}

func TestLogs_HaveEveryFindingOfAFailureThatIsTooLongForItsMessage(t *testing.T) {
	t.Parallel()
	objects := store.NewDir(t.TempDir())
	var findings []error
	for n := range 20 {
		findings = append(findings, fault.Newf(fault.User, fault.RoleDenied, fmt.Sprintf("assume role %d", n), strings.Repeat("Look at its trust policy ", 10), "refused"))
	}
	p := start(t, options{runs: newRuns(), registry: task.Registry{task.StageValidate: task.RunnerFunc(
		func(context.Context, task.Request, task.Env) (task.Result, error) {
			return task.Result{}, fault.Join("validate the run", "Mend all of them", findings...)
		})}, change: func(c *sidecar.Config) { c.Logs = bucket{objects} }})
	final, _ := p.await(args(body(task.StageValidate)))
	require.LessOrEqual(t, len(final.Message), 1<<10)
	require.NotContains(t, final.Message, "assume role 10:")
	require.Contains(t, final.Message, "its log has all of it")

	entries, err := stagelog.List(t.Context(), objects, wfUID)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	var log bytes.Buffer
	require.NoError(t, stagelog.NewCursor(objects, wfUID, entries[0]).Copy(t.Context(), &log))
	for n := range findings {
		require.Contains(t, log.String(), fmt.Sprintf("\n(%d) assume role %d: refused. Look at", n+1, n))
	}
}

func TestLogs_AreSaidToHaveWhatTheyHave(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("one of many words ", 55) // with its reason too long, but not without
	objects := store.NewDir(t.TempDir())
	p := start(t, options{runs: newRuns(), registry: task.Registry{task.StageDeployEnv: task.RunnerFunc(
		func(context.Context, task.Request, task.Env) (task.Result, error) {
			return task.Result{Message: text, Reason: strings.Repeat("Superseded", 5)}, nil
		})}, change: func(c *sidecar.Config) { c.Logs = objects }})
	final, _ := p.await(args(body(task.StageDeployEnv, "environment", "dev")))
	require.Contains(t, final.Message, "its log has all of it")
	entries, err := stagelog.List(t.Context(), objects, wfUID)
	require.NoError(t, err)
	var log bytes.Buffer
	require.NoError(t, stagelog.NewCursor(objects, wfUID, entries[0]).Copy(t.Context(), &log))
	require.Contains(t, log.String(), "aphex: "+text)

	// A call that is rejected has no log.
	final, _ = p.await(args(body(task.StageDeployEnv, "environment", "dev", "attempt", strings.Repeat("9", 2000))))
	require.Contains(t, final.Message, "999 … 999")
}

func TestLogs_AFailureBeginsALine(t *testing.T) {
	t.Parallel()
	objects := store.NewDir(t.TempDir())
	p := start(t, options{runs: newRuns(), registry: task.Registry{task.StageValidate: task.RunnerFunc(
		func(_ context.Context, _ task.Request, env task.Env) (task.Result, error) {
			_, err := io.WriteString(env.Output, "no newline")
			return task.Result{}, errors.Join(err, fault.Newf(fault.User, fault.CommandFailed, "run npm", "", "exit code 1"))
		})}, change: func(c *sidecar.Config) { c.Logs = objects }})
	p.await(args(body(task.StageValidate)))
	entries, err := stagelog.List(t.Context(), objects, wfUID)
	require.NoError(t, err)
	var log bytes.Buffer
	require.NoError(t, stagelog.NewCursor(objects, wfUID, entries[0]).Copy(t.Context(), &log))
	require.Equal(t, "no newline\naphex: run npm: exit code 1 [CommandFailed]\naphex: validate Failed\n", log.String())
}
