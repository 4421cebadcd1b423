package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The names of the providers, as used in Config.Provider and APHEX_CLUSTER.
const (
	ProviderLocal    = "local"
	ProviderKind     = "kind"
	ProviderExisting = "existing"
)

// DefaultNamespace is the tenant namespace unless Config names another.
const DefaultNamespace = "shop"

// ControllerNamespace is the namespace of Argo's controller.
const ControllerNamespace = "argo"

// dockerProbe bounds the question whether a Docker engine answers.
const dockerProbe = 5 * time.Second

// Config says what cluster to bring up. Only Dir is required.
type Config struct {
	// Provider is one of the Provider constants. Empty chooses: existing if
	// KubeconfigFile is set, kind if the command is there and a Docker engine
	// answers, else local.
	Provider string
	// Dir is the state directory: kubeconfig, logs, data. Required. One
	// cluster at a time; what a killed process left in it is removed first.
	Dir string
	// CacheDir holds the built binaries. Empty: "tools" below APHEX_CACHE or
	// below the user's cache directory of aphex.
	CacheDir string
	// Source is the root of the checkout, whose hack directory holds the
	// build modules. Empty: found from the working directory upwards.
	Source string
	// Log receives a line about each step. Nil discards them.
	Log io.Writer
	// Namespace is the tenant namespace. Empty means DefaultNamespace.
	Namespace string
	// Keep lets the cluster outlive the process that made it: a later Up in
	// another directory does not take it for a leftover.
	Keep bool
	// KubeconfigFile is the kubeconfig of the provider existing.
	KubeconfigFile string
	// HostAddress is the address under which pods of an existing cluster
	// reach this machine.
	HostAddress string
	// LoadCommand makes an image known to an existing cluster. It is run by
	// sh with the path of the image's tar file as $1.
	LoadCommand string
}

// ConfigFromEnv returns the configuration that the environment asks for:
// APHEX_CLUSTER (provider), APHEX_KUBECONFIG, APHEX_HOST_ADDRESS,
// APHEX_LOAD_IMAGE (command of the provider existing) and APHEX_CACHE.
func ConfigFromEnv(dir string, log io.Writer) Config {
	return Config{
		Provider:       os.Getenv("APHEX_CLUSTER"),
		Dir:            dir,
		CacheDir:       CacheDir("tools"),
		Log:            log,
		KubeconfigFile: os.Getenv("APHEX_KUBECONFIG"),
		HostAddress:    os.Getenv("APHEX_HOST_ADDRESS"),
		LoadCommand:    os.Getenv("APHEX_LOAD_IMAGE"),
	}
}

// CacheDir returns the directory name of aphex's cache of built things:
// below APHEX_CACHE, else below .cache/aphex in the home directory.
func CacheDir(name string) string {
	root := os.Getenv("APHEX_CACHE")
	if root == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = os.TempDir()
		}
		root = filepath.Join(home, ".cache", "aphex")
	}
	return filepath.Join(root, name)
}

// withDefaults returns c with every empty setting filled in and checked.
func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" {
		return c, errors.New("start a cluster: no state directory was given; set Config.Dir")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return c, err
	}
	c.Dir = dir
	if c.CacheDir == "" {
		c.CacheDir = CacheDir("tools")
	}
	if c.Log == nil {
		c.Log = io.Discard
	}
	if c.Namespace == "" {
		c.Namespace = DefaultNamespace
	}
	if c.Namespace == ControllerNamespace {
		return c, fmt.Errorf("start a cluster: tenant namespace %q is the controller's own, where no plugin may be installed; choose another", c.Namespace)
	}
	return c, nil
}

// machine answers what provider choice has to know.
type machine interface {
	// kindWorks reports whether kind is installed and a Docker engine
	// answers.
	kindWorks(ctx context.Context) bool
}

// choose returns the provider to use.
func choose(ctx context.Context, c Config, m machine) (string, error) {
	switch c.Provider {
	case ProviderLocal, ProviderKind, ProviderExisting:
		return c.Provider, nil
	case "":
	default:
		return "", fmt.Errorf("choose a cluster provider: %q is none; set APHEX_CLUSTER to %s, or leave it empty", c.Provider,
			strings.Join([]string{ProviderLocal, ProviderKind, ProviderExisting}, ", "))
	}
	if c.KubeconfigFile != "" {
		return ProviderExisting, nil
	}
	if m.kindWorks(ctx) {
		return ProviderKind, nil
	}
	return ProviderLocal, nil
}

// thisMachine is the machine that the process runs on.
type thisMachine struct{}

func (thisMachine) kindWorks(ctx context.Context) bool {
	if _, err := exec.LookPath("kind"); err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, dockerProbe)
	defer cancel()
	return exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}").Run() == nil
}
