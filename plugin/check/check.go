package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

const (
	// limit bounds one check. Each service retries by itself for some seconds.
	limit = 30 * time.Second
	// MaxSkew is what clocks may differ. AWS refuses signatures five minutes
	// off; times in records and tokens of an hour want better than that.
	MaxSkew = time.Minute
)

// cluster is what is asked of the API server.
type cluster interface {
	Allowed(ctx context.Context, namespace string, right kube.Right) (bool, error)
	Skew(ctx context.Context) (time.Duration, error)
}

var _ cluster = (*kube.Client)(nil)

// pinger is the worker.
type pinger interface {
	Ping(ctx context.Context) (worker.Info, error)
}

var _ pinger = (*worker.Client)(nil)

// bucket is the artifact bucket.
type bucket interface {
	Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error)
	Get(ctx context.Context, key string) (io.ReadCloser, store.Object, error)
	List(ctx context.Context, prefix string) ([]store.Object, error)
	URL(key string) string
}

// Config is what this pod has. What is nil is made from what the error beside
// it says.
type Config struct {
	// Settings are the variables of the container that a pipeline needs, by
	// name.
	Settings map[string]string
	// TokenFile is where Argo puts the plugin's token.
	TokenFile string
	// PrivateDir is the folder only the plugin has.
	PrivateDir string
	// Namespace is that of the pod.
	Namespace string
	// Version is that of this binary.
	Version string
	// Cluster is nil if ClusterErr says why there is none.
	Cluster    cluster
	ClusterErr error
	// Worker may be nil: there is no worker in this pod.
	Worker pinger
	// Identity asks AWS who the plugin is there.
	Identity func(ctx context.Context) (awsauth.Identity, error)
	// Bucket may be nil: none is configured.
	Bucket bucket
}

// Verdict is what one check found.
type Verdict struct {
	Name string
	// Detail is what was found if Err is nil.
	Detail string
	// Err is what is wrong, a *fault.Fault with a remedy.
	Err error
	// Skipped says that the check makes no sense here; Detail says why.
	Skipped bool
}

// skipped ends a check that makes no sense.
type skipped string

// Error implements error.
func (s skipped) Error() string { return string(s) }

// Run makes all checks, in the order in which they depend on each other.
func Run(ctx context.Context, cfg Config) []Verdict {
	r := &round{cfg: cfg}
	steps := []struct {
		name string
		do   func(context.Context) (string, error)
	}{
		{"settings", r.settings},
		{"token", r.token},
		{"workspace", r.workspace},
		{"rights", r.rights},
		{"clock-cluster", r.clockCluster},
		{"worker", r.worker},
		{"worker-version", r.workerVersion},
		{"aws-identity", r.identity},
		{"clock-aws", r.clockAWS},
		{"bucket", r.bucket},
	}
	verdicts := make([]Verdict, 0, len(steps))
	for _, step := range steps {
		verdicts = append(verdicts, judge(ctx, step.name, step.do))
	}
	return verdicts
}

func judge(ctx context.Context, name string, do func(context.Context) (string, error)) Verdict {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	detail, err := do(ctx)
	if why, ok := errors.AsType[skipped](err); ok {
		return Verdict{Name: name, Detail: string(why), Skipped: true}
	}
	return Verdict{Name: name, Detail: detail, Err: err}
}

// Write prints one line per verdict and returns how many failed.
func Write(w io.Writer, verdicts []Verdict) (failed int, err error) {
	for _, v := range verdicts {
		state, text := "ok", v.Detail
		switch {
		case v.Skipped:
			state = "skip"
		case v.Err != nil:
			failed++
			state, text = "FAIL", oneLine(v.Err.Error())
			if remedy := fault.From(v.Err).Remedy; remedy != "" {
				text += "; to do: " + oneLine(remedy)
			}
		}
		if _, err := fmt.Fprintf(w, "%-4s  %-14s  %s\n", state, v.Name, text); err != nil {
			return failed, err
		}
	}
	return failed, nil
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
