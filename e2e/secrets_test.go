package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

// TestWorker_CannotReachTheSidecarsSecrets runs testdata/probe.sh as a build
// command: it tries every way to a credential that a command in the worker
// has, and fails the build if one of them leads anywhere.
func TestWorker_CannotReachTheSidecarsSecrets(t *testing.T) {
	t.Parallel()
	cannotReachSecrets(t, pluginRunner())
}

func TestWorker_OfAStagePodCannotReachSecrets(t *testing.T) {
	t.Parallel()
	cannotReachSecrets(t, containerRunner())
}

func cannotReachSecrets(t *testing.T, r runner) {
	t.Helper()
	l := needLab(t)
	name := "secrets" + r.suffix
	probe, err := os.ReadFile(filepath.Join("testdata", "probe.sh"))
	require.NoError(t, err)
	cfg := config(append([]string{"bash probe.sh"}, npmCI()...), dev(name))
	p, _ := newApp(t, l, name, cfg, settings{"stack": name}, r.use)
	commit, err := p.Push(t.Context(), gitserver.Change{Write: map[string]string{"probe.sh": string(probe)}})
	require.NoError(t, err)
	_, status := finish(t, p, commit)
	build := status.Node("build")
	require.Equal(t, "Succeeded", build.Phase, build.Message)
	require.Equal(t, "Succeeded", status.Phase, "%+v", status)

	log := object(t, l, build.Output("log-url"))
	require.Contains(t, log, "probe: 12 ways tried, none leads to a secret")
	require.NotContains(t, log, "git-password-of-the-lab")
}
