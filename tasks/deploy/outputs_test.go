package deploy

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/outputs"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// asked is an app that notes what it is given, and meddles with it.
type asked struct {
	*drifting

	root string
	seen []map[string]map[string]map[string]string
	in   []string
}

func (a *asked) Synth(ctx context.Context, req SynthRequest, out io.Writer) (string, error) {
	a.in = append(a.in, req.Outputs)
	if req.Outputs != "" {
		dir := filepath.Join(a.root, req.Outputs)
		a.seen = append(a.seen, folder(a.t, dir))
		require.NoError(a.t, os.WriteFile(filepath.Join(dir, "dev.json"), []byte("{}"), 0o600))
		require.NoError(a.t, os.WriteFile(filepath.Join(dir, "other.json"), []byte("{}"), 0o600))
	}
	return a.drifting.Synth(ctx, req, out)
}

// newAsked is a pod of a run that has deployed dev and the pipeline's own app.
func newAsked(t *testing.T) (*pod, *asked) {
	t.Helper()
	p := newPod(t)
	a := &asked{drifting: p.synth, root: t.TempDir()}
	for key, document := range map[string]string{
		record.OutputsKey("u1", "dev"): `{"shop": {"Arn": "arn:dev"}}`, record.OutputsKey("u1", "pipeline"): `{}`, record.OutputsKey("u1", "prod"): `{"shop": {"Arn": "its own"}}`,
		record.OutputsKey("u0", "stage"): `{"shop": {"Arn": "of another run"}}`,
	} {
		_, err := p.bucket.Put(t.Context(), key, strings.NewReader(document), store.PutOptions{})
		require.NoError(t, err)
	}
	return p, a
}

// asks is the deployment of an environment whose app is a.
func (p *pod) asks(a *asked, environment string) *deployment {
	p.t.Helper()
	files, err := worker.NewLocal(p.t.TempDir(), p.t.TempDir(), nil)
	require.NoError(p.t, err)
	info, err := files.Ping(p.t.Context())
	require.NoError(p.t, err)
	a.root = info.Root
	cfg := &pipeline.Config{Environments: []pipeline.Environment{{Name: "dev"}, {Name: "stage"}, {Name: "prod"}}}
	d := p.deployment()
	d.stage = New(Config{Workspace: &viewed{}, Synth: a, Store: p.bucket, Private: p.private, Outputs: outputs.NewWriter(p.bucket, files)})
	d.req.Predecessor, d.target.Name, d.earlier = "u0", environment, outputs.Before(cfg, environment)
	return d
}

// Each app is given the outputs of what this run, not the one it has its build
// from, has deployed before; what one app does to them does not reach the next.
func TestAssembly_AppsSeeOutputsOfEarlierEnvironments(t *testing.T) {
	t.Parallel()
	p, a := newAsked(t)
	d := p.asks(a, "prod")
	for _, app := range []string{"a", "b"} {
		_, err := d.assembly(t.Context(), group{app: app})
		require.NoError(t, err)
	}
	require.Equal(t, []string{"out/deploy-prod", "out/deploy-prod"}, a.in)
	want := map[string]map[string]map[string]string{"pipeline.json": {}, "dev.json": {"shop": {"Arn": "arn:dev"}}}
	require.Equal(t, []map[string]map[string]map[string]string{want, want}, a.seen)

	_, err := d.assembly(t.Context(), group{app: "a"})
	require.NoError(t, err)
	require.Len(t, a.seen, 2, "what was synthesized stays as it is")
}

func TestAssembly_FirstEnvironmentSeesAnEmptyFolderAndTheOwnAppNone(t *testing.T) {
	t.Parallel()
	p, a := newAsked(t)
	p.bucket = store.NewDir(t.TempDir())
	_, err := p.asks(a, "dev").assembly(t.Context(), group{app: "a"})
	require.NoError(t, err)
	require.Equal(t, []map[string]map[string]map[string]string{{}}, a.seen)

	d := p.asks(a, pipeline.Own)
	d.earlier = nil // as DeployApp leaves it
	_, err = d.assembly(t.Context(), group{app: "own"})
	require.NoError(t, err)
	require.Equal(t, []string{"out/deploy-dev", ""}, a.in)
}

// The stage itself knows what came before it.
func TestRun_EnvironmentsBeforeAreThoseOfTheConfiguration(t *testing.T) {
	t.Parallel()
	p, a := newAsked(t)
	d := p.asks(a, "prod")
	environment := func(name string) string {
		return "- name: " + name + "\n  region: eu-west-1\n  account: \"111111111111\"\n  stacks:\n  - {name: shop, path: a}\n"
	}
	config := "version: \"1.0\"\nbuild:\n  commands: [\"true\"]\nenvironments:\n" + environment("dev") + environment("prod") + environment("later")
	d.stage.cfg.Workspace = still{config: config}
	d.stage.cfg.Base = func(context.Context) (aws.Config, error) {
		return aws.Config{Region: "eu-west-1", HTTPClient: &cloud{}, Credentials: credentials.NewStaticCredentialsProvider("base", "s", "")}, nil
	}
	d.req.Environment, d.req.ConfigPath, d.req.Commit = "prod", "aphex-config.yaml", strings.Repeat("b", 40)
	_, err := d.stage.Run(t.Context(), d.req, d.env)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StackUnknown, Err: errors.New("the app has none")})
	require.Equal(t, []map[string]map[string]map[string]string{{"pipeline.json": {}, "dev.json": {"shop": {"Arn": "arn:dev"}}}}, a.seen)
}

// away is a bucket that cannot be read.
type away struct{ *store.Dir }

func (away) Get(context.Context, string) (io.ReadCloser, store.Object, error) {
	return nil, store.Object{}, fault.Newf(fault.Transient, fault.AWSUnavailable, "read", "", "away")
}

func TestAssembly_NothingIsSynthesizedWithoutTheOutputs(t *testing.T) {
	t.Parallel()
	p, a := newAsked(t)
	d := p.asks(a, "prod")
	d.stage.cfg.Outputs = outputs.NewWriter(away{p.bucket}, nil)
	_, err := d.assembly(t.Context(), group{app: "a"})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.AWSUnavailable, Err: errors.New("away")})
	require.ErrorContains(t, err, "read the stack outputs of pipeline")
	require.Equal(t, fault.Transient, fault.From(err).Class)
	require.Empty(t, a.in)
}
