package cluster

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// release writes a directory of manifests such as Argo's.
func release(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"base/crds/minimal/kustomization.yaml":                                "resources: [crd.yaml]\n",
		"base/crds/minimal/crd.yaml":                                          "kind: CustomResourceDefinition\nmetadata: {name: workflows.argoproj.io}\n",
		"cluster-install-no-crds/workflow-controller-rbac/kustomization.yaml": "resources: [rbac.yaml]\n",
		"cluster-install-no-crds/workflow-controller-rbac/rbac.yaml": "kind: ClusterRoleBinding\nmetadata: {name: b}\nsubjects: [{kind: ServiceAccount, name: argo}]\n" +
			"---\nkind: Role\nmetadata: {name: r}\n---\n",
		"base/workflow-controller/kustomization.yaml": "resources: [deployment.yaml]\n",
		"base/workflow-controller/deployment.yaml": "kind: Deployment\nmetadata: {name: workflow-controller}\n" +
			"spec: {template: {spec: {containers: [{image: old, env: [{name: A, value: b}]}]}}}\n",
		"base/workflow-controller/unlisted.yaml": "kind: Secret\nmetadata: {name: s}\n",
	} {
		path := filepath.Join(dir, "manifests", name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	}
	return dir
}

func TestArgoObjects_StockWithPluginsSwitchedOn(t *testing.T) {
	t.Parallel()
	objects, err := argoObjects(release(t))
	require.NoError(t, err)
	byKind := map[string]object{}
	for _, o := range objects {
		kind, ok := o["kind"].(string)
		require.True(t, ok)
		byKind[kind] = o
	}
	require.Len(t, byKind, 5)
	require.Equal(t, "Namespace", objects[0]["kind"])
	require.Equal(t, object{"name": "workflows.argoproj.io"}, byKind["CustomResourceDefinition"]["metadata"])
	require.Equal(t, object{"name": "r", "namespace": "argo"}, byKind["Role"]["metadata"])
	require.Equal(t, []any{object{"kind": "ServiceAccount", "name": "argo", "namespace": "argo"}}, byKind["ClusterRoleBinding"]["subjects"])
	container, err := firstContainer(byKind["Deployment"])
	require.NoError(t, err)
	require.Equal(t, object{
		"image": "quay.io/argoproj/workflow-controller:v3.7.18",
		"env":   []any{object{"name": "A", "value": "b"}, object{"name": "ARGO_EXECUTOR_PLUGINS", "value": "true"}},
	}, container)
	require.True(t, pluginsEnabled(container))
	require.False(t, pluginsEnabled(object{}))
}
