package e2e

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// requireFailure checks the one stage that must have failed, and why.
func requireFailure(t *testing.T, s lab.Status, stage string, reason fault.Reason, parts ...string) {
	t.Helper()
	require.Equal(t, "Failed", s.Phase, "%+v", s)
	node := s.Node(stage)
	require.Equal(t, "Failed", node.Phase, "%s: %s", stage, node.Message)
	require.Contains(t, node.Message, "["+string(reason)+"]")
	for _, part := range parts {
		require.Contains(t, node.Message, part)
	}
}

// TestRun_RoleThatCannotBeAssumed: the target account refuses the role, which
// the fault proxy says in STS's words.
//
// Feature: aphex-pipeline, Property 20: AWS credential validation
func TestRun_RoleThatCannotBeAssumed(t *testing.T) {
	l := needLab(t)
	role := "arn:aws:iam::222222222222:role/cdk-hnb659fds-deploy-role-222222222222-eu-central-1"
	p, commit := newApp(t, l, "role-denied", config(npmCI(), environment{name: "prod", region: "eu-central-1", account: aws.AccountTarget, stack: "role-denied"}), settings{"stack": "role-denied"})
	require.NoError(t, l.AWS.Rules(t.Context(), `[{"service": "sts", "operation": "AssumeRole", "body": "RoleArn == '`+role+`'", "error": {"code": "AccessDenied", "status": 403}}]`))
	t.Cleanup(func() { require.NoError(t, l.AWS.ClearRules(context.WithoutCancel(t.Context()))) })
	_, status := finish(t, p, commit)
	fired, err := l.AWS.Fired(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, fired, "the refusal never happened")
	requireFailure(t, status, "validate", fault.RoleDenied, role, "222222222222")
}

// TestRun_WithoutAWS: the endpoint does not answer.
func TestRun_WithoutAWS(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	p, commit := newApp(t, l, "no-aws", config(npmCI(), dev("no-aws")), settings{"stack": "no-aws"})
	// Port 9 of this machine, where nothing listens.
	p.Installation.EndpointURL = "http://" + l.Cluster.HostAddress() + ":9"
	require.NoError(t, p.Apply(t.Context(), []byte(config(npmCI(), dev("no-aws")))))
	_, status := finish(t, p, commit)
	requireFailure(t, status, "validate", fault.AWSUnavailable)
}

// TestRun_PrivateRepositoryWithoutCredentials: the git server asks for a
// password that the pipeline does not have.
func TestRun_PrivateRepositoryWithoutCredentials(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	cfg := config(npmCI(), dev("private"))
	p, commit := newApp(t, l, "private", cfg, settings{"stack": "private"})
	p.Installation.GitSecret = "aphex-git-nonesuch"
	require.NoError(t, p.Apply(t.Context(), []byte(cfg)))
	_, status := finish(t, p, commit)
	requireFailure(t, status, "validate", fault.RepositoryDenied, "private")
}

// TestRun_WorkerKilled: the worker's process dies in the middle of a command.
func TestRun_WorkerKilled(t *testing.T) {
	t.Parallel()
	losesItsWorker(t, pluginRunner())
}

func TestRun_WorkerOfAStagePodKilled(t *testing.T) {
	t.Parallel()
	losesItsWorker(t, containerRunner())
}

func losesItsWorker(t *testing.T, r runner) {
	t.Helper()
	l := needLab(t)
	ctx := limited(t)
	run := holdBuild(ctx, t, l, "killed"+r.suffix, r)
	require.Equal(t, 1, killWorkers(t, l, run.Run))
	status, err := run.Wait(ctx)
	require.NoError(t, err)
	requireFailure(t, status, "build", fault.WorkerLost)
	require.Equal(t, "Omitted", status.Node("deploy-dev").Phase)
}

// killWorkers kills the worker processes of the run's pods with SIGKILL and
// returns how many there were. The node's processes are this machine's.
func killWorkers(t *testing.T, l *lab.Lab, run *lab.Run) int {
	t.Helper()
	pods, err := l.Pods(t.Context(), run)
	require.NoError(t, err)
	require.NotEmpty(t, pods)
	killed := 0
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, file := range lines {
		line, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(line), "/aphex/bin/aphex\x00worker\x00") {
			continue
		}
		groups, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cgroup"))
		if err != nil || !slices.ContainsFunc(pods, func(pod lab.Pod) bool { return strings.Contains(string(groups), pod.UID) }) {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(file, "/")[2])
		require.NoError(t, err)
		process, err := os.FindProcess(pid)
		require.NoError(t, err)
		require.NoError(t, process.Kill())
		killed++
	}
	return killed
}
