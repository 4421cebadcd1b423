package deploy

import (
	"context"
	"io"
	"path"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/images"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// imagesAtOnce is how many destinations are asked or sent to at a time.
const imagesAtOnce = 8

// ImageBuilder has container images built where user code may run. See
// images.Builder.
type ImageBuilder interface {
	Choose(ctx context.Context, builds []images.Build) (program string, warnings []string, err error)
	Build(ctx context.Context, build images.Build, program string, out io.Writer) (*images.Image, error)
}

// picture is a container image asset with those of its destinations that lack
// it.
type picture struct {
	build images.Build
	image *images.Image
	to    []images.Destination
}

// pictures are the container image assets of an app.
type pictures struct {
	registry *images.Registry
	missing  []*picture
	// present counts the destinations that have theirs.
	present int
}

// close removes what was built. Nothing is lost with what stays behind: it
// goes with the pod.
func (p *pictures) close(d *deployment) {
	for _, one := range p.missing {
		if one.image == nil {
			continue
		}
		if err := one.image.Close(); err != nil {
			d.env.Logger.Warn("image not removed", "err", err)
		}
	}
}

// destinations is how many images have to be sent.
func (p *pictures) destinations() int {
	n := 0
	for _, one := range p.missing {
		n += len(one.to)
	}
	return n
}

// images asks every destination for its image and builds those that one
// lacks, each once. Nothing is written: what is wrong with a Dockerfile or the
// worker shows before the environment is touched. The caller closes the
// result, which is there in any case.
func (d *deployment) images(ctx context.Context, s *selection, g group, stacks []*assembly.Stack) (*pictures, error) {
	found := &pictures{registry: images.NewRegistry(d.target.Account, d.stage.cfg.Hide)}
	if err := d.findImages(ctx, s, g, stacks, found); err != nil || len(found.missing) == 0 {
		return found, err
	}
	builds := make([]images.Build, len(found.missing))
	for i, one := range found.missing {
		builds[i] = one.build
	}
	if d.stage.cfg.Images == nil {
		return found, fault.Newf(fault.User, fault.ImageAssetUnsupported, "deploy "+d.target.Name, "Build and push the image in the build stage and refer to it by name",
			"container image asset %s needs an image builder", builds[0].Name)
	}
	program, warnings, err := d.stage.cfg.Images.Choose(ctx, builds)
	if err != nil {
		return found, err
	}
	for _, warning := range warnings {
		d.say("warning: %s", warning)
	}
	for _, one := range found.missing {
		d.env.Progress(d.target.Name + ": building image " + one.build.Name)
		began := d.stage.now()
		if one.image, err = d.stage.cfg.Images.Build(ctx, one.build, program, d.env.Output); err != nil {
			return found, err
		}
		d.say("image %s built with %s in %s", one.build.Name, program, seconds(d.stage.now().Sub(began)))
	}
	return found, nil
}

// place is one destination of a picture.
type place struct {
	*picture
	images.Destination
}

// findImages fills found with the images that a destination lacks.
func (d *deployment) findImages(ctx context.Context, s *selection, g group, stacks []*assembly.Stack, found *pictures) error {
	all, places, err := d.places(ctx, s, g, stacks)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	asking, askCtx := errgroup.WithContext(ctx)
	asking.SetLimit(imagesAtOnce)
	for _, p := range places {
		asking.Go(func() error {
			there, err := found.registry.Present(askCtx, p.Destination)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if there {
				found.present++
				d.say("image %s is already at %s", p.Name, p.Destination)
				return nil
			}
			p.to = append(p.to, p.Destination)
			return nil
		})
	}
	err = asking.Wait()
	found.missing = slices.DeleteFunc(all, func(one *picture) bool { return len(one.to) == 0 })
	return err
}

// places lists the images of the stacks, each once, and where they go, each
// once, too.
func (d *deployment) places(ctx context.Context, s *selection, g group, stacks []*assembly.Stack) (all []*picture, places []place, err error) {
	byKey, seen := map[string]*picture{}, map[string]bool{}
	for _, stack := range stacks {
		for _, asset := range stack.Images() {
			destination, err := d.destination(ctx, s, asset)
			if err != nil {
				return nil, nil, err
			}
			if seen[destination.String()] {
				continue
			}
			seen[destination.String()] = true
			build := d.imageBuild(s, g, asset)
			one := byKey[build.Key()]
			if one == nil {
				one = &picture{build: build}
				byKey[build.Key()] = one
				all = append(all, one)
			}
			places = append(places, place{one, destination})
		}
	}
	return all, places, nil
}

// destination resolves where an image goes, with the credentials to go there.
func (d *deployment) destination(ctx context.Context, s *selection, asset assembly.ImageAsset) (images.Destination, error) {
	places := s.places
	if region := places.Replace(asset.Region); region != "" {
		places.Region = region
	}
	session, err := d.publishing.For(ctx, d.place(places.Region), role(places.Role(asset.Role)))
	if err != nil {
		return images.Destination{}, err
	}
	d.warn(session.Warning)
	return images.Destination{
		Name: asset.DisplayName, Repository: places.Replace(asset.Repository), Tag: places.Replace(asset.Tag), Session: session.Role, AWS: session.Config,
	}, nil
}

func (d *deployment) imageBuild(s *selection, g group, asset assembly.ImageAsset) images.Build {
	return images.Build{
		ID: asset.ID, Name: asset.DisplayName, Source: asset.Source, Assembly: s.assembly.Dir, App: path.Join(worker.SourceDir, g.app),
		Env: map[string]string{"AWS_REGION": d.target.Region, "AWS_ACCOUNT": d.target.Account, "APHEX_ENVIRONMENT": d.target.Name},
	}
}

// push sends the images to where they are missing and returns how many were
// sent; the others had arrived meanwhile.
func (d *deployment) push(ctx context.Context, found *pictures) (int, error) {
	sent := 0
	var mu sync.Mutex
	sending, sendCtx := errgroup.WithContext(ctx)
	sending.SetLimit(imagesAtOnce)
	for _, one := range found.missing {
		for _, to := range one.to {
			sending.Go(func() error {
				pushed, err := found.registry.Push(sendCtx, one.image, to)
				if err != nil {
					return err
				}
				if !pushed {
					d.say("image %s is already at %s", one.build.Name, to)
					return nil
				}
				d.say("image %s published to %s", one.build.Name, to)
				mu.Lock()
				defer mu.Unlock()
				sent++
				return nil
			})
		}
	}
	err := sending.Wait()
	return sent, err
}
