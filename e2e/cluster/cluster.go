package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// Limits of the whole of bringing up and taking down, beyond the first build
// of the binaries.
const (
	upTimeout   = 5 * time.Minute
	downTimeout = 2 * time.Minute
)

// Cluster is a running cluster. It is safe for use by several goroutines,
// except that nothing may be called after Down.
type Cluster struct {
	state    *state
	log      io.Writer
	provider provider
}

// provider is what differs between the kinds of clusters.
type provider interface {
	// up makes the cluster and fills in the state's kubeconfig, addresses and
	// tools.
	up(ctx context.Context) error
	// load makes the images of a tar file known to the nodes.
	load(ctx context.Context, tarFile string) error
	// down removes everything that the state describes. It can be repeated.
	down(ctx context.Context) error
}

// Tools are the paths of programs that fit the cluster.
type Tools struct {
	// Kubectl and Argo are the command line tools.
	Kubectl string `json:"kubectl"`
	Argo    string `json:"argo"`
}

// Up brings up a cluster with Argo Workflows and waits until its node is
// ready, the controller runs and the tenant namespace exists. Leftovers of
// killed runs are removed first. If it fails or ctx ends, it removes what it
// made, except the logs.
func Up(ctx context.Context, config Config) (*Cluster, error) {
	c, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	if c.Provider, err = choose(ctx, c, thisMachine{}); err != nil {
		return nil, err
	}
	unlock, err := lockDir(c.Dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := removeLeftovers(ctx, c); err != nil {
		return nil, fmt.Errorf("remove what an earlier run left behind: %w", err)
	}
	s, err := newState(c)
	if err != nil {
		return nil, err
	}
	cluster := &Cluster{state: s, log: c.Log, provider: newProvider(c, s)}
	cluster.logf("cluster %s: provider %s in %s", s.ID, c.Provider, c.Dir)
	if err := cluster.provider.up(ctx); err != nil {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), downTimeout)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("bring up the %s cluster: %w", c.Provider, err), cluster.provider.down(clean))
	}
	return cluster, s.save()
}

// Attach returns the cluster whose state directory is dir and that another
// process may have made. Its messages go to log; nil discards them.
//
// Error: fs.ErrNotExist if dir describes no cluster.
func Attach(dir string, log io.Writer) (*Cluster, error) {
	c, err := Config{Dir: dir, Log: log}.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &state{Dir: c.Dir}
	if s, err = readState(s.path(stateFile)); err != nil {
		return nil, err
	}
	return &Cluster{state: s, log: c.Log, provider: newProvider(c, s)}, nil
}

// newProvider returns the provider that the state names.
func newProvider(c Config, s *state) provider {
	switch s.Provider {
	case ProviderKind:
		return &kind{config: c, state: s}
	case ProviderExisting:
		return &existing{config: c, state: s}
	}
	return newLocal(c, s)
}

// Provider is the provider's name.
func (c *Cluster) Provider() string { return c.state.Provider }

// ID is a short name of the cluster that everything it makes on this machine
// has in its own name.
func (c *Cluster) ID() string { return c.state.ID }

// Kubeconfig is the path of the administrator's kubeconfig.
func (c *Cluster) Kubeconfig() string { return c.state.Kubeconfig }

// HostAddress is the IPv4 address under which pods reach servers of this
// machine, and on which such servers have to listen.
func (c *Cluster) HostAddress() string { return c.state.HostAddress }

// ServerCertificate returns the files of a certificate and its key for servers
// of this machine, which pods trust as they trust the API server: it is for
// HostAddress, from the same authority. Only the local provider has one.
func (c *Cluster) ServerCertificate() (certFile, keyFile string, err error) {
	if c.state.Provider != ProviderLocal {
		return "", "", fmt.Errorf("the %s provider cannot issue certificates; set APHEX_CLUSTER to %s", c.state.Provider, ProviderLocal)
	}
	return c.state.path("pki", machineCertificate+".crt"), c.state.path("pki", machineCertificate+".key"), nil
}

