package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/aphex-pipeline/aphex/e2e/toolcache"
)

// Names inside a local cluster.
const (
	nodeName       = "node1"
	podLink        = "cni0"
	apiPort        = "6443"
	serviceNetwork = "10.96.0.0/16"
	serviceAddress = "10.96.0.1"
)

// localState is what the local provider makes. Everything is named after the
// cluster's ID, so that the description suffices to find it.
type localState struct {
	// Index is the third number of the pod network 10.244.<Index>.0/24.
	Index int `json:"index"`
	// RunDir holds the sockets: paths of sockets have to be short.
	RunDir string `json:"runDir"`
	// Cgroup is the control group of all pods, below the root of each
	// hierarchy.
	Cgroup string `json:"cgroup"`
	// Netns is the name of the network namespace.
	Netns string `json:"netns"`
	// NetnsInode identifies the namespace's processes. Zero: not made yet.
	NetnsInode uint64 `json:"netnsInode"`
	// Link is this machine's end of the virtual link.
	Link string `json:"link"`
	// Processes are the components, in the order of their start.
	Processes []process `json:"processes"`
}

func (l *localState) network() string     { return fmt.Sprintf("10.244.%d.0/24", l.Index) }
func (l *localState) hostAddress() string { return fmt.Sprintf("10.244.%d.1", l.Index) }
func (l *localState) nodeAddress() string { return fmt.Sprintf("10.244.%d.2", l.Index) }

// nodeHardwareAddress is the fixed link address of the node. Without one a
// bridge takes the lowest address of its ports, which changes as pods come
// and go, and its neighbours lose it for seconds.
func (l *localState) nodeHardwareAddress() string { return fmt.Sprintf("0a:58:0a:f4:%02x:02", l.Index) }

// local is the provider that runs one node on this machine.
type local struct {
	config Config
	state  *state
	// Cache entries of the binaries.
	kube, etcd, pause, argo string

	mu      sync.Mutex
	started []*component // guarded by mu
}

func newLocal(c Config, s *state) *local {
	if s.Local == nil {
		s.Local = &localState{
			RunDir: filepath.Join(registryDir, s.ID), Cgroup: "aphex-" + s.ID,
			Netns: "aphex-" + s.ID, Link: "aphex" + s.ID,
		}
	}
	return &local{config: c, state: s}
}

func (l *local) logf(format string, args ...any) { logf(l.config.Log, format, args...) }

func (l *local) up(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("the local provider needs root: run as root, or set APHEX_CLUSTER to kind or existing")
	}
	if err := requirePackages(ctx, l.config.Log, requirements()); err != nil {
		return err
	}
	if err := l.buildTools(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, upTimeout, fmt.Errorf("bringing the cluster up took longer than %s", upTimeout))
	defer cancel()
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"claim a network", l.claim},
		{"make control groups", l.makeCgroups},
		{"make the network", l.makeNetwork},
		{"write keys and settings", l.writeSettings},
		{"start containerd and etcd", l.startStorage},
		{"start Kubernetes, load images", l.startKubernetesAndLoad},
		{"install Argo Workflows", l.installArgo},
	}
	for _, step := range steps {
		begun := time.Now()
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		l.logf("cluster %s: %s: %.1f s", l.state.ID, step.name, time.Since(begun).Seconds())
	}
	return nil
}

// buildTools gets every binary from the cache.
func (l *local) buildTools(ctx context.Context) error {
	tools, cache, err := openCache(ctx, l.config)
	if err != nil {
		return err
	}
	for _, want := range []struct {
		path   *string
		recipe toolcache.Recipe
	}{{&l.kube, tools.Kube()}, {&l.etcd, tools.Etcd()}, {&l.pause, tools.Pause()}, {&l.argo, tools.Argo()}} {
		if *want.path, err = cache.Get(ctx, want.recipe); err != nil {
			return err
		}
	}
	l.state.Tools = Tools{Kubectl: filepath.Join(l.kube, "kubectl"), Argo: filepath.Join(l.argo, "argo")}
	return nil
}

// openCache returns the recipes of the checkout and the cache to build in.
func openCache(ctx context.Context, c Config) (*toolcache.Tools, *toolcache.Cache, error) {
	root := c.Source
	if root == "" {
		found, err := toolcache.Root(".")
		if err != nil {
			return nil, nil, err
		}
		root = found
	}
	tools, err := toolcache.NewTools(ctx, root)
	if err != nil {
		return nil, nil, err
	}
	return tools, toolcache.New(c.CacheDir, c.Log), nil
}

// claim chooses a pod network that nobody on this machine uses and writes the
// claim down, under a lock of the whole machine.
func (l *local) claim(ctx context.Context) error {
	unlock, err := lockMachine(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	others, err := registered()
	if err != nil {
		return err
	}
	used, err := usedNetworks()
	if err != nil {
		return err
	}
	for _, other := range others {
		_, network, err := net.ParseCIDR(other.Local.network())
		if err != nil {
			return err
		}
		used = append(used, network)
	}
	for index := range 256 {
		l.state.Local.Index = index
		if free(l.state.Local.network(), used) {
			l.state.HostAddress = l.state.Local.hostAddress()
			return l.state.save()
		}
	}
	return errors.New("every network of 10.244.0.0/16 is in use on this machine; take a cluster down")
}

// usedNetworks returns the networks of this machine's interfaces.
func usedNetworks() ([]*net.IPNet, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var used []*net.IPNet
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok {
			used = append(used, network)
		}
	}
	return used, nil
}

// free reports whether network overlaps none of the used ones.
func free(network string, used []*net.IPNet) bool {
	ip, want, err := net.ParseCIDR(network)
	if err != nil {
		return false
	}
	for _, other := range used {
		if other.Contains(ip) || want.Contains(other.IP) {
			return false
		}
	}
	return true
}
