package toolcache_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/toolcache"
)

func checkout(t *testing.T) string {
	t.Helper()
	root, err := toolcache.Root(".")
	require.NoError(t, err)
	return root
}

func TestVersions_AgreeWithBuildModules(t *testing.T) {
	t.Parallel()
	for module, want := range map[string]string{
		"kube": "k8s.io/kubernetes " + toolcache.KubernetesVersion,
		"etcd": "go.etcd.io/etcd/server/v3 " + toolcache.EtcdVersion,
		"argo": "github.com/argoproj/argo-workflows/v3 " + toolcache.ArgoVersion,
	} {
		data, err := os.ReadFile(filepath.Join(checkout(t), "hack", module, "go.mod"))
		require.NoError(t, err)
		require.Contains(t, string(data), want)
	}
}

func TestTools_RecipesDifferAndNameTheToolchain(t *testing.T) {
	t.Parallel()
	tools, err := toolcache.NewTools(t.Context(), checkout(t))
	require.NoError(t, err)
	keys := map[string]string{}
	for _, r := range []toolcache.Recipe{tools.Kube(), tools.Etcd(), tools.Argo(), tools.Pause(), tools.Agent()} {
		require.True(t, strings.HasPrefix(r.Inputs[0], "go1."), r.Inputs[0])
		_, err := fs.Stat(r.Module, "go.mod")
		require.NoError(t, err)
		key, err := toolcache.Key(r)
		require.NoError(t, err)
		require.Len(t, key, 64)
		keys[key] = r.Name
	}
	require.Len(t, keys, 5)
}

func TestTools_PauseIsBuiltFromItsModule(t *testing.T) {
	t.Parallel()
	tools, err := toolcache.NewTools(t.Context(), checkout(t))
	require.NoError(t, err)
	entry, err := toolcache.New(t.TempDir(), nil).Get(t.Context(), tools.Pause())
	require.NoError(t, err)
	info, err := os.Stat(filepath.Join(entry, "pause"))
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&0o111)
}

func TestRoot_OutsideACheckoutSaysSo(t *testing.T) {
	t.Parallel()
	_, err := toolcache.Root(t.TempDir())
	require.ErrorContains(t, err, "is in no checkout of aphex")
}
