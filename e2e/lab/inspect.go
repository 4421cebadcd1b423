package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
)

var templates = schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "workflowtemplates"}

// TemplateSpec returns fields of the spec of the pipeline's WorkflowTemplate in
// the cluster as YAML, indented by two blanks.
func (l *Lab) TemplateSpec(ctx context.Context, p *Pipeline, fields ...string) (string, error) {
	obj, err := l.Dynamic.Resource(templates).Namespace(p.Installation.Namespace).Get(ctx, p.Installation.Pipeline, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("read the template: %w", err)
	}
	spec, found, err := unstructured.NestedMap(obj.Object, "spec")
	if err != nil || !found {
		return "", fmt.Errorf("the template has no spec: %w", err)
	}
	for name := range spec {
		if !slices.Contains(fields, name) {
			delete(spec, name)
		}
	}
	text, err := yaml.Marshal(spec)
	if err != nil {
		return "", err
	}
	return "  " + strings.ReplaceAll(strings.TrimSuffix(string(text), "\n"), "\n", "\n  ") + "\n", nil
}

// Latest is the youngest run of the pipeline.
func (p *Pipeline) Latest(ctx context.Context) (*Run, error) {
	list, err := p.lab.Dynamic.Resource(workflows).Namespace(p.Installation.Namespace).
		List(ctx, metav1.ListOptions{LabelSelector: pipeline.LabelPipeline + "=" + p.Installation.Pipeline})
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	if len(list.Items) == 0 {
		return nil, fmt.Errorf("pipeline %s has no runs", p.Installation.Pipeline)
	}
	latest := slices.MaxFunc(list.Items, func(a, b unstructured.Unstructured) int {
		at, bt := a.GetCreationTimestamp(), b.GetCreationTimestamp()
		return at.Compare(bt.Time)
	})
	return &Run{lab: p.lab, Namespace: latest.GetNamespace(), Name: latest.GetName()}, nil
}

// CheckedOut copies the files that git tracks below dir into target, without
// what a developer built there.
func CheckedOut(ctx context.Context, dir, target string) error {
	list := exec.CommandContext(ctx, "git", "ls-files", "-z")
	list.Dir = dir
	names, err := list.Output()
	if err != nil {
		return fmt.Errorf("list the tracked files of %s: %w", dir, err)
	}
	source, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer source.Close() //nolint:errcheck // read only
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		data, err := source.ReadFile(name)
		if err != nil {
			return err
		}
		if err := writeFile(target, name, data); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(dir, name string, data []byte) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // every write reports its own error
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		if err := root.MkdirAll(name[:i], 0o755); err != nil {
			return err
		}
	}
	return root.WriteFile(name, data, 0o644)
}

// AWSCLI runs the AWS command line of the worker image in a pod of its own,
// against the emulated account, and returns its output.
func (l *Lab) AWSCLI(ctx context.Context, account, region string, args ...string) (string, error) {
	name := fmt.Sprintf("aws-%d", l.pods.Add(1))
	command := slices.Concat([]string{
		"run", name, "-n", "default", "--image", l.Images.Worker.Tag, "--image-pull-policy", "IfNotPresent", "--restart", "Never",
		"--env", "AWS_ACCESS_KEY_ID=" + account, "--env", "AWS_SECRET_ACCESS_KEY=test", "--env", "AWS_REGION=" + region,
		"--env", "AWS_ENDPOINT_URL=" + l.AWS.Endpoint(), "--command", "--", "aws",
	}, args)
	if _, err := l.Kubectl(ctx, nil, command...); err != nil {
		return "", err
	}
	if _, err := l.Kubectl(ctx, nil, "wait", "-n", "default", "pod/"+name, "--for", "jsonpath={.status.phase}=Succeeded", "--timeout", "60s"); err != nil {
		log, logErr := l.Kubectl(ctx, nil, "logs", "-n", "default", name)
		return "", errors.Join(fmt.Errorf("aws %q: %w: %s", args, err, log), logErr)
	}
	out, err := l.Kubectl(ctx, nil, "logs", "-n", "default", name)
	if err != nil {
		return "", err
	}
	_, err = l.Kubectl(ctx, nil, "delete", "pod", "-n", "default", name, "--now", "--wait=false")
	return out, err
}

// Record reads the run's record from the pipeline's bucket.
func (p *Pipeline) Record(ctx context.Context, uid string) (record.Run, error) {
	conf := p.lab.AWS.Config(aws.AccountTools, p.Installation.Region)
	return record.New(store.NewS3(conf, p.Installation.Bucket, p.Installation.BucketPrefix)).Run(ctx, uid)
}
