package workflow

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/revision"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// The CDK app of the pipeline's own: a folder beside the configuration.
const (
	infraFolder = "pipeline-infra"
	infraFile   = "cdk.json"
)

// App is a CDK app that is deployed as a whole to the account of the process's
// own identity.
type App struct {
	// Name stands where environments have theirs.
	Name string
	// Folder is that of the app's cdk.json, relative to the source root.
	Folder string
	// Region is where the app goes.
	Region string
	// Artifacts is the configured folder of the build's artifacts.
	Artifacts string
	// Enter is called before the first write.
	Enter func(ctx context.Context) error
}

// Apps deploys CDK apps.
type Apps interface {
	// DeployApp deploys all stacks of an app and says what came of it. It may
	// be called again with the same Request after the process died.
	DeployApp(ctx context.Context, req task.Request, env task.Env, app App) (summary string, err error)
}

// deployInfra deploys the CDK app of the pipeline's own, if the commit has one,
// and says what came of it; it is empty if there is none.
func (s *Stage) deployInfra(ctx context.Context, req task.Request, env task.Env, w wanted, previous revision.State) (summary string, err error) {
	folder := path.Join(path.Dir(req.ConfigPath), infraFolder)
	_, err = s.cfg.Workspace.File(ctx, path.Join(folder, infraFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err == nil {
		summary, err = s.cfg.Apps.DeployApp(ctx, req, env, App{
			Name: pipeline.Own, Folder: folder, Region: w.region, Artifacts: w.config.Build.Artifacts,
			Enter: func(ctx context.Context) error { return s.enter(ctx, req, previous, revision.Deploying) },
		})
	}
	if err != nil {
		return "", fmt.Errorf("deploy %s, without which the pipeline stays as it is: %w", folder, err)
	}
	return summary, nil
}
