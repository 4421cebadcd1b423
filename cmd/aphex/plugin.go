package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/git"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/secretref"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/version"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/plugin/execution"
	"github.com/aphex-pipeline/aphex/plugin/journal"
	"github.com/aphex-pipeline/aphex/plugin/metrics"
	"github.com/aphex-pipeline/aphex/plugin/nudge"
	"github.com/aphex-pipeline/aphex/plugin/order"
	"github.com/aphex-pipeline/aphex/plugin/server"
	"github.com/aphex-pipeline/aphex/plugin/sidecar"
	"github.com/aphex-pipeline/aphex/plugin/watchdog"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

const (
	// readyTimeout bounds the postStart hook: the listener is up in well under
	// a second, or something is wrong that the container's log tells.
	readyTimeout = 30 * time.Second
	// foreignDir is where logs go in the agent pod of a Workflow that is no
	// pipeline's and therefore has no private volume: memory every container
	// has.
	foreignDir = "/dev/shm/aphex"
	// workerRoot is where the worker mounts its volume.
	workerRoot = "/workspace"
	// buildSecretsDir is where the generated template mounts the Secrets that
	// build commands may be given, each as a folder.
	buildSecretsDir = "/var/run/secrets/aphex/build" //nolint:gosec // G101: a folder
	// channelSecretsDir is where it mounts those that channels are reached with.
	channelSecretsDir = "/var/run/secrets/aphex/channels" //nolint:gosec // G101: a folder
)

func newPlugin() *cobra.Command {
	var waitReady, check bool
	var port int
	var probe string
	cmd := &cobra.Command{
		Use:   "plugin",
		Short: "Serve Argo's agent, in the sidecar of its pod",
		Long: `Serves the executor plugin protocol on loopback. Its settings come from the
environment that the generated WorkflowTemplate gives the container:
APHEX_PIPELINE, APHEX_BUCKET, APHEX_BUCKET_PREFIX, APHEX_MAIN_LOGS,
APHEX_NUDGE (off leaves the controller to its own pace), APHEX_NAMESPACE, APHEX_POD_UID, APHEX_WORKER_SOCKET, APHEX_PRIVATE_DIR,
APHEX_GIT_CREDENTIALS, APHEX_BUILD_SECRETS, APHEX_DEPLOYED_BRANCH, AWS_REGION, and what the AWS SDK reads.
APHEX_METRICS_ADDRESS (":9464") shows /metrics, and nothing else, to the pod's
network; without it the page is on loopback only.

With --check it serves nothing: it says, one line per check, whether this pod
could work and what to do where it could not, and exits with 1 then. Run it in
the running container: kubectl exec POD -c aphex-executor-plugin -- aphex plugin --check`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			addr := fmt.Sprintf("127.0.0.1:%d", port)
			switch {
			case check:
				return checkPod(cmd.Context(), cmd.OutOrStdout())
			case probe != "":
				return probePlugin(cmd.Context(), addr, probe)
			case waitReady:
				ctx, cancel := context.WithTimeout(cmd.Context(), readyTimeout)
				defer cancel()
				return sidecar.WaitReady(ctx, addr)
			}
			redactor := redact.New()
			logger := slog.New(slog.NewJSONHandler(redactor.Records(cmd.ErrOrStderr()), nil))
			cfg, err := sidecarConfig(cmd.Context(), logger, redactor, order.Guard)
			if err != nil {
				return err
			}
			cfg.Port, cfg.Stdout = port, cmd.OutOrStdout()
			return sidecar.Run(cmd.Context(), cfg)
		},
	}
	cmd.Flags().BoolVar(&waitReady, "wait-ready", false, "wait until the plugin of this pod answers, then exit (for a postStart hook)")
	cmd.Flags().BoolVar(&check, "check", false, "say whether this pod could work, then exit")
	cmd.Flags().StringVar(&probe, "probe", "", "ask the plugin of this pod once, then exit: live or ready (for the container's probes)")
	cmd.Flags().IntVar(&port, "port", 4355, "port on loopback")
	return cmd
}

// probePlugin is one look of the kubelet. The plugin listens on loopback, where
// only a process of the pod can ask.
func probePlugin(ctx context.Context, addr, what string) error {
	switch what {
	case "live":
		return sidecar.Probe(ctx, addr, server.HealthPath)
	case "ready":
		return sidecar.Probe(ctx, addr, server.ReadyPath)
	}
	return usageError{fmt.Errorf("--probe is %q: live and ready are allowed", what)}
}

