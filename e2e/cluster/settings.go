package cluster

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"
)

// pauseImage is the image of every pod's sandbox. The name is containerd's
// default; the image is our own.
const pauseImage = "registry.k8s.io/pause:3.6"

// apiServer is the URL of the API server, the same for pods and machine.
func (l *local) apiServer() string { return "https://" + l.state.Local.nodeAddress() + ":" + apiPort }

// containerdSocket is the path of containerd's socket.
func (l *local) containerdSocket() string {
	return filepath.Join(l.state.Local.RunDir, "containerd.sock")
}

// writeSettings writes keys, kubeconfigs and the configuration files of
// containerd, its networks and the kubelet.
func (l *local) writeSettings(context.Context) error {
	if err := os.RemoveAll(l.state.logs()); err != nil {
		return err
	}
	for _, dir := range []string{"log", "pki", "cni", "kubelet", "etcd"} {
		if err := os.MkdirAll(l.state.path(dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(l.state.Local.RunDir, 0o711); err != nil {
		return err
	}
	if err := l.writeKeys(); err != nil {
		return err
	}
	network, err := json.MarshalIndent(l.networkConfig(), "", "  ")
	if err != nil {
		return err
	}
	kubelet, err := yaml.Marshal(l.kubeletConfig())
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		"cni/10-pods.conflist": network,
		"kubelet.yaml":         kubelet,
		"containerd.toml":      []byte(l.containerdConfig()),
	} {
		if err := writeFile(l.state.path(name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeKeys makes the certificate authority, everybody's certificates and
// kubeconfigs, and the keys of service-account tokens.
func (l *local) writeKeys() error {
	ca, err := newAuthority(l.state.path("pki"))
	if err != nil {
		return err
	}
	node := l.state.Local.nodeAddress()
	for _, id := range []identity{
		{file: "apiserver", user: "kube-apiserver", hosts: []string{serviceAddress, node, "127.0.0.1", "kubernetes.default.svc", "kubernetes.default", "kubernetes"}},
		{file: "apiserver-kubelet", user: "kube-apiserver-kubelet-client", groups: []string{"system:masters"}},
		{file: "kubelet-server", user: nodeName, hosts: []string{node, nodeName}},
		{file: machineCertificate, user: "machine", hosts: []string{l.state.Local.hostAddress()}},
	} {
		if _, _, err := ca.issue(id); err != nil {
			return err
		}
	}
	clients := map[string]identity{
		l.state.Kubeconfig: {file: "admin", user: "aphex-admin", groups: []string{"system:masters"}},
		l.componentKubeconfig("kubelet"): {
			file: "kubelet", user: "system:node:" + nodeName, groups: []string{"system:nodes"},
		},
	}
	for _, name := range []string{"kube-controller-manager", "kube-scheduler", "kube-proxy"} {
		clients[l.componentKubeconfig(name)] = identity{file: name, user: "system:" + name}
	}
	for path, id := range clients {
		certFile, keyFile, err := ca.issue(id)
		if err != nil {
			return err
		}
		if err := writeKubeconfig(path, l.apiServer(), l.state.path("pki", "ca.crt"), certFile, keyFile); err != nil {
			return err
		}
	}
	return writeTokenKeys(l.state.path("pki"))
}

// machineCertificate is the name of the files of Cluster.ServerCertificate.
const machineCertificate = "machine"

func (l *local) componentKubeconfig(name string) string {
	return l.state.path("pki", name+".kubeconfig")
}

// writeKubeconfig writes a kubeconfig that holds the content of the files, so
// that it can be copied elsewhere.
func writeKubeconfig(path, server, caFile, certFile, keyFile string) error {
	var data [3]string
	for i, file := range []string{caFile, certFile, keyFile} {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		data[i] = base64.StdEncoding.EncodeToString(content)
	}
	config, err := yaml.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "aphex",
		"clusters": []object{{"name": "aphex", "cluster": object{"server": server, "certificate-authority-data": data[0]}}},
		"users":    []object{{"name": "aphex", "user": object{"client-certificate-data": data[1], "client-key-data": data[2]}}},
		"contexts": []object{{"name": "aphex", "context": object{"cluster": "aphex", "user": "aphex"}}},
	})
	if err != nil {
		return err
	}
	return writeFile(path, config, 0o600)
}

// networkName is the name of the pod network, unique on the machine because
// the plugins keep files by that name.
func (l *local) networkName() string { return "aphex-" + l.state.ID }

// networkConfig is the container network configuration: pods on the bridge,
// the node as their gateway. The first addresses are the machine's and the
// node's.
func (l *local) networkConfig() map[string]any {
	s := l.state.Local
	return map[string]any{
		"cniVersion": "0.4.0",
		"name":       l.networkName(),
		"plugins": []map[string]any{
			{
				"type": "bridge", "bridge": podLink, "hairpinMode": true,
				"ipam": map[string]any{
					"type":    "host-local",
					"dataDir": l.state.path("cni", "addresses"),
					"ranges": [][]map[string]any{{{
						"subnet": s.network(), "gateway": s.nodeAddress(), "rangeStart": fmt.Sprintf("10.244.%d.10", s.Index),
					}}},
					"routes": []map[string]any{{"dst": "0.0.0.0/0"}},
				},
			},
			{"type": "portmap", "capabilities": map[string]any{"portMappings": true}},
		},
	}
}

// containerdConfig is containerd's configuration. All its files are in the
// state directory and the run directory, pod network namespaces included.
//
// Source: without CAP_SYS_RESOURCE, as in many sandboxes, runc cannot lower
// oom_score_adj and fails with "can't get final child's PID from pipe: EOF"
// unless restrict_oom_score_adj is set (containerd 1.6, runc 1.1).
func (l *local) containerdConfig() string {
	return fmt.Sprintf(`version = 2
root = %q
state = %q
[grpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = %q
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = %q
`,
		l.state.path("containerd", "root"), l.state.path("containerd", "state"), l.containerdSocket(), l.state.path("containerd", "opt"),
		pauseImage, networkPlugins(), l.state.path("cni"), l.snapshotter(), filepath.Join(l.state.Local.RunDir, "runc"))
}

// snapshotter is overlayfs, unless the state directory is on an overlay
// itself, which cannot hold the upper layer of another one.
func (l *local) snapshotter() string {
	var stat unix.Statfs_t
	if err := unix.Statfs(l.state.Dir, &stat); err == nil && stat.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return "native"
	}
	return "overlayfs"
}

// kubeletConfig is the kubelet's configuration. Nothing is ever evicted: the
// disk is the developer's.
func (l *local) kubeletConfig() map[string]any {
	return object{
		"apiVersion":               "kubelet.config.k8s.io/v1beta1",
		"kind":                     "KubeletConfiguration",
		"address":                  l.state.Local.nodeAddress(),
		"authentication":           object{"anonymous": object{"enabled": false}, "webhook": object{"enabled": true}, "x509": object{"clientCAFile": l.state.path("pki", "ca.crt")}},
		"authorization":            object{"mode": "Webhook"},
		"tlsCertFile":              l.state.path("pki", "kubelet-server.crt"),
		"tlsPrivateKeyFile":        l.state.path("pki", "kubelet-server.key"),
		"healthzPort":              0,
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               "/" + l.state.Local.Cgroup,
		"cgroupsPerQOS":            true,
		"enforceNodeAllocatable":   []string{},
		"failSwapOn":               false,
		"failCgroupV1":             false,
		"containerRuntimeEndpoint": "unix://" + l.containerdSocket(),
		"podLogsDir":               l.state.path("log", "pods"),
		"volumePluginDir":          l.state.path("kubelet", "plugins"),
		"evictionHard": map[string]string{
			"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%", "imagefs.inodesFree": "0%", "pid.available": "0%",
		},
		"imageGCHighThresholdPercent": 100,
		"resolvConf":                  "/etc/resolv.conf",
		"clusterDNS":                  []string{},
		"podCIDR":                     l.state.Local.network(),
		"maxPods":                     200,
	}
}

// networkPluginDirs are where distributions keep container network plugins.
func networkPluginDirs() []string {
	return []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"}
}

// networkPlugins is the directory of this machine's network plugins, or "".
func networkPlugins() string {
	for _, dir := range networkPluginDirs() {
		if _, err := exec.LookPath(filepath.Join(dir, "bridge")); err == nil {
			return dir
		}
	}
	return ""
}
