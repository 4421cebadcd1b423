package check_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/plugin/check"
)

const secret = "t0ken-of-the-agent"

// pod is a pod in which everything is well.
type pod struct {
	cfg     check.Config
	cluster *kubetest.Server
	dir     string
}

type pinged func() (worker.Info, error)

func (p pinged) Ping(context.Context) (worker.Info, error) { return p() }

func newPod(t *testing.T) *pod {
	t.Helper()
	p := &pod{dir: t.TempDir(), cluster: kubetest.New(t)}
	token := filepath.Join(p.dir, "token")
	require.NoError(t, os.WriteFile(token, []byte(secret+"\n"), 0o600))
	private := filepath.Join(p.dir, "private")
	require.NoError(t, os.Mkdir(private, 0o700))
	p.cfg = check.Config{
		Settings: map[string]string{"APHEX_PIPELINE": "shop", "APHEX_BUCKET": "b"}, TokenFile: token, PrivateDir: private,
		Namespace: "team", Version: "v1.2.3", Cluster: p.cluster.Client(t),
		Worker: pinged(func() (worker.Info, error) {
			return worker.Info{Version: "v1.2.3", UID: 10001, Root: "/workspace"}, nil
		}),
		Identity: func(context.Context) (awsauth.Identity, error) {
			return awsauth.Identity{Account: "111111111111", ARN: "arn:aws:sts::111111111111:assumed-role/shop/x"}, nil
		},
		Bucket: store.NewDir(filepath.Join(p.dir, "bucket")),
	}
	return p
}