// sidecarConfig composes the plugin from the container's environment.
func sidecarConfig(ctx context.Context, logger *slog.Logger, redactor *redact.Redactor, guard func(task.Registry, order.Workflows) task.Registry) (sidecar.Config, error) {
	client, err := kube.InCluster()
	if err != nil {
		return sidecar.Config{}, err
	}
	podUID, pipelineName := os.Getenv("APHEX_POD_UID"), os.Getenv("APHEX_PIPELINE")
	private := os.Getenv("APHEX_PRIVATE_DIR")
	if private == "" {
		private = foreignDir
	}
	counted := metrics.New(version.Get().Version)
	cluster := counted.Cluster(client)
	cfg := sidecar.Config{
		PodUID:  podUID,
		Metrics: counted, MetricsAddress: os.Getenv("APHEX_METRICS_ADDRESS"),
		Runs: execution.NewKubeRuns(client), LogDir: filepath.Join(private, "logs"),
		Keeper:   watchdog.New(cluster, watchdog.Timing{}, logger),
		Redactor: redactor, Logger: logger,
	}
	book := journal.NewKube(cluster, podUID, pipelineName)
	cfg.Journal = book
	cfg.Nudger = nudger(os.Getenv("APHEX_NUDGE"), cluster, logger)
	if pipelineName == "" || os.Getenv("APHEX_BUCKET") == "" {
		cfg.Registry = notInstalled()
		return cfg, nil
	}
	id := &identity{
		options:  awsauth.Options{Region: os.Getenv("AWS_REGION"), EndpointURL: os.Getenv("AWS_ENDPOINT_URL")},
		redactor: redactor,
	}
	repositories, err := gitClient(git.Config{
		Home: filepath.Join(private, "git-home"), Credentials: os.Getenv("APHEX_GIT_CREDENTIALS"),
		SecretName: "of the pipeline (gitSecret of its installation)",
	}, redactor)
	if err != nil {
		return sidecar.Config{}, err
	}
	base, err := id.base(ctx)
	if err != nil {
		return sidecar.Config{}, err
	}
	bucket := store.NewS3(base, os.Getenv("APHEX_BUCKET"), os.Getenv("APHEX_BUCKET_PREFIX"))
	records := record.New(bucket)
	cfg.Registry = guard(parts{
		privateDir: private, worker: worker.NewClient(os.Getenv("APHEX_WORKER_SOCKET")), workerRoot: workerRoot,
		git: repositories, store: bucket, records: records, identity: id, imageBuilder: os.Getenv("APHEX_IMAGE_BUILDER"),
		kube: client, namespace: os.Getenv("APHEX_NAMESPACE"), pipeline: pipelineName,
		secrets:        secretref.New(secretref.Config{Base: id.base, Hide: redactor.Add, Mounted: buildSecretsDir}),
		deployedBranch: os.Getenv("APHEX_DEPLOYED_BRANCH"),
		allowedSecrets: strings.Fields(os.Getenv("APHEX_BUILD_SECRETS")),
	}.stages(), client)
	cfg.Logs, cfg.Recorder, cfg.Journal = bucket, stageRecorder{records}, book.WithOverflow(bucket)
	cfg.MainLogs = os.Getenv("APHEX_MAIN_LOGS") == "true"
	logger.InfoContext(ctx, "plugin composed", slog.String("pipeline", pipelineName), slog.Int("stages", len(cfg.Registry)))
	return cfg, nil
}

// nudger is nil if the installation switches nudges off.
func nudger(setting string, cluster metrics.Cluster, logger *slog.Logger) execution.Nudger { //nolint:ireturn // nil, or the one there is
	if setting == pipeline.NudgeOff {
		return nil
	}
	return nudge.New(cluster, nudge.Timing{}, logger)
}

// gitClient reads the password of cfg.Credentials, which may be absent, and
// hides it from here on.
func gitClient(cfg git.Config, redactor *redact.Redactor) (*git.Client, error) {
	if cfg.Credentials != "" {
		password, err := os.ReadFile(filepath.Join(cfg.Credentials, "password"))
		switch {
		case err == nil:
			redactor.Add(string(password))
		case !errors.Is(err, os.ErrNotExist):
			return nil, fmt.Errorf("read the git credentials: %w", err)
		}
	}
	cfg.Path = os.Getenv("PATH")
	return git.New(cfg)
}

// notInstalled are the stages of a pod that lacks the generated template's
// settings: each says so.
func notInstalled() task.Registry {
	stages := task.Registry{task.StageNoop: task.RunnerFunc(noop)}
	missing := task.RunnerFunc(func(context.Context, task.Request, task.Env) (task.Result, error) {
		return task.Result{}, fault.Newf(fault.User, fault.InstallationMissing, "start the stage",
			"Start runs from the WorkflowTemplate that `aphex generate` makes, and apply that again if it is old",
			"the pod has no pipeline settings (APHEX_PIPELINE, APHEX_BUCKET)")
	})
	for _, stage := range []string{task.StageValidate, task.StageBuild, task.StageDeployPipeline, task.StageDeployEnv, task.StageTest, task.StageFinish} {
		stages[stage] = missing
	}
	return stages
}
