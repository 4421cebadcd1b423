package main

import (
	"context"
	"io"
	"path/filepath"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/aphex-pipeline/aphex/internal/artifacts"
	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/cache"
	"github.com/aphex-pipeline/aphex/internal/cloudwatch"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/git"
	"github.com/aphex-pipeline/aphex/internal/handover"
	"github.com/aphex-pipeline/aphex/internal/images"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/outputs"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/revision"
	"github.com/aphex-pipeline/aphex/internal/secretref"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/version"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/internal/worker/commands"
	"github.com/aphex-pipeline/aphex/internal/workspace"
	"github.com/aphex-pipeline/aphex/tasks/build"
	"github.com/aphex-pipeline/aphex/tasks/deploy"
	"github.com/aphex-pipeline/aphex/tasks/finish"
	"github.com/aphex-pipeline/aphex/tasks/synth"
	"github.com/aphex-pipeline/aphex/tasks/task"
	"github.com/aphex-pipeline/aphex/tasks/test"
	"github.com/aphex-pipeline/aphex/tasks/validate"
	"github.com/aphex-pipeline/aphex/tasks/workflow"
)

// objects is the bucket, or a folder that stands for it.
type objects interface {
	Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error)
	Get(ctx context.Context, key string) (io.ReadCloser, store.Object, error)
	Head(ctx context.Context, key string) (store.Object, error)
	List(ctx context.Context, prefix string) ([]store.Object, error)
	Tags(ctx context.Context, key string) (map[string]string, error)
	URL(key string) string
}

// parts are what stages are made of.
type parts struct {
	// privateDir is reachable by this process alone.
	privateDir string
	worker     *worker.Client
	// workerRoot is the worker's root folder as its commands see it.
	workerRoot string
	git        *git.Client
	store      objects
	records    *record.Recorder
	identity   *identity
	// secrets reads what build.secrets refers to, as far as allowedSecrets, the
	// installation's, has it.
	secrets        *secretref.Reader
	allowedSecrets []string
	// deployedBranch is the one the pipeline deploys; empty if it is not known.
	deployedBranch string
	// imageBuilder is a setting of images.NewBuilder.
	imageBuilder string
	// kube is nil outside of a cluster: stages then do without.
	kube                *kube.Client
	namespace, pipeline string
}

