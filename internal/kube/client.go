package kube

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/aphex-pipeline/aphex/internal/version"
)

// requestTimeout ends a call to an API server that does not answer. Watches
// are not bound by it: they carry their own, see Watch.
const requestTimeout = 30 * time.Second

const argoGroup = "argoproj.io"

// The kinds this package has typed views for.
func workflows() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: argoGroup, Version: "v1alpha1", Resource: "workflows"}
}

func taskSets() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: argoGroup, Version: "v1alpha1", Resource: "workflowtasksets"}
}

func workflowTemplates() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: argoGroup, Version: "v1alpha1", Resource: "workflowtemplates"}
}

func configMaps() schema.GroupVersionResource {
	return schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
}

func pods() schema.GroupVersionResource {
	return schema.GroupVersionResource{Version: "v1", Resource: "pods"}
}

// Client talks to one API server. It is safe for concurrent use.
type Client struct {
	dyn dynamic.Interface
	// web and base are for what is no object.
	web  *http.Client
	base *url.URL
}

// InCluster returns a Client for the API server of the cluster the process
// runs in, as the pod's service account.
//
// Errors: rest.ErrNotInCluster outside a pod, or without a mounted token.
func InCluster() (*Client, error) {
	cfg, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("read the pod's Kubernetes identity: %w", err)
	}
	return FromConfig(cfg)
}

// FromKubeconfig returns a Client for the current context of the kubeconfig at
// path; an empty path means the usual rules (KUBECONFIG, then ~/.kube/config).
func FromKubeconfig(path string) (*Client, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	return FromConfig(cfg)
}

// ContextNamespace returns the namespace of the current context of the
// kubeconfig at path, which is found as by FromKubeconfig: "default" if it
// names none.
func ContextNamespace(path string) (string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	namespace, _, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{}).Namespace()
	if err != nil {
		return "", fmt.Errorf("read kubeconfig: %w", err)
	}
	return namespace, nil
}

// userAgent names the pod besides the program, by its host name: the audit log
// of a cluster tells by it what a run has changed.
func userAgent() string {
	agent := "aphex/" + version.Get().Version
	host, err := os.Hostname()
	if err != nil {
		return agent
	}
	return agent + " (" + host + ")"
}

// FromConfig returns a Client for cfg, which is copied. Client-side rate
// limits are lifted to 50 calls a second: the plugin makes few, but in bursts.
func FromConfig(cfg *rest.Config) (*Client, error) {
	own := rest.CopyConfig(cfg)
	own.UserAgent = userAgent()
	own.QPS, own.Burst = 50, 100
	web, err := rest.HTTPClientFor(own)
	if err != nil {
		return nil, fmt.Errorf("set up the Kubernetes client: %w", err)
	}
	dyn, err := dynamic.NewForConfigAndClient(own, web)
	if err != nil {
		return nil, fmt.Errorf("set up the Kubernetes client: %w", err)
	}
	base, _, err := rest.DefaultServerUrlFor(own)
	if err != nil {
		return nil, fmt.Errorf("read the address of the API server: %w", err)
	}
	return &Client{dyn: dyn, web: web, base: base}, nil
}
