package deploy

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/assets"
	"github.com/aphex-pipeline/aphex/internal/count"
)

// publishAll brings the files and images of an app to their destinations, all
// at the same time.
func (d *deployment) publishAll(ctx context.Context, s *selection, stacks []*assembly.Stack, files []assets.File, found *pictures) error {
	d.env.Progress(fmt.Sprintf("%s: publishing %s", d.target.Name, count.Of(len(files)+found.destinations(), "asset")))
	var summary assets.Summary
	var sent int
	all, allCtx := errgroup.WithContext(ctx)
	all.Go(func() (err error) {
		summary, err = d.publish(allCtx, s, stacks, files)
		return err
	})
	all.Go(func() (err error) {
		sent, err = d.push(allCtx, found)
		return err
	})
	if err := all.Wait(); err != nil {
		return err
	}
	there := summary.Present + found.present + found.destinations() - sent
	d.say("%s published, %d already there", count.Of(summary.Published+sent, "asset"), there)
	return nil
}
