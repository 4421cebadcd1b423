package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
)

// lookupFlags are the flags by which commands find a run and its bucket.
type lookupFlags struct {
	namespace, kubeconfig, pipeline, dir string
}

// register adds the flags. of is what the namespace is that of.
func (f *lookupFlags) register(flags *pflag.FlagSet, of, pipelineUsage string) {
	f.registerFrom(flags, of, pipelineUsage, "dir")
}

// registerFrom adds the flags, with another name for the one that replaces the
// bucket.
func (f *lookupFlags) registerFrom(flags *pflag.FlagSet, of, pipelineUsage, dir string) {
	flags.StringVarP(&f.namespace, "namespace", "n", "", "namespace of the "+of+" (default: that of the kubeconfig's context)")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "path of the kubeconfig (default: KUBECONFIG, then ~/.kube/config)")
	flags.StringVar(&f.pipeline, "pipeline", "", pipelineUsage)
	flags.StringVar(&f.dir, dir, "", "folder of `aphex task` instead of a cluster and a bucket")
}

// runAndAtMostOne checks the arguments RUN [WHAT].
func runAndAtMostOne(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < 1 || len(args) > 2 {
			return usageError{fmt.Errorf("expected a run and at most one %s, got %d arguments", what, len(args))}
		}
		return nil
	}
}

// cluster is where the installation is, in the namespace that is set then.
func (f *lookupFlags) cluster() (*kube.Client, error) {
	client, err := kube.FromKubeconfig(f.kubeconfig)
	if err != nil {
		return nil, fault.Wrap(fault.User, fault.KubernetesRejected, "find the cluster", "Set KUBECONFIG or --kubeconfig", err)
	}
	if f.namespace == "" {
		f.namespace, err = kube.ContextNamespace(f.kubeconfig)
	}
	return client, err
}

// bucketOf opens the bucket of a run and returns the run's UID.
func (f *lookupFlags) bucketOf(ctx context.Context, client *kube.Client, name string) (*store.S3, string, error) {
	uid, pipelineName, err := f.find(ctx, client, name)
	if err != nil {
		return nil, "", err
	}
	bucket, err := f.bucket(ctx, client, pipelineName)
	if err == nil && uid == name { // no Workflow has said so
		uid, err = recordedAs(ctx, record.New(bucket), name)
	}
	return bucket, uid, err
}

// recordedAs returns the UID of the run that name is the name or UID of, among
// those that are recorded. What is not is taken for a UID: it may have logs.
func recordedAs(ctx context.Context, records *record.Recorder, name string) (string, error) {
	uids, err := records.Find(ctx, name)
	switch {
	case err != nil:
		return "", err
	case len(uids) > 1:
		return "", fault.Newf(fault.User, fault.RunUnknown, "find run "+name,
			"Give the UID of the one that is meant: `aphex runs -o wide` has what else is known of them", "%d runs have had this name, the latest first: %s", len(uids), someOf(uids))
	case len(uids) == 1:
		return uids[0], nil
	}
	return name, nil
}

// runBucket is the bucket of a run.
type runBucket struct {
	objects

	uid string
}

// open opens the bucket of a run, in the cluster or of `aphex task`.
func (f *lookupFlags) open(ctx context.Context, name string) (runBucket, error) {
	if f.dir != "" {
		return runBucket{localBucket(f.dir, name), name}, nil
	}
	client, err := f.cluster()
	if err != nil {
		return runBucket{}, err
	}
	bucket, uid, err := f.bucketOf(ctx, client, name)
	return runBucket{bucket, uid}, err
}

// localBucket is what stands for the bucket of a run of `aphex task`.
func localBucket(dir, run string) *store.Dir { return store.NewDir(filepath.Join(dir, run, "bucket")) }

// localBuckets are those of all runs of `aphex task`.
func (f *lookupFlags) localBuckets() ([]objects, error) {
	folders, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fault.Wrap(fault.User, fault.RunUnknown, "list the runs in "+f.dir, "Give the folder that `aphex task --dir` was given", err)
	}
	var buckets []objects
	for _, folder := range folders {
		if folder.IsDir() {
			buckets = append(buckets, localBucket(f.dir, folder.Name()))
		}
	}
	return buckets, nil
}

// find returns the UID and the pipeline of a run; without a Workflow of that
// name and with --pipeline the name stands for the UID.
func (f *lookupFlags) find(ctx context.Context, client *kube.Client, name string) (uid, pipelineName string, err error) {
	op := fmt.Sprintf("find run %s in namespace %s", name, f.namespace)
	w, err := client.Workflow(ctx, f.namespace, name)
	switch {
	case errors.Is(err, kube.ErrNotFound) && f.pipeline != "":
		return name, f.pipeline, nil
	case errors.Is(err, kube.ErrNotFound):
		return "", "", fault.Newf(fault.User, fault.RunUnknown, op,
			"See `kubectl get workflows -n "+f.namespace+"`; for a run that has been removed give --pipeline as well", "there is no such Workflow")
	case err != nil:
		return "", "", rejected(op, "Check that the cluster answers, and that you may get workflows there", err)
	}
	if pipelineName = w.Labels[pipeline.LabelPipeline]; pipelineName == "" {
		return "", "", fault.Newf(fault.User, fault.RunUnknown, op, "Name a run of a pipeline", "this Workflow is not one of aphex: it has no label %s", pipeline.LabelPipeline)
	}
	return w.UID, pipelineName, nil
}

// rejected makes a fault of an API server's refusal.
func rejected(op, remedy string, err error) error { return kube.Fault(op, err, remedy, remedy) }

// bucket opens the bucket that the pipeline's installation names.
func (f *lookupFlags) bucket(ctx context.Context, client *kube.Client, name string) (*store.S3, error) {
	op := "read the installation of pipeline " + name + " in namespace " + f.namespace
	object, err := client.ConfigMap(ctx, f.namespace, pipeline.InstallationName(name))
	switch {
	case errors.Is(err, kube.ErrNotFound):
		return nil, fault.Wrap(fault.User, fault.InstallationMissing, op, "Check the pipeline's name and the namespace", err)
	case err != nil:
		return nil, rejected(op, "Check that the cluster answers, and that you may get ConfigMaps there", err)
	}
	inst, err := pipeline.LoadInstallation(pipeline.InstallationKey, []byte(object.Data[pipeline.InstallationKey]))
	if err != nil {
		return nil, err
	}
	conf, err := awsauth.Base(ctx, awsauth.Options{Region: inst.Region, EndpointURL: inst.EndpointURL})
	if err != nil {
		return nil, err
	}
	return store.NewS3(conf, inst.Bucket, inst.BucketPrefix), nil
}
