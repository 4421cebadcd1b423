package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

const (
	templateRemedy = "Start runs from the WorkflowTemplate that `aphex generate` makes, and apply that again if it is old"
	clockRemedy    = "Synchronize the clock of the node that this pod runs on"
	// objectKey and objectText are what is written into the bucket.
	objectKey  = "checks/plugin.txt"
	objectText = "aphex plugin --check may write here\n"
)

// round is one round of checks and what the earlier ones found out.
type round struct {
	cfg    Config
	info   *worker.Info
	caller *awsauth.Identity
}

// Rights are what the plugin's service account needs in its namespace, as in
// manifests/base.
func Rights() []kube.Right {
	var rights []kube.Right
	for _, rule := range []struct{ group, resource, verbs string }{
		{"argoproj.io", "workflows", "get watch patch create"},
		{"argoproj.io", "workflowtasksets", "get watch"},
		{"argoproj.io", "workflowtasksets/status", "patch"},
		{"argoproj.io", "workflowtemplates", "get create patch"},
		{"", "configmaps", "get create update patch"},
	} {
		for verb := range strings.FieldsSeq(rule.verbs) {
			rights = append(rights, kube.Right{Group: rule.group, Resource: rule.resource, Verb: verb})
		}
	}
	return rights
}

func (r *round) settings(context.Context) (string, error) {
	var missing []string
	for _, name := range slices.Sorted(maps.Keys(r.cfg.Settings)) {
		if r.cfg.Settings[name] == "" {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return "", fault.Newf(fault.User, fault.InstallationMissing, "read the pod's settings", templateRemedy,
			"the container does not have %s", strings.Join(missing, ", "))
	}
	return "pipeline " + r.cfg.Settings["APHEX_PIPELINE"] + " in namespace " + r.cfg.Namespace, nil
}

func (r *round) token(context.Context) (string, error) {
	raw, err := os.ReadFile(r.cfg.TokenFile)
	if err == nil && strings.TrimSpace(string(raw)) == "" {
		err = fmt.Errorf("%s is empty", r.cfg.TokenFile)
	}
	if err != nil {
		return "", fault.Wrap(fault.User, fault.InstallationMissing, "read the agent's token",
			"Run the container in Argo's agent pod, as user 8737 or with group 0, and leave its mount of /var/run/argo alone", err)
	}
	return r.cfg.TokenFile + " can be read", nil
}

// workspace tries the plugin's own part of it. The worker's is the worker's.
func (r *round) workspace(context.Context) (string, error) {
	if r.cfg.PrivateDir == "" {
		return "", skipped("the pod has no private folder: it is no pipeline's")
	}
	file, err := os.CreateTemp(r.cfg.PrivateDir, "check-*")
	if err == nil {
		err = errors.Join(file.Close(), os.Remove(file.Name()))
	}
	if err != nil {
		return "", fault.Wrap(fault.User, fault.WorkspaceFailed, "write into the plugin's private folder",
			templateRemedy+"; leave fsGroup of the pod alone", err)
	}
	return r.cfg.PrivateDir + " can be written", nil
}

func (r *round) rights(ctx context.Context) (string, error) {
	if r.cfg.Cluster == nil {
		return "", r.noCluster()
	}
	var missing []string
	for _, right := range Rights() {
		allowed, err := r.cfg.Cluster.Allowed(ctx, r.cfg.Namespace, right)
		if err != nil {
			return "", fault.Wrap(fault.System, fault.KubernetesRejected, "ask the API server",
				"Check that the pod reaches the Kubernetes API server and that the token Secret of service account aphex-executor-plugin exists", err)
		}
		if !allowed {
			missing = append(missing, right.String())
		}
	}
	if len(missing) > 0 {
		return "", fault.Newf(fault.User, fault.KubernetesRejected, "ask for the plugin's rights",
			"Apply manifests/base to namespace "+r.cfg.Namespace, "service account aphex-executor-plugin may not %s in namespace %s", strings.Join(missing, ", "), r.cfg.Namespace)
	}
	return fmt.Sprintf("all %d rights are there", len(Rights())), nil
}

func (r *round) noCluster() error {
	return fault.Wrap(fault.User, fault.KubernetesRejected, "reach the Kubernetes API server",
		"Set sidecar.automountServiceAccountToken of the plugin's ConfigMap to true", r.cfg.ClusterErr)
}

func (r *round) clockCluster(ctx context.Context) (string, error) {
	if r.cfg.Cluster == nil {
		return "", skipped("the API server is not reached")
	}
	skew, err := r.cfg.Cluster.Skew(ctx)
	if err != nil {
		return "", fault.Wrap(fault.System, fault.KubernetesRejected, "compare the clocks",
			"Check that the pod reaches the Kubernetes API server", err)
	}
	return within(skew, "the API server")
}

// within judges a difference of clocks.
func within(skew time.Duration, whose string) (string, error) {
	if skew.Abs() > MaxSkew {
		return "", fault.Newf(fault.User, fault.ClockSkew, "compare the clocks", clockRemedy,
			"the clock of %s is %s ahead of this pod's: at most %s either way is allowed", whose, skew.Round(time.Second), MaxSkew)
	}
	return fmt.Sprintf("within %s of %s", max(skew.Abs().Round(time.Second), time.Second), whose), nil
}

func (r *round) worker(ctx context.Context) (string, error) {
	if r.cfg.Worker == nil {
		return "", skipped("the pod has no worker: it is no pipeline's")
	}
	info, err := r.cfg.Worker.Ping(ctx)
	if err != nil {
		f := *fault.From(err)
		if f.Remedy == "" {
			f.Remedy = "Look at the log and state of container worker"
		}
		return "", &f
	}
	r.info = &info
	return fmt.Sprintf("answers as user %d, workspace %s", info.UID, info.Root), nil
}

func (r *round) workerVersion(context.Context) (string, error) {
	switch {
	case r.info == nil:
		return "", skipped("the worker does not answer")
	case r.info.Version != r.cfg.Version:
		return "", fault.Newf(fault.User, fault.WorkerUnavailable, "compare the versions",
			"Set the plugin's image in the installation and in manifests/base to the same version, then apply both",
			"the worker is aphex %s, the plugin is aphex %s", r.info.Version, r.cfg.Version)
	}
	return "both are aphex " + r.cfg.Version, nil
}

func (r *round) identity(ctx context.Context) (string, error) {
	if r.cfg.Identity == nil {
		return "", skipped("the pod is no pipeline's")
	}
	caller, err := r.cfg.Identity(ctx)
	if err != nil {
		return "", err
	}
	r.caller = &caller
	return caller.ARN + " in account " + caller.Account, nil
}

func (r *round) clockAWS(context.Context) (string, error) {
	if r.caller == nil {
		return "", skipped("AWS was not reached")
	}
	return within(r.caller.Skew, "AWS")
}

func (r *round) bucket(ctx context.Context) (string, error) {
	switch {
	case r.cfg.Bucket == nil:
		return "", skipped("no bucket is configured")
	case r.caller == nil:
		return "", skipped("AWS was not reached")
	}
	put, err := r.cfg.Bucket.Put(ctx, objectKey, strings.NewReader(objectText), store.PutOptions{ContentType: "text/plain; charset=utf-8"})
	if err != nil {
		return "", err
	}
	if _, err := r.cfg.Bucket.List(ctx, objectKey); err != nil {
		return "", err
	}
	body, _, err := r.cfg.Bucket.Get(ctx, objectKey)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(io.Discard, body) // compares the digest
	if err := errors.Join(err, body.Close()); err != nil {
		return "", err
	}
	return put.URL + " was written, listed and read", nil
}
