package parity

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync/atomic"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/testkit/effects"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/internal/workspace"
	"github.com/aphex-pipeline/aphex/tasks/deploy"
	"github.com/aphex-pipeline/aphex/tasks/synth"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// engine deploys with aphex's own stage: the worker, synth and deploy-env are
// real, only the checkout is a folder.
type engine struct {
	root     string // of the worker
	private  string
	client   *worker.Client
	emulator *aws.Emulator
	kept     *assemblies
	count    atomic.Int64
}

func (e *engine) name() string { return "aphex" }

// synth returns the assembly of a variant, made by aphex.
func (e *engine) synth(ctx context.Context, app string, variant Variant) (string, error) {
	return e.kept.get(app, variant, func(dir string) error {
		environment, err := e.environment(app)
		if err != nil {
			return err
		}
		source := filepath.Join(e.root, worker.SourceDir, appsDir, app)
		if err := os.WriteFile(filepath.Join(source, "variant"), []byte(variant), 0o600); err != nil {
			return err
		}
		var log bytes.Buffer
		made, err := synth.New(synth.Config{Worker: e.client, Private: e.private, Lookups: e.lookups}).Synth(ctx, synth.Request{
			Environment: environment, App: path.Join(appsDir, app), ID: app + string(variant),
		}, &log)
		if err != nil {
			return refused(ctx, err, &log)
		}
		return os.CopyFS(dir, os.DirFS(made))
	})
}

// lookups are the credentials of the account itself.
func (e *engine) lookups(context.Context, pipeline.Environment, string) (map[string]string, error) {
	return map[string]string{
		"AWS_ACCESS_KEY_ID": account, "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": region, "AWS_ENDPOINT_URL": e.emulator.DirectEndpoint(),
		"AWS_EC2_METADATA_DISABLED": "true",
	}, nil
}

// refused marks what the app or AWS is to blame for.
func refused(ctx context.Context, err error, log *bytes.Buffer) error {
	if ctx.Err() != nil || fault.From(err).Class == fault.System {
		return fmt.Errorf("%w\n%s", err, log)
	}
	return &refusedError{fault.Message(err) + "\n" + log.String()}
}

// environment is the configured environment without its stacks.
func (e *engine) environment(app string) (pipeline.Environment, error) {
	settings, err := appSettings(app)
	if err != nil {
		return pipeline.Environment{}, err
	}
	context, _ := settings.Environment["context"].(map[string]any) // absent means none
	return pipeline.Environment{Name: "dev", Account: account, Region: region, Context: context}, nil
}

// deploy deploys a variant as a new execution; calls go through endpoint.
func (e *engine) deploy(ctx context.Context, app string, variant Variant, endpoint string) error {
	dir, err := e.synth(ctx, app, variant)
	if err != nil {
		return err
	}
	config, err := e.config(app, dir)
	if err != nil {
		return err
	}
	results, err := os.MkdirTemp(e.private, "results-")
	if err != nil {
		return err
	}
	kept, err := os.MkdirTemp(e.private, "assemblies-")
	if err != nil {
		return err
	}
	var log bytes.Buffer
	stage := deploy.New(deploy.Config{
		Workspace: folder(config), Synth: copies(dir), Store: store.NewDir(results), Private: kept, TemplateEndpoint: e.emulator.DirectEndpoint(),
		Base: func(context.Context) (awssdk.Config, error) {
			return awssdk.Config{Region: region, Credentials: credentials.NewStaticCredentialsProvider(account, "test", ""), BaseEndpoint: &endpoint, APIOptions: awsauth.APIOptions()}, nil
		},
	})
	_, err = stage.Run(ctx, task.Request{
		Run: task.Run{Namespace: "parity", Name: "run", UID: "run", Epoch: strconv.FormatInt(e.count.Add(1), 10)}, Stage: task.StageDeployEnv,
		Node: "run.deploy-dev", Pipeline: app, Environment: "dev", ConfigPath: pipeline.DefaultFile, Commit: fmt.Sprintf("%040d", 1),
	}, task.Env{Output: &log, Logger: slog.New(slog.DiscardHandler), Progress: func(string) {}, Effects: &effects.Memory{}})
	if err != nil {
		return refused(ctx, err, &log)
	}
	return nil
}

// config is the configuration that lists every stack of the assembly, those
// that others depend on first.
func (e *engine) config(app, dir string) ([]byte, error) {
	built, err := assembly.Load(dir)
	if err != nil {
		return nil, err
	}
	settings, err := appSettings(app)
	if err != nil {
		return nil, err
	}
	environment := map[string]any{"name": "dev", "region": region, "account": account}
	maps.Copy(environment, settings.Environment)
	stacks := []any{}
	for _, s := range built.Stacks {
		stacks = append(stacks, map[string]any{"name": s.HierarchicalID, "path": path.Join(appsDir, app)})
	}
	environment["stacks"] = stacks
	return json.Marshal(map[string]any{
		"version": "1.0", "build": map[string]any{"commands": []string{"true"}}, "environments": []any{environment},
	})
}

// folder is a checkout that holds nothing but its configuration.
type folder []byte

func (f folder) Prepare(context.Context, workspace.Source, io.Writer) error { return nil }
func (f folder) File(context.Context, string) ([]byte, error)               { return f, nil }
func (f folder) Reset(context.Context, string, io.Writer) error             { return nil }
func (f folder) IsAncestor(context.Context, string, string) (bool, error)   { return true, nil }

// copies hands out copies of an assembly, which the stage removes.
type copies string

func (c copies) FindApp(_ context.Context, name string) (string, error) { return name, nil }

func (c copies) Synth(context.Context, deploy.SynthRequest, io.Writer) (string, error) {
	dir, err := os.MkdirTemp(filepath.Dir(string(c)), "copy-")
	if err != nil {
		return "", err
	}
	return dir, os.CopyFS(dir, os.DirFS(string(c)))
}