func TestRun_AllIsWell(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	var out strings.Builder
	failed, err := check.Write(&out, check.Run(t.Context(), p.cfg))
	require.NoError(t, err)
	require.Zero(t, failed, out.String())
	var names []string
	for line := range strings.Lines(out.String()) {
		require.True(t, strings.HasPrefix(line, "ok    "), line)
		names = append(names, strings.Fields(line)[1])
	}
	require.Equal(t, []string{
		"settings", "token", "workspace", "rights", "clock-cluster", "worker", "worker-version", "aws-identity", "clock-aws", "bucket",
	}, names)
	require.NotContains(t, out.String(), secret)
	left, err := os.ReadDir(p.cfg.PrivateDir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestRun_WhatIsWrongIsSaid breaks one thing at a time: its check fails, with
// the offending value and what to do, those that depend on it are skipped and
// all others go on.
func TestRun_WhatIsWrongIsSaid(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		ruin    func(*testing.T, *pod)
		check   string
		parts   []string
		skipped []string
	}{
		"a setting is missing": {
			func(_ *testing.T, p *pod) { p.cfg.Settings["APHEX_BUCKET"] = "" },
			"settings",
			[]string{"does not have APHEX_BUCKET", "aphex generate"},
			nil,
		},
		"no token": {
			func(t *testing.T, p *pod) {
				t.Helper()
				require.NoError(t, os.Remove(p.cfg.TokenFile))
			},
			"token",
			[]string{"no such file", "8737"},
			nil,
		},
		"empty token": {
			func(t *testing.T, p *pod) {
				t.Helper()
				require.NoError(t, os.WriteFile(p.cfg.TokenFile, []byte("\n"), 0o600))
			},
			"token",
			[]string{"is empty"},
			nil,
		},
		"private folder is gone": {
			func(t *testing.T, p *pod) {
				t.Helper()
				require.NoError(t, os.Remove(p.cfg.PrivateDir))
			},
			"workspace",
			[]string{"no such file", "fsGroup"},
			nil,
		},
		"rights are missing": {
			func(_ *testing.T, p *pod) { p.cluster.Forbid("workflows", "patch", "create") },
			"rights",
			[]string{"may not patch workflows, create workflows in namespace team", "manifests/base"},
			nil,
		},
		"the API server fails": {
			func(_ *testing.T, p *pod) {
				p.cluster.Deny(func(kubetest.Call) *metav1.Status {
					return kubetest.Status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "starting")
				})
			},
			"rights",
			[]string{"starting", "reaches the Kubernetes API server"},
			nil,
		},
		"no service account token": {
			func(_ *testing.T, p *pod) { p.cfg.Cluster, p.cfg.ClusterErr = nil, errors.New("not in a cluster") },
			"rights",
			[]string{"not in a cluster", "automountServiceAccountToken"},
			[]string{"clock-cluster"},
		},
		"the cluster's clock is ahead": {
			func(_ *testing.T, p *pod) { p.cluster.SetClock(10 * time.Minute) },
			"clock-cluster",
			[]string{"ahead", "1m0s", "Synchronize"},
			nil,
		},
		"the cluster's clock is behind": {
			func(_ *testing.T, p *pod) { p.cluster.SetClock(-10 * time.Minute) },
			"clock-cluster",
			[]string{"is -"},
			nil,
		},
		"no worker answers": {
			func(_ *testing.T, p *pod) {
				p.cfg.Worker = worker.NewClient(filepath.Join(p.dir, "none.sock"), worker.WithConnectTimeout(10*time.Millisecond))
			},
			"worker",
			[]string{"none.sock"},
			[]string{"worker-version"},
		},
		"another worker": {
			func(_ *testing.T, p *pod) {
				p.cfg.Worker = pinged(func() (worker.Info, error) { return worker.Info{Version: "v0.9"}, nil })
			},
			"worker-version",
			[]string{"v0.9", "v1.2.3", "same version"},
			nil,
		},
		"no identity": {
			func(_ *testing.T, p *pod) {
				p.cfg.Identity = func(context.Context) (awsauth.Identity, error) {
					return awsauth.Identity{}, fault.Newf(fault.User, fault.CredentialsMissing, "find out", "Give it one", "there are none")
				}
			},
			"aws-identity",
			[]string{"there are none", "Give it one"},
			[]string{"clock-aws", "bucket"},
		},
		"AWS's clock is behind": {
			func(_ *testing.T, p *pod) {
				p.cfg.Identity = func(context.Context) (awsauth.Identity, error) {
					return awsauth.Identity{Account: "1", Skew: -2 * time.Minute}, nil
				}
			},
			"clock-aws",
			[]string{"AWS is -2m0s ahead"},
			nil,
		},
		"the bucket cannot be written": {
			func(t *testing.T, p *pod) {
				t.Helper()
				require.NoError(t, os.WriteFile(filepath.Join(p.dir, "bucket"), nil, 0o600))
			},
			"bucket",
			[]string{"checks/plugin.txt"},
			nil,
		},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPod(t)
			c.ruin(t, p)
			verdicts := check.Run(t.Context(), p.cfg)
			var out strings.Builder
			failed, err := check.Write(&out, verdicts)
			require.NoError(t, err)
			require.Equal(t, 1, failed, out.String())
			require.Len(t, strings.Split(strings.TrimSpace(out.String()), "\n"), len(verdicts), "one line each")
			require.NotContains(t, out.String(), secret)
			var skipped []string
			for i, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
				if verdicts[i].Skipped {
					skipped = append(skipped, verdicts[i].Name)
				}
				if verdicts[i].Name == c.check {
					require.True(t, strings.HasPrefix(line, "FAIL"), line)
					for _, part := range c.parts {
						require.Contains(t, line, part)
					}
				}
			}
			require.Equal(t, c.skipped, skipped)
		})
	}
}

// TestRun_PodOfNoPipeline: the plugin stands in the agent pods of all Workflows
// of its namespace.
func TestRun_PodOfNoPipeline(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	p.cfg.Settings = map[string]string{"APHEX_PIPELINE": ""}
	p.cfg.PrivateDir, p.cfg.Worker, p.cfg.Identity, p.cfg.Bucket = "", nil, nil, nil
	verdicts := check.Run(t.Context(), p.cfg)
	states := map[string]string{}
	for _, v := range verdicts {
		switch {
		case v.Skipped:
			states[v.Name] = "skip"
		case v.Err != nil:
			states[v.Name] = "fail"
		}
	}
	require.Equal(t, map[string]string{
		"settings": "fail", "workspace": "skip", "worker": "skip", "worker-version": "skip", "aws-identity": "skip", "clock-aws": "skip", "bucket": "skip",
	}, states)
}
