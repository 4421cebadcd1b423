package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/e2e/cluster"
	"github.com/aphex-pipeline/aphex/e2e/images"
	"github.com/aphex-pipeline/aphex/e2e/npmproxy"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

// GitUser and GitPassword are the credentials of the lab's git server.
const (
	GitUser     = "aphex"
	GitPassword = "git-password-of-the-lab" // guards nothing but the lab
)

// Config says where a lab keeps its things.
type Config struct {
	// Root is the root of the checkout.
	Root string
	// Dir is the lab's own directory: cluster state, logs.
	Dir string
	// Log receives a line about each step.
	Log io.Writer
	// KeepCluster leaves the cluster running when the process ends.
	KeepCluster bool
}

// Lab is everything a pipeline needs, up and running.
type Lab struct {
	cfg     Config
	Cluster *cluster.Cluster
	AWS     *aws.Emulator
	Git     *gitserver.Server
	Images  images.Images
	Dynamic dynamic.Interface
	npm     *npmproxy.Proxy
	server  func() (*Server, error)
	pods    atomic.Int32
	// installers receives what package managers and builds print.
	installers *os.File
}

// Start brings a lab up. What takes long is named in the log, with the reason.
// If it fails, nothing stays behind.
func Start(ctx context.Context, cfg Config) (*Lab, error) {
	l := &Lab{cfg: cfg}
	l.server = sync.OnceValues(func() (*Server, error) { return l.startServer(context.WithoutCancel(ctx)) })
	if err := l.start(ctx); err != nil {
		return nil, errors.Join(err, l.Stop(context.WithoutCancel(ctx)))
	}
	return l, nil
}

// stopTimeout bounds taking a lab down.
const stopTimeout = 2 * time.Minute

// Use brings a lab with the plugin up, calls do and takes the lab down again,
// also when ctx has ended meanwhile.
func Use(ctx context.Context, cfg Config, do func(*Lab) error) (err error) {
	l, err := Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err = errors.Join(err, l.Stop(ctx))
	}()
	if err := l.InstallPlugin(ctx); err != nil {
		return err
	}
	return do(l)
}

// UseTemporary is Use for a command that is run at the root of the checkout: in
// a temporary directory, dir, named after it. After a failure the directory
// stays, with the logs.
func UseTemporary(ctx context.Context, name string, out io.Writer, do func(l *Lab, root, dir string) error) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "aphex-"+name+"-")
	if err != nil {
		return err
	}
	err = Use(ctx, Config{Root: root, Dir: filepath.Join(dir, "lab"), Log: out}, func(l *Lab) error { return do(l, root, dir) })
	if err != nil {
		_, _ = fmt.Fprintln(out, "logs are in", dir)
		return err
	}
	return os.RemoveAll(dir)
}

