package deploy

import (
	"context"
	"slices"

	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/revision"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// App is a CDK app that is deployed as a whole, as `cdk deploy --all` does it,
// and belongs to no environment of the configuration.
type App struct {
	// Name stands where environments have their name: in the log, in keys of
	// records, in APHEX_ENVIRONMENT. No environment may have it.
	Name string
	// Folder is that of the app's cdk.json, relative to the source root.
	Folder string
	// Region is where the app goes, in the account of the process's own
	// identity.
	Region string
	// Artifacts is the configured folder of the build's artifacts.
	Artifacts string
	// Enter is called before the first write, once everything has been checked
	// that can be without one. An error ends the deployment.
	Enter func(ctx context.Context) error
}

// DeployApp deploys all stacks of an app, one after the other, dependencies
// first. It is an environment's deployment in all but the choice of stacks:
// the same view of the files, the same credentials, records and journal, and it
// may be called again with the same Request in the same way. The summary says
// what came of it: "infra: 1 stack in 3 s: infra created; 9 AWS calls".
//
// Errors: as those of Run, but for the revision, which is the caller's.
func (s *Stage) DeployApp(ctx context.Context, req task.Request, env task.Env, app App) (summary string, err error) {
	req.Environment = app.Name
	d := &deployment{
		stage: s, req: req, env: env, target: pipeline.Environment{Name: app.Name, Region: app.Region}, artifacts: app.Artifacts, began: s.now(),
		enter: func(ctx context.Context, phase string) error {
			if phase != revision.Deploying {
				return nil
			}
			return app.Enter(ctx)
		},
	}
	limited, cancel := context.WithTimeoutCause(ctx, DefaultTimeout, fault.Newf(fault.User, fault.StageTimeout, "deploy "+app.Folder,
		"Find out what took so long", "the time of %s that the app may take is used up", DefaultTimeout))
	defer cancel()
	defer d.report(ctx)
	defer func() { d.say("%s", &d.calls) }()
	if err := d.whole(limited, app.Folder); err != nil {
		return "", err
	}
	if _, _, err := d.storeOutputs(limited); err != nil {
		return "", err
	}
	return d.summary(app.Folder), nil
}

// whole deploys every stack of the app in folder to the account that this
// process belongs to.
func (d *deployment) whole(ctx context.Context, folder string) error {
	if err := d.reset(ctx); err != nil {
		return err
	}
	if err := d.login(ctx); err != nil {
		return err
	}
	d.target.Account = d.caller.Account
	defer d.removeAssemblies()
	s, stacks, err := d.prepare(ctx, group{app: folder, whole: true})
	if err != nil {
		return err
	}
	d.total = len(stacks)
	return d.deployAll(ctx, s, stacks)
}

// pick returns the stacks of an assembly that belong to the group, in the order
// in which they are deployed.
func (g group) pick(built *assembly.Assembly) ([]*assembly.Stack, error) {
	if !g.whole {
		return built.Resolve(namesOf(g.all))
	}
	op := "find the stacks of " + appName(g.app)
	if len(built.Stacks) == 0 {
		return nil, fault.Newf(fault.User, fault.StackUnknown, op, "Define a stack, or remove the app's cdk.json", "the app defines no stacks")
	}
	for i, stack := range built.Stacks {
		other := slices.IndexFunc(built.Stacks[:i], func(other *assembly.Stack) bool { return other.Name == stack.Name })
		if other >= 0 {
			return nil, fault.Newf(fault.User, fault.StackAmbiguous, op, "Give the stacks different names",
				"the stacks %s and %s have the same name in CloudFormation", built.Stacks[other].HierarchicalID, stack.HierarchicalID)
		}
	}
	return built.Stacks, nil
}
