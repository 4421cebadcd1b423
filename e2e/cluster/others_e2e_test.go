package cluster_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/cluster"
)

// asExisting uses the cluster c, which has Argo, through the provider
// "existing", which must change nothing but its own namespace.
func asExisting(t *testing.T, c *cluster.Cluster) {
	config := existingConfig(t, c)
	config.Namespace = "visitor"
	e, err := cluster.Up(t.Context(), config)
	require.NoError(t, err)
	require.Equal(t, c.HostAddress(), e.HostAddress())
	kubectl(t, c, "", "get", "namespace", "visitor")
	require.NoError(t, os.WriteFile(config.Dir+"/image.tar", []byte("an image"), 0o600))
	require.NoError(t, e.LoadImage(t.Context(), config.Dir+"/image.tar"))
	loaded, err := os.ReadFile(config.Dir + "/image.tar.loaded")
	require.NoError(t, err)
	require.Equal(t, "an image", string(loaded))

	attached, err := cluster.Attach(config.Dir, nil)
	require.NoError(t, err)
	require.NoError(t, attached.Down(t.Context()))
	require.Empty(t, kubectl(t, c, "", "get", "namespace", "visitor", "--ignore-not-found"))
	kubectl(t, c, "", "--namespace", "argo", "get", "deployment", "workflow-controller")
	kubectl(t, c, "", "get", "workflows")
	require.NoFileExists(t, config.Dir+"/kubeconfig")
}

// asExistingWithoutArgo takes Argo away from the cluster c and has the
// provider "existing" install and remove it.
func asExistingWithoutArgo(t *testing.T, c *cluster.Cluster) {
	kubectl(t, c, "", "--namespace", "argo", "delete", "deployment", "workflow-controller")
	config := existingConfig(t, c)
	_, err := cluster.Up(t.Context(), config)
	require.ErrorContains(t, err, "another installation may be using them")
	kubectl(t, c, "", "get", "namespace", "argo", c.Namespace())

	kubectl(t, c, "", "delete", "namespace", "argo", c.Namespace())
	definitions := strings.Fields(kubectl(t, c, "", "get", "customresourcedefinitions", "-o", "name"))
	kubectl(t, c, "", append([]string{"delete"}, definitions...)...)
	e, err := cluster.Up(t.Context(), config)
	require.NoError(t, err)
	kubectl(t, c, "", "get", "workflows")
	require.NoError(t, e.Down(t.Context()))
	require.Empty(t, kubectl(t, c, "", "get", "namespace", "argo", c.Namespace(), "--ignore-not-found"))
	require.NotContains(t, kubectl(t, c, "", "get", "clusterroles,customresourcedefinitions", "-o", "name"), "argo")
}

// existingConfig is the configuration for c as somebody else's cluster.
func existingConfig(t *testing.T, c *cluster.Cluster) cluster.Config {
	t.Helper()
	return cluster.Config{
		Provider: cluster.ProviderExisting, Dir: t.TempDir(), Log: &testLog{t: t},
		KubeconfigFile: c.Kubeconfig(), HostAddress: c.HostAddress(), LoadCommand: `cp "$1" "$1.loaded"`,
	}
}

// asKind runs the provider "kind" against stand-ins for the commands kind and
// docker, which lend it the cluster c.
func asKind(t *testing.T, c *cluster.Cluster) {
	bin := t.TempDir()
	said := filepath.Join(bin, "said")
	for name, script := range map[string]string{
		"docker": `echo fc00::1; echo ` + c.HostAddress(),
		"kind": `
case "$1 $2" in
"create cluster") cp ` + c.Kubeconfig() + ` "$6"; echo "$4" >` + bin + `/clusters ;;
"get clusters") cat ` + bin + `/clusters ;;
"load image-archive") ctr --address /run/aphex-cluster/` + c.ID() + `/containerd.sock --namespace k8s.io images import "$5" ;;
"delete cluster") : >` + bin + `/clusters ;;
esac`,
	} {
		text := fmt.Sprintf("#!/bin/sh\necho %s \"$@\" >>%s\n%s\n", name, said, script)
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755))
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	k, err := cluster.Up(t.Context(), cluster.Config{Dir: filepath.Join(t.TempDir(), "k"), Log: &testLog{t: t}})
	require.NoError(t, err)
	require.Equal(t, cluster.ProviderKind, k.Provider())
	require.Equal(t, c.HostAddress(), k.HostAddress())
	require.NoError(t, k.Down(t.Context()))
	require.NoFileExists(t, k.Kubeconfig())
	out, err := exec.CommandContext(t.Context(), "cut", "-d", " ", "-f", "1-3", said).Output()
	require.NoError(t, err)
	require.Equal(t, []string{
		"docker version --format", "kind create cluster", "docker network inspect", "kind load image-archive", "kind load image-archive",
		"kind get clusters", "kind export logs", "kind delete cluster",
	}, strings.Split(strings.TrimSpace(string(out)), "\n"))
}
