package conformance

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/toolcache"
)

// patchRate is how often the agents of these tests hand results over.
const patchRate = "100ms"

// buildAgent returns the path of the agent's binary, built once.
var buildAgent = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	root, err := toolcache.Root(".")
	if err != nil {
		return "", err
	}
	tools, err := toolcache.NewTools(ctx, root)
	if err != nil {
		return "", err
	}
	cache, err := aws.DefaultCacheDir()
	if err != nil {
		return "", err
	}
	entry, err := toolcache.New(filepath.Join(cache, "tools"), os.Stderr).Get(ctx, tools.Agent())
	return filepath.Join(entry, "agent"), err
})

// patience is how long an agent waits for one call, and before it repeats it.
type patience struct{ timeout, backoff time.Duration }

// brief is the patience of most tests: five tries in about 1.5 s.
func brief() patience { return patience{timeout: 10 * time.Second, backoff: 100 * time.Millisecond} }

// argos is what Argo has built in.
func argos() patience { return patience{timeout: 30 * time.Second, backoff: time.Second} }

// agent is one process of Argo's agent.
type agent struct {
	t      *testing.T
	cmd    *exec.Cmd
	exited chan struct{}
}

// startAgent starts an agent that knows the plugins at the given URLs, in this
// order.
func (w *world) startAgent(p patience, plugins ...string) *agent {
	w.t.Helper()
	binary, err := buildAgent()
	require.NoError(w.t, err)
	args := append([]string{
		"-api", w.kube.URL(), "-namespace", namespace, "-workflow", wfName, "-uid", wfUID, "-token", w.token,
		"-timeout", p.timeout.String(), "-backoff", p.backoff.String(),
	}, plugins...)
	cmd := exec.CommandContext(w.t.Context(), binary, args...)
	cmd.Env = []string{"ARGO_AGENT_PATCH_RATE=" + patchRate}
	if w.workers != "" {
		cmd.Env = append(cmd.Env, "ARGO_AGENT_TASK_WORKERS="+w.workers)
	}
	cmd.Stdout, cmd.Stderr = w.t.Output(), w.t.Output()
	require.NoError(w.t, cmd.Start())
	a := &agent{t: w.t, cmd: cmd, exited: make(chan struct{})}
	go func() {
		defer close(a.exited)
		_ = cmd.Wait() // how it ended is in ProcessState
	}()
	w.t.Cleanup(a.kill)
	return a
}

// kill ends the process as a crash would.
func (a *agent) kill() {
	_ = a.cmd.Process.Kill() // it may have ended
	<-a.exited
}

// wait returns the status the process exits with.
func (a *agent) wait() int {
	a.t.Helper()
	select {
	case <-a.exited:
	case <-time.After(deadline):
		require.Fail(a.t, "the agent lives on")
	}
	return a.cmd.ProcessState.ExitCode()
}