// Namespace is the tenant namespace, which Argo's controller watches but does
// not live in.
func (c *Cluster) Namespace() string { return c.state.Namespace }

// Logs is the folder with the logs of the components; with the local provider
// also those of all pods, below "pods".
func (c *Cluster) Logs() string { return c.state.logs() }

// Tools are the command line tools that fit the cluster.
func (c *Cluster) Tools() Tools { return c.state.Tools }

// LoadImage makes the images in a tar file, an archive as docker or OCI tools
// write them, available to pods under the names in the archive. Pods must not
// have the pull policy Always.
func (c *Cluster) LoadImage(ctx context.Context, tarFile string) error {
	if err := c.provider.load(ctx, tarFile); err != nil {
		return fmt.Errorf("load image archive %s: %w", tarFile, err)
	}
	return nil
}

// Down takes the cluster down: no process, mount, network or control group of
// it is left, only its logs. It can be called again after an error.
func (c *Cluster) Down(ctx context.Context) error {
	unlock, err := lockDir(c.state.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, downTimeout, fmt.Errorf("taking the cluster down took longer than %s", downTimeout))
	defer cancel()
	if err := errors.Join(c.state.stopServer(ctx), c.provider.down(ctx)); err != nil {
		return fmt.Errorf("take down the %s cluster in %s: %w", c.state.Provider, c.state.Dir, err)
	}
	c.logf("cluster %s: down", c.state.ID)
	return nil
}

func (c *Cluster) logf(format string, args ...any) { logf(c.log, format, args...) }

func logf(log io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(log, format+"\n", args...) }

// lockDir keeps two processes from changing one state directory at a time.
func lockDir(dir string) (func(), error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lock := flock.New(filepath.Join(dir, "lock"))
	held, err := lock.TryLock()
	if err != nil {
		return nil, err
	}
	if !held {
		return nil, fmt.Errorf("state directory %s is in use: another process is starting or stopping its cluster; wait for it or use another directory", dir)
	}
	return func() { _ = lock.Unlock() }, nil
}

// lockMachine takes the lock on what local clusters share: the registry and
// the choice of networks. Without root there are no local clusters.
func lockMachine(ctx context.Context) (func(), error) {
	if os.Geteuid() != 0 {
		return func() {}, nil
	}
	if err := os.MkdirAll(registryDir, 0o755); err != nil {
		return nil, err
	}
	lock := flock.New(filepath.Join(registryDir, "lock"))
	if _, err := lock.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return nil, fmt.Errorf("lock %s: %w", registryDir, err)
	}
	return func() { _ = lock.Unlock() }, nil
}

// removeLeftovers takes down the cluster that the state directory still
// describes and every local cluster whose process was killed.
func removeLeftovers(ctx context.Context, c Config) error {
	ctx, cancel := context.WithTimeout(ctx, downTimeout)
	defer cancel()
	unlock, err := lockMachine(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	all, err := registered()
	if err != nil {
		return err
	}
	s, err := readState((&state{Dir: c.Dir}).path(stateFile))
	if err == nil {
		all = append(all, s)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, s := range all {
		mine := s.Dir == c.Dir
		if !mine && !s.orphaned() {
			continue
		}
		if !s.orphaned() && !s.Keep && s.Owner.PID != os.Getpid() {
			return fmt.Errorf("the cluster in %s belongs to process %s, which is running; stop it or use another directory", s.Dir, describe([]process{s.Owner}))
		}
		logf(c.Log, "cluster %s: removing leftovers of an earlier run (%s)", s.ID, s.Dir)
		if err := errors.Join(s.stopServer(ctx), newProvider(Config{Dir: s.Dir, Log: c.Log}, s).down(ctx)); err != nil {
			return err
		}
	}
	return nil
}
