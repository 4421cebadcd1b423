package cluster_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/cluster"
	"github.com/aphex-pipeline/aphex/internal/testkit/need"
)

// executorRole lets pods of workflows report their results, as Argo's
// documentation asks of every installation.
const executorRole = `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: executor}
rules:
- {apiGroups: [argoproj.io], resources: [workflowtaskresults], verbs: [create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: executor-default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: executor}
subjects: [{kind: ServiceAccount, name: default}]
`

// stepWorkflow has one ordinary container step. Its input is fetched by the
// pod from a server of this machine, its result is reported by the pod to the
// API server's service address.
const stepWorkflow = `
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: step}
spec:
  entrypoint: main
  templates:
  - name: main
    inputs: {artifacts: [{name: greeting, path: /tmp/greeting, http: {url: "%s"}}]}
    container: {image: "%s", command: [argoexec, version]}
    outputs: {parameters: [{name: greeting, valueFrom: {path: /tmp/greeting}}]}
`

// tokenPod asks for a service-account token for another audience.
const tokenPod = `
apiVersion: v1
kind: Pod
metadata: {name: token}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: "%s"
    command: [argoexec, version]
    volumeMounts: [{name: token, mountPath: /token}]
  volumes:
  - {name: token, projected: {sources: [{serviceAccountToken: {audience: sts.amazonaws.com, path: token}}]}}
`

