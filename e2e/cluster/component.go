package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// readyPoll is how often a component that starts is asked whether it is
// ready.
const readyPoll = 100 * time.Millisecond

// component is a running part of the cluster, started by this process.
type component struct {
	name string
	// argv is the program and its arguments.
	argv []string
	log  string
	self process
	done chan struct{}
	err  error // how it ended; valid once done is closed
}

// failed returns an error if the component has ended, with the end of its
// log.
func (c *component) failed() error {
	select {
	case <-c.done:
		return fmt.Errorf("%s ended: %w; the end of %s:\n%s", c.name, orEnded(c.err), c.log, tail(c.log, 3000))
	default:
		return nil
	}
}

func orEnded(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// tail returns at most the last n bytes of a file.
func tail(path string, n int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-n):])
}

// start starts a component with an empty log. program is the path of the
// binary; its last element is the component's name.
func (l *local) start(program string, args ...string) error {
	if err := os.Remove(l.logFile(program)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return l.launch(append([]string{program}, args...))
}

func (l *local) logFile(program string) string {
	return l.state.path("log", filepath.Base(program)+".log")
}

// launch starts a component in the cluster's network namespace, apart from
// this process's terminal and environment, and notes it in the state.
func (l *local) launch(program []string) error {
	name, logFile := filepath.Base(program[0]), l.logFile(program[0])
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	argv := append(l.inNetns(), program...)
	cmd := exec.Command(argv[0], argv[1:]...) // it outlives the call that starts it; Down ends it
	cmd.Dir = l.state.Dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + l.state.Dir}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	c := &component{name: name, argv: program, log: logFile, done: make(chan struct{})}
	c.self, err = identify(name, cmd.Process.Pid)
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.started = append(l.started, c)
	if err != nil {
		return errors.Join(c.failed(), err)
	}
	l.state.Local.Processes = append(l.state.Local.Processes, c.self)
	return l.state.save()
}

// failed returns an error if a component that this process started has ended.
func (l *local) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.started {
		if err := c.failed(); err != nil {
			return err
		}
	}
	return nil
}

// await polls until ready, and gives up at once if a component has ended.
func (l *local) await(ctx context.Context, within time.Duration, what string, ready func(context.Context) (bool, error)) error {
	var last error
	err := poll(ctx, within, readyPoll, what, func(ctx context.Context) (bool, error) {
		if err := l.failed(); err != nil {
			return false, err
		}
		ok, err := ready(ctx)
		if err != nil {
			last = err
		}
		return ok, nil
	})
	if err != nil && last != nil {
		return fmt.Errorf("%w; the last answer: %w", err, last)
	}
	return err
}

// startStorage starts what needs no API server.
func (l *local) startStorage(ctx context.Context) error {
	containerd, err := exec.LookPath("containerd")
	if err != nil {
		return err
	}
	if err := l.start(containerd, "--config", l.state.path("containerd.toml")); err != nil {
		return err
	}
	const client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	if err := l.start(filepath.Join(l.etcd, "etcd"),
		"--name=etcd", "--data-dir="+l.state.path("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=etcd="+peer,
	); err != nil {
		return err
	}
	return l.await(ctx, time.Minute, "the start of containerd", func(ctx context.Context) (bool, error) {
		_, err := l.ctr(ctx, "version")
		return err == nil, err
	})
}

// startKubernetesAndLoad does both at once: the one waits for processors, the
// other for the disk.
func (l *local) startKubernetesAndLoad(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return l.startKubernetes(ctx) })
	group.Go(func() error { return l.loadOwnImages(ctx) })
	return group.Wait()
}

// startKubernetes starts the control plane and the node's agents.
func (l *local) startKubernetes(ctx context.Context) error {
	pki := func(name string) string { return l.state.path("pki", name) }
	node := l.state.Local.nodeAddress()
	audit, err := l.auditFlags()
	if err != nil {
		return err
	}
	if err := l.start(filepath.Join(l.kube, "kube-apiserver"), append(audit,
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address="+node, "--advertise-address="+node, "--secure-port="+apiPort, "--cert-dir="+pki("apiserver"),
		"--tls-cert-file="+pki("apiserver.crt"), "--tls-private-key-file="+pki("apiserver.key"), "--client-ca-file="+pki("ca.crt"),
		"--kubelet-client-certificate="+pki("apiserver-kubelet.crt"), "--kubelet-client-key="+pki("apiserver-kubelet.key"),
		"--kubelet-certificate-authority="+pki("ca.crt"), "--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+pki("sa.pub"), "--service-account-signing-key-file="+pki("sa.key"),
		"--service-cluster-ip-range="+serviceNetwork, "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
	)...); err != nil {
		return err
	}
	if err := l.awaitAPIServer(ctx); err != nil {
		return err
	}
	return l.startAgents(pki)
}

func (l *local) awaitAPIServer(ctx context.Context) error {
	client, err := l.httpClient()
	if err != nil {
		return err
	}
	return l.await(ctx, 2*time.Minute, "the start of the API server", func(ctx context.Context) (bool, error) {
		return get(ctx, client, l.apiServer()+"/readyz")
	})
}

// startAgents starts everything that needs the API server.
func (l *local) startAgents(pki func(string) string) error {
	kubeconfig := func(name string) string { return "--kubeconfig=" + l.componentKubeconfig(name) }
	for _, argv := range [][]string{
		{
			"kube-controller-manager", kubeconfig("kube-controller-manager"), "--bind-address=127.0.0.1", "--leader-elect=false",
			"--service-account-private-key-file=" + pki("sa.key"), "--root-ca-file=" + pki("ca.crt"), "--use-service-account-credentials",
		},
		{"kube-scheduler", kubeconfig("kube-scheduler"), "--bind-address=127.0.0.1", "--leader-elect=false"},
		{
			"kube-proxy", kubeconfig("kube-proxy"), "--proxy-mode=iptables", "--masquerade-all", "--hostname-override=" + nodeName,
			"--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
			"--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249",
		},
		{
			"kubelet", kubeconfig("kubelet"), "--config=" + l.state.path("kubelet.yaml"), "--hostname-override=" + nodeName,
			"--node-ip=" + l.state.Local.nodeAddress(), "--root-dir=" + l.state.path("kubelet"), "--cert-dir=" + pki("kubelet"),
		},
	} {
		if err := l.start(filepath.Join(l.kube, argv[0]), argv[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// httpClient returns a client with the administrator's certificate.
func (l *local) httpClient() (*http.Client, error) {
	ca, err := os.ReadFile(l.state.path("pki", "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	admin, err := tls.LoadX509KeyPair(l.state.path("pki", "admin.crt"), l.state.path("pki", "admin.key"))
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{admin}, MinVersion: tls.VersionTLS12}},
	}, nil
}

// get reports whether url answers 200, and if not, what it answers.
func get(ctx context.Context, client *http.Client, url string) (bool, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return false, err
	}
	response, err := client.Do(request)
	if err != nil {
		return false, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	if err != nil {
		return false, err
	}
	if response.StatusCode != http.StatusOK {
		return false, fmt.Errorf("%s: %s: %s", url, response.Status, strings.TrimSpace(string(body)))
	}
	return true, nil
}