// stages composes every stage of a run.
func (p parts) stages() task.Registry {
	files := workspace.New(workspace.Config{
		Private: filepath.Join(p.privateDir, "workspace"), Worker: p.worker, Store: p.store, Git: p.git,
	})
	verifier := artifacts.NewVerifier(p.worker, files, record.New(p.store))
	deployConfig := deploy.Config{
		Artifacts: verifier, Outputs: outputs.NewWriter(p.store, p.worker),
		Workspace: files, Store: p.store, Base: p.identity.base, Private: filepath.Join(p.privateDir, "assemblies"),
		Synth:  synthesizer{synth.New(synth.Config{Worker: p.worker, Private: filepath.Join(p.privateDir, "assemblies"), Lookups: p.identity.lookups})},
		Images: images.NewBuilder(p.worker, filepath.Join(p.privateDir, "images"), p.imageBuilder), Hide: p.identity.redactor.Add,
	}
	if p.records != nil {
		deployConfig.Events, deployConfig.Redact = p.records, p.identity.redactor.String
	}
	validateConfig := validate.Config{
		Workspace: files, Programs: p.worker, FirstProgram: commands.FirstProgram, Identity: p.identity.prove,
	}
	stages := task.Registry{
		task.StageBuild: build.New(build.Config{
			Workspace: files, Worker: p.worker, Trees: p.worker, Store: p.store, Credentials: p.identity.own, WorkerRoot: p.workerRoot,
			Secrets: p.secrets, AllowedSecrets: p.allowedSecrets,
			Caches: cache.New(cache.Config{Worker: p.worker, Store: p.store, Commit: files, DeployedBranch: p.deployedBranch}),
		}),
		task.StageTest: test.New(test.Config{
			Workspace: files, Worker: p.worker, Trees: p.worker, Store: p.store, Artifacts: verifier,
			Credentials: p.identity.target, WorkerRoot: p.workerRoot, Redact: p.identity.redactor.String,
		}),
		task.StageFinish: finish.New(finish.Config{Records: p.records}),
		task.StageNoop:   task.RunnerFunc(noop),
	}
	if p.kube != nil {
		figures := cloudwatch.New(p.identity.base)
		stages[task.StageFinish] = p.finish(figures.Run)
		deployConfig.Deployed = func(ctx context.Context, req task.Request, stacks []deploy.Deployment) error {
			list := make([]cloudwatch.Deployment, len(stacks))
			for i, stack := range stacks {
				list[i] = cloudwatch.Deployment(stack)
			}
			return figures.Deployments(ctx, req.Pipeline, req.Environment, list)
		}
		guard := revision.New(p.kube, p.namespace, p.pipeline)
		successors := handover.New(p.kube)
		deployConfig.Guard, deployConfig.Successors = guard, successors
		validateConfig.Start, validateConfig.Labels = validate.NewReplacer(p.kube), validate.Labels(p.kube)
		environments := deploy.New(deployConfig)
		stages[task.StageDeployEnv] = environments
		stages[task.StageDeployPipeline] = workflow.NewStage(workflow.Config{
			Kube: p.kube, Workspace: files, Guard: guard, Successors: successors, Apps: apps{environments},
		})
	} else {
		stages[task.StageDeployEnv] = deploy.New(deployConfig)
	}
	stages[task.StageValidate] = validate.New(validateConfig)
	return stages
}

// finish composes the stage that closes a run in the cluster.
func (p parts) finish(figures finish.Figures) *finish.Stage {
	return finish.New(finish.Config{
		Records: p.records, Figures: figures, Workflows: p.kube,
		News: notify.New(notify.Config{
			Base: p.identity.base, Hide: p.identity.redactor.Add, Redact: p.identity.redactor.String, Version: version.Get().Version,
			Secrets: channelSecretsDir,
		}),
	})
}

// noop is the stage that does nothing, for measurements of everything else.
func noop(context.Context, task.Request, task.Env) (task.Result, error) {
	return task.Result{Message: "nothing to do"}, nil
}

// synthesizer gives tasks/synth the request type of tasks/deploy, which do not
// know each other.
type synthesizer struct{ *synth.Synthesizer }

func (s synthesizer) Synth(ctx context.Context, req deploy.SynthRequest, out io.Writer) (string, error) {
	return s.Synthesizer.Synth(ctx, synth.Request(req), out)
}

// apps gives tasks/deploy the type of tasks/workflow, in the same way.
type apps struct{ *deploy.Stage }

func (a apps) DeployApp(ctx context.Context, req task.Request, env task.Env, app workflow.App) (string, error) {
	return a.Stage.DeployApp(ctx, req, env, deploy.App(app))
}

// identity hands out AWS credentials to stages and to the commands that may
// have them.
type identity struct {
	options  awsauth.Options
	redactor *redact.Redactor
	// personal says that the credentials are those of the person whose machine
	// this is.
	personal bool

	mu   sync.Mutex
	conf *aws.Config
}

// base is the process's own identity, read once.
func (i *identity) base(ctx context.Context) (aws.Config, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.conf == nil {
		conf, err := awsauth.Base(ctx, i.options)
		if err != nil {
			return aws.Config{}, err
		}
		i.conf = &conf
	}
	return i.conf.Copy(), nil
}

// session is the role an environment is deployed with: the configured one,
// else that of the CDK's bootstrap.
func (i *identity) session(ctx context.Context, req task.Request, target pipeline.Environment) (awsauth.Session, error) {
	return i.as(ctx, awsauth.SessionName(req.Pipeline, req.Run.Name, req.Stage), target, awsauth.BootstrapDeployRole)
}

