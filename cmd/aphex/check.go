package main

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/version"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/plugin/check"
	"github.com/aphex-pipeline/aphex/plugin/server"
)

// checkWorker is how long the worker may take to answer a check: it has been
// started long before.
const checkWorker = 3 * time.Second

// checkPod composes the checks from the container's environment and prints
// what they find.
func checkPod(ctx context.Context, w io.Writer) error {
	settings := map[string]string{}
	for _, name := range []string{
		"APHEX_PIPELINE", "APHEX_BUCKET", "APHEX_NAMESPACE", "APHEX_POD_UID", "APHEX_WORKER_SOCKET", "APHEX_PRIVATE_DIR",
	} {
		settings[name] = os.Getenv(name)
	}
	cfg := check.Config{
		Settings: settings, TokenFile: server.DefaultTokenFile, Namespace: settings["APHEX_NAMESPACE"],
		PrivateDir: settings["APHEX_PRIVATE_DIR"], Version: version.Get().Version,
	}
	if client, err := kube.InCluster(); err != nil {
		cfg.ClusterErr = err
	} else {
		cfg.Cluster = client
	}
	if socket := settings["APHEX_WORKER_SOCKET"]; socket != "" {
		cfg.Worker = worker.NewClient(socket, worker.WithConnectTimeout(checkWorker))
	}
	if name := settings["APHEX_BUCKET"]; name != "" {
		base, err := awsauth.Base(ctx, awsauth.Options{Region: os.Getenv("AWS_REGION"), EndpointURL: os.Getenv("AWS_ENDPOINT_URL")})
		cfg.Identity = func(ctx context.Context) (awsauth.Identity, error) {
			if err != nil {
				return awsauth.Identity{}, err
			}
			return awsauth.Caller(ctx, base)
		}
		cfg.Bucket = store.NewS3(base, name, os.Getenv("APHEX_BUCKET_PREFIX"))
	}
	verdicts := check.Run(ctx, cfg)
	failed, err := check.Write(w, verdicts)
	if err != nil {
		return err
	}
	if failed > 0 {
		return fault.Newf(fault.User, fault.InstallationMissing, "check this pod", "Follow the lines marked FAIL above, from the top",
			"%d of %d checks failed", failed, len(verdicts))
	}
	return nil
}
