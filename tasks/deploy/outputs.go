package deploy

import (
	"context"
	"path"

	"github.com/aphex-pipeline/aphex/internal/worker"
)

// OutputsWriter puts the stack outputs of what a run has deployed into a folder
// of the worker's tree.
type OutputsWriter interface {
	Write(ctx context.Context, uid string, environments []string, dir string) (map[string][]byte, error)
}

// earlierOutputs makes the folder with the outputs of what this run has
// deployed before, and returns its path in the worker's tree; empty if there is
// no such thing as before. It is made anew for each app, since the programs of
// the one before may have changed it.
func (d *deployment) earlierOutputs(ctx context.Context) (string, error) {
	if d.stage.cfg.Outputs == nil || len(d.earlier) == 0 {
		return "", nil
	}
	dir := path.Join(worker.OutDir, "deploy-"+d.target.Name)
	_, err := d.stage.cfg.Outputs.Write(ctx, d.req.Run.UID, d.earlier, dir)
	return dir, err
}