func TestLocal_RunsAWorkflowAndLeavesNothing(t *testing.T) {
	need.Require(t, need.Cluster)
	dir := filepath.Join(t.TempDir(), "cluster")
	log := &testLog{t: t}
	config := cluster.ConfigFromEnv(dir, log)
	config.Provider = cluster.ProviderLocal

	begun := time.Now()
	c, err := cluster.Up(t.Context(), config)
	require.NoError(t, err)
	t.Logf("up: %s", time.Since(begun))
	require.Contains(t, traces(t, dir), "kube-apiserver in "+dir)
	t.Cleanup(func() {
		if err := c.Down(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	t.Run("a container step succeeds", func(t *testing.T) { runStep(t, c) })
	t.Run("pods get tokens for an audience", func(t *testing.T) { runTokenPod(t, c) })
	t.Run("services have addresses", func(t *testing.T) { reachService(t, c) })
	t.Run("archives of both kinds are loaded", func(t *testing.T) { loadOCI(t, c) })
	t.Run("the node keeps its link address", func(t *testing.T) {
		out, err := exec.CommandContext(t.Context(), "ip", "-n", "aphex-"+c.ID(), "link", "show", "cni0").Output()
		require.NoError(t, err)
		require.Contains(t, string(out), "0a:58:0a:f4:")
	})
	t.Run("provider kind", func(t *testing.T) { asKind(t, c) })
	t.Run("provider existing", func(t *testing.T) { asExisting(t, c) })
	t.Run("provider existing, without Argo", func(t *testing.T) { asExistingWithoutArgo(t, c) })

	attached, err := cluster.Attach(dir, log)
	require.NoError(t, err)
	require.Equal(t, c.Kubeconfig(), attached.Kubeconfig())
	begun = time.Now()
	require.NoError(t, attached.Down(t.Context()))
	t.Logf("down: %s", time.Since(begun))
	require.Empty(t, traces(t, dir))
	require.FileExists(t, filepath.Join(c.Logs(), "kube-apiserver.log"))
	require.NoDirExists(t, filepath.Join(dir, "containerd"))
	_, err = cluster.Attach(dir, log)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func runStep(t *testing.T, c *cluster.Cluster) {
	kubectl(t, c, executorRole, "apply", "-f", "-")
	begun := time.Now()
	kubectl(t, c, fmt.Sprintf(stepWorkflow, serveHost(t, c), cluster.ExecutorImage), "create", "-f", "-")
	out, err := exec.CommandContext(t.Context(), c.Tools().Argo, "--kubeconfig", c.Kubeconfig(), "--namespace", c.Namespace(), "wait", "step").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "Succeeded", kubectl(t, c, "", "get", "workflow", "step", "-o", "jsonpath={.status.phase}"))
	t.Logf("workflow: %s", time.Since(begun))
	require.Equal(t, "hello from the machine", kubectl(t, c, "", "get", "workflow", "step", "-o", "jsonpath={.status.nodes.step.outputs.parameters[0].value}"))
	require.Contains(t, kubectl(t, c, "", "logs", "--selector=workflows.argoproj.io/workflow=step", "-c", "main"), "argoexec: v3.7.18")
}

func runTokenPod(t *testing.T, c *cluster.Cluster) {
	kubectl(t, c, fmt.Sprintf(tokenPod, cluster.ExecutorImage), "apply", "-f", "-")
	kubectl(t, c, "", "wait", "pod/token", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
	issuer := kubectl(t, c, "", "get", "--raw", "/.well-known/openid-configuration")
	require.Contains(t, issuer, "https://kubernetes.default.svc")
	require.Contains(t, kubectl(t, c, "", "get", "--raw", "/openid/v1/jwks"), `"RS256"`)
}

// reachService has a pod fetch from a Service whose endpoint is a server of
// this machine. kube-proxy programs a new Service a moment after it has been
// created, and a pod that is faster is refused: it tries again.
func reachService(t *testing.T, c *cluster.Cluster) {
	host, port, err := net.SplitHostPort(strings.TrimPrefix(strings.TrimSuffix(serveHost(t, c), "/greeting"), "http://"))
	require.NoError(t, err)
	kubectl(t, c, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: machine}
spec: {clusterIP: 10.96.7.7, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: machine, labels: {kubernetes.io/service-name: machine}}
addressType: IPv4
ports: [{name: "", port: %s}]
endpoints: [{addresses: [%s]}]
`, port, host), "apply", "-f", "-")
	kubectl(t, c, strings.NewReplacer("name: step", "name: service", "  - name: main\n", "  - name: main\n    retryStrategy: {limit: 4, retryPolicy: Always}\n").
		Replace(fmt.Sprintf(stepWorkflow, "http://10.96.7.7/greeting", cluster.ExecutorImage)), "create", "-f", "-")
	kubectl(t, c, "", "wait", "workflow/service", "--for=condition=Completed", "--timeout=120s")
	require.Equal(t, "Succeeded", kubectl(t, c, "", "get", "workflow", "service", "-o", "jsonpath={.status.phase}"),
		kubectl(t, c, "", "get", "workflow", "service", "-o", "jsonpath={.status.nodes}"))
}

// loadOCI loads an image from an OCI archive and runs it.
func loadOCI(t *testing.T, c *cluster.Cluster) {
	dir := t.TempDir()
	program, err := os.ReadFile(filepath.Join(filepath.Dir(c.Tools().Argo), "argoexec"))
	require.NoError(t, err)
	var files bytes.Buffer
	writer := tar.NewWriter(&files)
	require.NoError(t, writer.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "argoexec", Mode: 0o755, Size: int64(len(program))}))
	_, err = writer.Write(program)
	require.NoError(t, err)
	require.NoError(t, writer.Close())
	layer := static.NewLayer(files.Bytes(), types.OCIUncompressedLayer)
	image, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layer)
	require.NoError(t, err)
	config, err := image.ConfigFile()
	require.NoError(t, err)
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	image, err = mutate.ConfigFile(image, config)
	require.NoError(t, err)
	index, err := layout.Write(dir, empty.Index)
	require.NoError(t, err)
	require.NoError(t, index.AppendImage(image, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "test/oci:dev"})))
	archive := filepath.Join(t.TempDir(), "oci.tar")
	out, err := exec.CommandContext(t.Context(), "tar", "-C", dir, "-cf", archive, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, c.LoadImage(t.Context(), archive))
	kubectl(t, c, `
apiVersion: v1
kind: Pod
metadata: {name: oci}
spec: {restartPolicy: Never, containers: [{name: main, image: "test/oci:dev", command: [/argoexec, version]}]}
`, "apply", "-f", "-")
	kubectl(t, c, "", "wait", "pod/oci", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
}

// serveHost starts a server of this machine for pods and returns its URL.
func serveHost(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(c.HostAddress(), "0"))
	require.NoError(t, err)
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("hello from the machine"))
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return "http://" + listener.Addr().String() + "/greeting"
}

// kubectl runs kubectl in the tenant namespace and returns what it says.
func kubectl(t *testing.T, c *cluster.Cluster, input string, args ...string) string {
	t.Helper()
	argv := append([]string{"--kubeconfig", c.Kubeconfig(), "--namespace", c.Namespace()}, args...)
	cmd := exec.CommandContext(t.Context(), c.Tools().Kubectl, argv...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%v: %s", args, out)
	return string(out)
}

// traces returns everything on this machine that names the cluster whose
// state directory is dir: mounts, network links and namespaces, packet filter
// rules, control groups, files and processes.
func traces(t *testing.T, dir string) string {
	t.Helper()
	sum := sha256.Sum256([]byte(dir))
	id := hex.EncodeToString(sum[:4])
	script := `
grep -F -e "$id" -e "$dir" /proc/self/mountinfo
ls /sys/class/net /run/netns | grep -F "$id"
iptables-save | grep -F -e "$id"
find /sys/fs/cgroup -maxdepth 2 -name "*$id*"
find /run/aphex-cluster /var/lib/cni -name "*$id*"
find /var/log/containers -lname "$dir*"
grep -l -F "$dir" -r /var/lib/cni
for p in /proc/[0-9]*; do
  grep -q "^State:.*zombie" $p/status && continue
  [ "$(readlink $p/cwd)" = "$dir" ] && echo "$p $(cat $p/comm) in $dir"
  grep -q -a -F -e "$id" -e "$dir" $p/cgroup && echo "$p $(cat $p/comm) in a control group"
done
true`
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	cmd.Env = append(os.Environ(), "id="+id, "dir="+dir)
	out, err := cmd.Output()
	require.NoError(t, err)
	return string(out)
}

// testLog passes lines on to the test's log.
type testLog struct{ t *testing.T }

func (l *testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}
