package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/spf13/cobra"

	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/cloudwatch"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/reconcile"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/version"
)

// reconcileFlags are the flags of `aphex reconcile`.
type reconcileFlags struct {
	namespace, kubeconfig, tokenFile string
	dryRun                           bool
	settle, timeout                  time.Duration
}

func newReconcile() *cobra.Command {
	f := reconcileFlags{}
	cmd := &cobra.Command{
		Use:   "reconcile",
		Short: "Finish what runs of a namespace could not finish themselves",
		Long: `Looks once at the runs, agent pods and journals of a namespace: closes the
records of runs that were terminated or lost their agent pod and tells the
channels under notifications of their end, removes failed agent pods so that their runs can go on or be retried, removes journals of runs
that are gone. It prints a line for each thing done. Runs whose pod is alive
are never touched; doing it twice, or two at once, changes nothing more.

In a cluster it runs as a CronJob, see manifests/reconcile.`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.namespace == "" {
				f.namespace = os.Getenv("APHEX_NAMESPACE")
			}
			if f.namespace == "" {
				return usageError{errors.New("--namespace is required (or APHEX_NAMESPACE)")}
			}
			return runReconcile(cmd, f)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.namespace, "namespace", "n", "", "namespace of the runs (default $APHEX_NAMESPACE)")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig outside of a cluster; inside, the pod's service account is used")
	flags.StringVar(&f.tokenFile, "web-identity-token", "", "file with a service account token for pipelines whose installation sets aws.projectToken")
	flags.BoolVar(&f.dryRun, "dry-run", false, "say what would be done, and do nothing")
	flags.DurationVar(&f.settle, "settle", reconcile.DefaultSettle, "how long ago a run must have ended")
	flags.DurationVar(&f.timeout, "timeout", 100*time.Second, "time after which to stop")
	return cmd
}

func runReconcile(cmd *cobra.Command, f reconcileFlags) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	connect := kube.InCluster
	if f.kubeconfig != "" {
		connect = func() (*kube.Client, error) { return kube.FromKubeconfig(f.kubeconfig) }
	}
	client, err := connect()
	if err != nil {
		return err
	}
	base := func(ctx context.Context, inst pipeline.Installation) (aws.Config, error) {
		options := awsauth.Options{Region: inst.Region, EndpointURL: inst.EndpointURL}
		if inst.AWS.ProjectToken && f.tokenFile != "" {
			options.RoleARN, options.TokenFile = inst.AWS.RoleARN, f.tokenFile
		}
		return awsauth.Base(ctx, options)
	}
	redactor := redact.New()
	return reconcile.New(reconcile.Config{
		Cluster: client, Namespace: f.namespace, Output: redactor.Records(cmd.OutOrStdout()), DryRun: f.dryRun, Settle: f.settle,
		News: func(ctx context.Context, inst pipeline.Installation) (reconcile.Announcer, error) {
			conf, err := base(ctx, inst)
			if err != nil {
				return nil, err
			}
			return notify.New(notify.Config{
				Base: func(context.Context) (aws.Config, error) { return conf.Copy(), nil },
				Hide: redactor.Add, Redact: redactor.String, Version: version.Get().Version,
			}), nil
		},
		Figures: func(ctx context.Context, inst pipeline.Installation) (reconcile.Figures, error) {
			conf, err := base(ctx, inst)
			if err != nil {
				return nil, err
			}
			return cloudwatch.New(func(context.Context) (aws.Config, error) { return conf.Copy(), nil }).Run, nil
		},
		Records: func(ctx context.Context, inst pipeline.Installation) (*record.Recorder, error) {
			conf, err := base(ctx, inst)
			if err != nil {
				return nil, err
			}
			return record.New(store.NewS3(conf, inst.Bucket, inst.BucketPrefix)), nil
		},
	}).Pass(ctx)
}
