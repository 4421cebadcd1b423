package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
	"github.com/aphex-pipeline/aphex/tasks/workflow"
)

// Pipeline is an installed pipeline with its repository.
type Pipeline struct {
	lab          *Lab
	Installation pipeline.Installation
	repo         string
}

// InstallPlugin applies the manifests: what the controller lacks and the
// policies to the cluster, the rest to the tenant's namespace. It is done once
// per cluster.
func (l *Lab) InstallPlugin(ctx context.Context) error {
	for _, part := range []string{"controller", "policies"} {
		if _, err := l.Kubectl(ctx, nil, "apply", "--server-side", "-k", filepath.Join(l.cfg.Root, "manifests", part)); err != nil {
			return err
		}
	}
	for _, part := range []string{"base", "container"} {
		if _, err := l.Kubectl(ctx, nil, "apply", "--server-side", "-n", l.Cluster.Namespace(), "-k", filepath.Join(l.cfg.Root, "manifests", part)); err != nil {
			return err
		}
	}
	if err := l.installReconciler(ctx); err != nil {
		return err
	}
	secret, err := yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/basic-auth",
		"metadata":   map[string]any{"name": pipeline.DefaultGitSecret, "namespace": l.Cluster.Namespace()},
		"stringData": map[string]any{"username": GitUser, "password": GitPassword},
	})
	if err != nil {
		return err
	}
	_, err = l.Kubectl(ctx, secret, "apply", "-f", "-")
	return err
}

// NewPipeline makes a bucket and the installation of a pipeline whose
// repository is name; the repository itself comes with the first push. Changes
// are made to the installation before anything else is.
func (l *Lab) NewPipeline(ctx context.Context, name string, changes ...func(*pipeline.Installation)) (*Pipeline, error) {
	inst := pipeline.Installation{
		Pipeline: name, Namespace: l.Cluster.Namespace(), RepoURL: l.Git.URL(name),
		Bucket: "aphex-" + name, Region: "eu-west-1", EndpointURL: l.AWS.Endpoint(),
		Images:             pipeline.Images{Plugin: l.Images.Plugin.Tag, Worker: l.Images.Worker.Tag},
		ArtifactRepository: pipeline.ArtifactRepository{ConfigMap: artifactRepositories},
		AWS:                pipeline.AWSIdentity{RoleARN: "arn:aws:iam::" + aws.AccountTools + ":role/aphex-" + name, ProjectToken: true},
		WorkerEnv: map[string]string{
			"npm_config_registry": l.NpmRegistry(), "npm_config_replace_registry_host": "always", "npm_config_update_notifier": "false",
		},
	}
	for _, change := range changes {
		change(&inst)
	}
	inst = inst.WithDefaults()
	if err := inst.Validate(); err != nil {
		return nil, err
	}
	if err := l.createBucket(ctx, inst.Bucket, inst.Region); err != nil {
		return nil, err
	}
	if err := l.artifactRepository(ctx, inst); err != nil {
		return nil, err
	}
	text, err := pipeline.MarshalInstallation(inst)
	if err != nil {
		return nil, err
	}
	config, err := yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": pipeline.InstallationName(name), "namespace": inst.Namespace},
		"data":     map[string]any{pipeline.InstallationKey: string(text)},
	})
	if err != nil {
		return nil, err
	}
	_, err = l.Kubectl(ctx, config, "apply", "-f", "-")
	return &Pipeline{lab: l, Installation: inst, repo: name}, err
}

func (l *Lab) createBucket(ctx context.Context, bucket, region string) error {
	client := s3.NewFromConfig(l.AWS.Config(aws.AccountTools, region), func(o *s3.Options) { o.UsePathStyle = true })
	_, err := client.CreateBucket(ctx, &s3.CreateBucketInput{
		Bucket:                    &bucket,
		CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(region)},
	})
	if _, exists := errors.AsType[*types.BucketAlreadyOwnedByYou](err); exists {
		return nil
	}
	return err
}

// Push commits a change to the pipeline's branch and returns the commit.
func (p *Pipeline) Push(ctx context.Context, change gitserver.Change) (string, error) {
	change.Branch = p.Installation.Branch
	return p.lab.Git.Commit(ctx, p.repo, change)
}

// Apply generates the WorkflowTemplate for a configuration and applies it, as
// whoever installs the pipeline does once.
func (p *Pipeline) Apply(ctx context.Context, config []byte) error {
	template, err := p.Template(config)
	if err != nil {
		return err
	}
	_, err = p.lab.Kubectl(ctx, template, "apply", "-f", "-")
	return err
}

// Template generates the WorkflowTemplate for a configuration.
func (p *Pipeline) Template(config []byte) ([]byte, error) {
	cfg, err := pipeline.Load(pipeline.DefaultFile, config)
	if err != nil {
		return nil, err
	}
	return workflow.Generate(cfg, p.Installation)
}

// Submit starts a run of a commit, as the Sensor or a person would: by the
// argo command line. More parameters are "name=value".
func (p *Pipeline) Submit(ctx context.Context, commit string, parameters ...string) (*Run, error) {
	args := []string{
		"submit", "-n", p.Installation.Namespace, "--from", "workflowtemplate/" + p.Installation.Pipeline, "-o", "name",
		"-p", pipeline.ArgumentCommit + "=" + commit,
	}
	for _, parameter := range parameters {
		args = append(args, "-p", parameter)
	}
	for {
		out, err := p.lab.Argo(ctx, args...)
		if err != nil {
			return nil, err
		}
		run := &Run{lab: p.lab, Namespace: p.Installation.Namespace, Name: strings.TrimSpace(out)}
		status, err := run.until(ctx, "the controller takes it up", takenUpPoll, func(s Status) bool { return s.Phase != "" })
		if err != nil {
			return nil, err
		}
		// The controller's cache may not have a template yet that was applied a
		// moment ago.
		if status.Phase != "Error" || !strings.Contains(status.Message, `"`+p.Installation.Pipeline+`" not found`) {
			return run, nil
		}
	}
}

// takenUpPoll is how often a new run is asked whether the controller has seen
// it.
const takenUpPoll = 20 * time.Millisecond

// SubmitManifest creates a Workflow from YAML.
func (l *Lab) SubmitManifest(ctx context.Context, manifest []byte) (*Run, error) {
	obj := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(manifest, &obj.Object); err != nil {
		return nil, fmt.Errorf("decode the workflow: %w", err)
	}
	obj.SetNamespace(l.Cluster.Namespace())
	created, err := l.Dynamic.Resource(workflows).Namespace(obj.GetNamespace()).Create(ctx, obj, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create the workflow: %w", err)
	}
	return &Run{lab: l, Namespace: created.GetNamespace(), Name: created.GetName()}, nil
}