func (l *Lab) start(ctx context.Context) error {
	if err := os.MkdirAll(l.cfg.Dir, 0o755); err != nil {
		return fmt.Errorf("make the lab's directory: %w", err)
	}
	var err error
	if l.installers, err = os.Create(filepath.Join(l.cfg.Dir, "installers.log")); err != nil {
		return fmt.Errorf("make the log of the installers: %w", err)
	}
	// The cluster comes first: pods reach the other parts under its address.
	err = l.timed("cluster with Argo (builds Kubernetes from source the first time: about 15 minutes on 2 cores)", func() error {
		config := cluster.ConfigFromEnv(filepath.Join(l.cfg.Dir, "cluster"), l.cfg.Log)
		config.Source, config.Keep = l.cfg.Root, l.cfg.KeepCluster
		var err error
		l.Cluster, err = cluster.Up(ctx, config)
		return err
	})
	if err != nil {
		return err
	}
	if err := l.connect(); err != nil {
		return err
	}
	cache := cluster.CacheDir("")
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return l.timed("images of plugin and worker (installs a Debian tree and the toolchain the first time)", func() error {
			return l.loadImages(groupCtx, filepath.Join(cache, "images"))
		})
	})
	group.Go(func() error {
		return l.timed("emulated AWS with two bootstrapped accounts", func() error { return l.startAWS(groupCtx) })
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if l.npm, err = npmproxy.Start(ctx, "0.0.0.0", filepath.Join(cache, "npm-proxy")); err != nil {
		return err
	}
	l.Git, err = gitserver.Start(ctx, gitserver.Config{
		Address: "0.0.0.0:0", Host: l.Cluster.HostAddress(), Username: GitUser, Password: GitPassword, Filter: true,
	})
	return err
}

func (l *Lab) connect() error {
	config, err := clientcmd.BuildConfigFromFlags("", l.Cluster.Kubeconfig())
	if err != nil {
		return fmt.Errorf("read the cluster's kubeconfig: %w", err)
	}
	config.QPS, config.Burst = 50, 100
	l.Dynamic, err = dynamic.NewForConfig(config)
	return err
}

func (l *Lab) loadImages(ctx context.Context, cache string) error {
	var err error
	l.Images, err = images.Build(ctx, images.Config{Root: l.cfg.Root, CacheDir: cache, Log: l.installers})
	if err != nil {
		return err
	}
	for _, image := range []images.Image{l.Images.Plugin, l.Images.Worker} {
		if err := l.Cluster.LoadImage(ctx, image.Tar); err != nil {
			return err
		}
	}
	return nil
}

// LoadBuilder brings the worker that can build container images into the
// cluster and returns its name.
func (l *Lab) LoadBuilder(ctx context.Context) (string, error) {
	builder, err := images.BuildBuilder(ctx, images.Config{Root: l.cfg.Root, CacheDir: filepath.Join(cluster.CacheDir(""), "images"), Log: l.installers})
	if err != nil {
		return "", err
	}
	return builder.Tag, l.Cluster.LoadImage(ctx, builder.Tar)
}

func (l *Lab) startAWS(ctx context.Context) error {
	var err error
	l.AWS, err = aws.Start(ctx, aws.Config{Address: l.Cluster.HostAddress(), Upstream: os.Getenv("APHEX_AWS_ENDPOINT"), Log: l.installers, LogDir: filepath.Join(l.cfg.Dir, "aws")})
	if err != nil {
		return err
	}
	for _, target := range Targets() {
		if err := l.AWS.Bootstrap(ctx, target.Account, target.Region, target.Trust); err != nil {
			return err
		}
	}
	return nil
}

// Target is an account and region that the lab bootstraps.
type Target struct {
	Account, Region string
	Trust           []string
}

// Targets are the accounts and regions of the sample application: the second
// trusts the first.
func Targets() []Target {
	return []Target{
		{Account: aws.AccountTools, Region: "eu-west-1"},
		{Account: aws.AccountTarget, Region: "eu-central-1", Trust: []string{aws.AccountTools}},
	}
}

func (l *Lab) timed(name string, do func() error) error {
	_, _ = fmt.Fprintf(l.cfg.Log, "%s …\n", name)
	began := time.Now()
	err := do()
	if err != nil {
		return fmt.Errorf("%s: %w (details in %s)", name, err, l.installers.Name())
	}
	_, _ = fmt.Fprintf(l.cfg.Log, "%s: %.1f s\n", name, time.Since(began).Seconds())
	return nil
}

// Stop takes everything down. It can be called on a half-started lab.
func (l *Lab) Stop(ctx context.Context) error {
	var errs []error
	if l.Git != nil {
		errs = append(errs, l.Git.Close())
	}
	if l.npm != nil {
		errs = append(errs, l.npm.Close())
	}
	if l.AWS != nil {
		errs = append(errs, l.AWS.Stop())
	}
	if l.Cluster != nil && !l.cfg.KeepCluster {
		errs = append(errs, l.Cluster.Down(ctx))
	}
	if l.installers != nil {
		errs = append(errs, l.installers.Close())
	}
	return errors.Join(errs...)
}

// NpmRegistry is the URL of the npm registry for pods.
func (l *Lab) NpmRegistry() string {
	return fmt.Sprintf("http://%s/", net.JoinHostPort(l.Cluster.HostAddress(), strconv.Itoa(l.npm.Port())))
}

// Kubectl runs kubectl against the cluster and returns its output.
func (l *Lab) Kubectl(ctx context.Context, stdin []byte, args ...string) (string, error) {
	return l.tool(ctx, stdin, l.Cluster.Tools().Kubectl, args...)
}

// Argo runs the argo command line against the cluster and returns its output.
func (l *Lab) Argo(ctx context.Context, args ...string) (string, error) {
	return l.tool(ctx, nil, l.Cluster.Tools().Argo, args...)
}

func (l *Lab) tool(ctx context.Context, stdin []byte, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+l.Cluster.Kubeconfig())
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %q: %w: %s%s", filepath.Base(program), args, err, stderr.String(), stdout.String())
	}
	return stdout.String(), nil
}