// as assumes the configured role of an environment, else the one that the
// bootstrap is said to have.
func (i *identity) as(ctx context.Context, name string, target pipeline.Environment, bootstrapped func(partition, account, region string) string) (awsauth.Session, error) {
	base, err := i.base(ctx)
	if err != nil {
		return awsauth.Session{}, err
	}
	sessions := awsauth.NewSessions(base, name)
	caller, err := sessions.Caller(ctx)
	if err != nil {
		return awsauth.Session{}, err
	}
	role := awsauth.Role{ARN: target.RoleARN, ExternalID: target.ExternalID, Chosen: target.RoleARN != ""}
	if !role.Chosen {
		role.ARN = bootstrapped(caller.Partition, target.Account, target.Region)
	}
	return sessions.For(ctx, awsauth.Target{Environment: target.Name, Account: target.Account, Region: target.Region}, &role)
}

// prove assumes an environment's role and compares the account.
func (i *identity) prove(ctx context.Context, req task.Request, target pipeline.Environment) (warning string, err error) {
	session, err := i.session(ctx, req, target)
	return session.Warning, err
}

// own returns the process's own credentials as variables of a command.
func (i *identity) own(ctx context.Context, _ task.Request) (map[string]string, error) {
	base, err := i.base(ctx)
	if err != nil {
		return nil, err
	}
	return i.variables(ctx, base)
}

// target returns an environment's credentials as variables of a command: none,
// with the reason, where a deployment goes on with the process's own.
func (i *identity) target(ctx context.Context, req task.Request, target pipeline.Environment) (vars map[string]string, missing string, err error) {
	session, err := i.session(ctx, req, target)
	if err != nil {
		return nil, "", err
	}
	if session.Own && !i.personal {
		return nil, session.Denied + ", and commands never get the pipeline's own credentials", nil
	}
	vars, err = i.variables(ctx, session.Config)
	return vars, "", err
}

// lookups returns credentials for looking things up in an environment: those
// of the role that the configuration or else the app or the bootstrap names.
// The app could read whatever its commands are given: they get the process's
// own credentials on a person's own machine only.
func (i *identity) lookups(ctx context.Context, target pipeline.Environment, lookupRole string) (map[string]string, error) {
	session, err := i.as(ctx, awsauth.SessionName("lookup", target.Name, "synth"), target, func(partition, account, region string) string {
		if lookupRole == "" {
			return awsauth.BootstrapLookupRole(partition, account, region)
		}
		return assembly.Placeholders{Partition: partition, Account: account, Region: region}.Replace(lookupRole)
	})
	if err != nil {
		return nil, err
	}
	if session.Own && !i.personal {
		return nil, fault.Newf(fault.User, fault.RoleDenied, "look up context in "+target.Name,
			"Let the pipeline assume a role for looking up, or run `cdk synth` locally and commit cdk.context.json",
			"%s, and the app never gets the pipeline's own credentials", session.Denied)
	}
	return i.variables(ctx, session.Config)
}

// variables are the credentials as the AWS SDKs and command line read them.
// From here on they are hidden in logs and messages.
func (i *identity) variables(ctx context.Context, conf aws.Config) (map[string]string, error) {
	creds, err := conf.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, fault.Wrap(fault.User, fault.CredentialsMissing, "get credentials for the commands",
			"Check the role of the workflow's service account", err)
	}
	i.redactor.Add(creds.SecretAccessKey, creds.SessionToken)
	vars := map[string]string{
		"AWS_ACCESS_KEY_ID": creds.AccessKeyID, "AWS_SECRET_ACCESS_KEY": creds.SecretAccessKey, "AWS_SESSION_TOKEN": creds.SessionToken,
		"AWS_REGION": conf.Region, "AWS_DEFAULT_REGION": conf.Region,
	}
	if i.options.EndpointURL != "" {
		vars["AWS_ENDPOINT_URL"] = i.options.EndpointURL
	}
	return vars, nil
}
