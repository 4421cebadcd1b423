package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// reconciler is the name of the CronJob of manifests/reconcile.
const reconciler = "aphex-reconcile"

var (
	cronJobs = schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "cronjobs"}
	jobs     = schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "jobs"}
)

// installReconciler applies manifests/reconcile without its schedule: tests
// say when it runs.
func (l *Lab) installReconciler(ctx context.Context) error {
	if _, err := l.Kubectl(ctx, nil, "apply", "--server-side", "-n", l.Cluster.Namespace(), "-k", filepath.Join(l.cfg.Root, "manifests", "reconcile")); err != nil {
		return err
	}
	_, err := l.Kubectl(ctx, nil, "patch", "-n", l.Cluster.Namespace(), "cronjob/"+reconciler, "-p", `{"spec":{"suspend":true}}`)
	return err
}

// Reconcile runs the CronJob's job once, with further arguments, and returns
// what it printed. It fails if the job does.
func (l *Lab) Reconcile(ctx context.Context, args ...string) (string, error) {
	namespace := l.Cluster.Namespace()
	cron, err := l.Dynamic.Resource(cronJobs).Namespace(namespace).Get(ctx, reconciler, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("read the reconciler: %w", err)
	}
	spec, _, err := unstructured.NestedMap(cron.Object, "spec", "jobTemplate", "spec")
	if err != nil {
		return "", err
	}
	containers, _, err := unstructured.NestedSlice(spec, "template", "spec", "containers")
	if err != nil || len(containers) != 1 {
		return "", fmt.Errorf("the reconciler has %d containers: %w", len(containers), err)
	}
	container, ok := containers[0].(map[string]any)
	if !ok {
		return "", errors.New("the reconciler's container is no object")
	}
	command, _, err := unstructured.NestedStringSlice(container, "command")
	if err != nil {
		return "", err
	}
	if err := unstructured.SetNestedStringSlice(container, slices.Concat(command, args), "command"); err != nil {
		return "", err
	}
	if err := unstructured.SetNestedSlice(spec, containers, "template", "spec", "containers"); err != nil {
		return "", err
	}
	name := fmt.Sprintf("%s-%d", reconciler, l.pods.Add(1))
	job := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "batch/v1", "kind": "Job", "metadata": map[string]any{"name": name}, "spec": spec,
	}}
	if _, err := l.Dynamic.Resource(jobs).Namespace(namespace).Create(ctx, job, metav1.CreateOptions{}); err != nil {
		return "", fmt.Errorf("start the reconciler: %w", err)
	}
	failed, err := l.jobFailed(ctx, name)
	if err != nil {
		return "", err
	}
	out, err := l.Kubectl(ctx, nil, "logs", "-n", namespace, "job/"+name)
	if failed {
		err = errors.Join(err, fmt.Errorf("the reconciler failed: %s", out))
	}
	return out, err
}

// jobFailed polls until the job has ended.
func (l *Lab) jobFailed(ctx context.Context, name string) (bool, error) {
	for {
		job, err := l.Dynamic.Resource(jobs).Namespace(l.Cluster.Namespace()).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, fmt.Errorf("read job %s: %w", name, err)
		}
		for _, result := range []string{"succeeded", "failed"} {
			if n, _, err := unstructured.NestedInt64(job.Object, "status", result); err != nil || n > 0 {
				return result == "failed", err
			}
		}
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("wait for job %s: %w", name, context.Cause(ctx))
		case <-time.After(pollEvery):
		}
	}
}
