package main

import (
	"io"
	"log/slog"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/plugin/metrics"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// allStages are the stages a plugin must know, sorted.
func allStages() []string {
	return []string{task.StageBuild, task.StageDeployEnv, task.StageDeployPipeline, task.StageFinish, task.StageNoop, task.StageTest, task.StageValidate}
}

func TestParts_ComposeEveryStage(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	p := parts{
		privateDir: t.TempDir(), worker: worker.NewClient("none"), workerRoot: workerRoot, store: bucket, records: record.New(bucket),
		identity: &identity{redactor: redact.New()}, namespace: "team", pipeline: "shop",
	}
	require.Subset(t, slices.Collect(maps.Keys(p.stages())), localStages(), "what `aphex task` offers it can do")
	require.NotContains(t, p.stages(), task.StageDeployPipeline, "there is no cluster to deploy to")

	p.kube = kubetest.New(t).Client(t)
	require.Equal(t, allStages(), slices.Sorted(maps.Keys(p.stages())))
}

func TestNotInstalled_EveryStageSaysSo(t *testing.T) {
	t.Parallel()
	stages := notInstalled()
	require.Equal(t, allStages(), slices.Sorted(maps.Keys(stages)))
	for name, stage := range stages {
		_, err := stage.Run(t.Context(), task.Request{Stage: name}, task.Env{Output: io.Discard, Logger: slog.New(slog.DiscardHandler)})
		if name == task.StageNoop {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, &fault.Fault{Reason: fault.InstallationMissing}, name)
		require.Contains(t, fault.Message(err), "aphex generate", name)
	}
}

// Not parallel: the SDK reads the process's environment.
func TestIdentity_VariablesAreHiddenFromThenOn(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY", "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEXAMPLETOKEN",
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
	} {
		t.Setenv(name, value)
	}
	redactor := redact.New()
	id := &identity{options: awsauth.Options{Region: "eu-west-1", EndpointURL: "http://127.0.0.1:1"}, redactor: redactor}
	vars, err := id.own(t.Context(), task.Request{})
	require.NoError(t, err)
	require.Equal(t, map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY", "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEXAMPLETOKEN",
		"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
	}, vars)
	shown := redactor.String("key wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY token FwoGZXIvYXdzEXAMPLETOKEN id AKIAIOSFODNN7EXAMPLE")
	require.NotContains(t, shown, "wJalr")
	require.NotContains(t, shown, "FwoG")
	require.Contains(t, shown, "AKIAIOSFODNN7EXAMPLE", "an id is no secret")
}

func TestNudger_IsSwitchedOffByTheInstallation(t *testing.T) {
	t.Parallel()
	cluster := metrics.New("v1").Cluster(nil)
	logger := slog.New(slog.DiscardHandler)
	require.Nil(t, nudger(pipeline.NudgeOff, cluster, logger))
	require.NotNil(t, nudger(pipeline.NudgeOn, cluster, logger))
	require.NotNil(t, nudger("", cluster, logger))
}
