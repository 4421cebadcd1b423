package deploy

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/assets"
	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/revision"
)

// group is a run of configured stacks of one app.
type group struct {
	app    string
	stacks []pipeline.Stack
	// all is every stack of the app in the environment.
	all []pipeline.Stack
	// whole says that the group is every stack the app defines; stacks and all
	// are empty then.
	whole bool
}

// namesOf lists the configured names of stacks.
func namesOf(stacks []pipeline.Stack) []string {
	out := make([]string, len(stacks))
	for i, stack := range stacks {
		out[i] = stack.Name
	}
	return out
}

// groups finds the app of every stack, in configured order.
func (d *deployment) groups(ctx context.Context) ([]group, error) {
	var out []group
	all := map[string][]pipeline.Stack{}
	for _, stack := range d.target.Stacks {
		app, err := d.stage.cfg.Synth.FindApp(ctx, stack.Path)
		if err != nil {
			return nil, err
		}
		all[app] = append(all[app], stack)
		if n := len(out); n > 0 && out[n-1].app == app {
			out[n-1].stacks = append(out[n-1].stacks, stack)
			continue
		}
		out = append(out, group{app: app, stacks: []pipeline.Stack{stack}})
	}
	for i := range out {
		out[i].all = all[out[i].app]
	}
	return out, nil
}

// selection is an app's assembly with the stacks to deploy, by configured
// name.
type selection struct {
	assembly *assembly.Assembly
	stacks   map[string]*assembly.Stack
	// configured is what the configuration says about each of them.
	configured map[*assembly.Stack]pipeline.Stack
	places     assembly.Placeholders
	// uploaded are the URLs of templates that are no assets and too large for
	// a request, by hierarchical id.
	uploaded map[string]string
}

// deployGroup synthesizes the app when its turn has come, publishes its assets
// and deploys the stacks.
func (d *deployment) deployGroup(ctx context.Context, g group, known map[string]*selection) error {
	selected, ok := known[g.app]
	if !ok {
		var err error
		if selected, _, err = d.prepare(ctx, g); err != nil {
			return err
		}
		known[g.app] = selected
	}
	stacks := make([]*assembly.Stack, len(g.stacks))
	for i, stack := range g.stacks {
		stacks[i] = selected.stacks[stack.Name]
	}
	return d.deployAll(ctx, selected, stacks)
}

// prepare does everything for an app that comes before its first stack. All
// that only reads comes first, so that what is wrong shows before anything is
// written.
func (d *deployment) prepare(ctx context.Context, g group) (*selection, []*assembly.Stack, error) {
	built, err := d.assembly(ctx, g)
	if err != nil {
		return nil, nil, err
	}
	s, stacks, err := d.choose(built, g)
	if err != nil {
		return nil, nil, err
	}
	files, err := d.prove(ctx, s, stacks)
	if err != nil {
		return nil, nil, err
	}
	templates, err := d.templates(ctx, s, stacks)
	if err != nil {
		return nil, nil, err
	}
	files = append(files, templates...)
	found, err := d.images(ctx, s, g, stacks)
	defer found.close(d)
	if err != nil {
		return nil, nil, err
	}
	if err := d.enter(ctx, revision.Deploying); err != nil {
		return nil, nil, err
	}
	return s, stacks, d.publishAll(ctx, s, stacks, files, found)
}

// prove proves the credentials of stacks and assets at the same time, and the
// bootstrap. What is wrong with the stacks is told first.
func (d *deployment) prove(ctx context.Context, s *selection, stacks []*assembly.Stack) ([]assets.File, error) {
	var wg sync.WaitGroup
	var files []assets.File
	var filesErr error
	wg.Go(func() { files, filesErr = d.files(ctx, s, stacks) })
	err := d.proveStacks(ctx, s, stacks)
	wg.Wait()
	if err != nil {
		return nil, err
	}
	return files, filesErr
}

// choose finds the stacks to deploy in an app's assembly and refuses what must
// not or cannot be deployed.
func (d *deployment) choose(built *assembly.Assembly, g group) (*selection, []*assembly.Stack, error) {
	for _, warning := range built.Warnings {
		d.say("warning: %s", warning)
	}
	stacks, err := g.pick(built)
	if err != nil {
		return nil, nil, err
	}
	s := &selection{
		assembly: built, stacks: map[string]*assembly.Stack{}, configured: map[*assembly.Stack]pipeline.Stack{}, uploaded: map[string]string{},
		places: assembly.Placeholders{Partition: d.caller.Partition, Account: d.target.Account, Region: d.target.Region},
	}
	for i, stack := range g.all {
		s.stacks[stack.Name], s.configured[stacks[i]] = stacks[i], stack
	}
	return s, stacks, d.check(built, stacks)
}

// publish uploads files that are not there yet.
func (d *deployment) publish(ctx context.Context, s *selection, stacks []*assembly.Stack, files []assets.File) (assets.Summary, error) {
	publisher := assets.New(s.assembly.Dir, d.target.Account, func(text string) { d.say("%s", text) })
	if d.req.Force {
		publisher.Force()
	}
	publisher.AllowForeign(func(ctx context.Context) (bool, error) {
		session, err := d.session(ctx, s, stacks[0])
		if err != nil {
			return false, err
		}
		return assets.ForeignBucketsAllowed(ctx, func(ctx context.Context, key string) (string, bool, error) {
			return d.deployer(session, nil).Output(ctx, assets.ToolkitStack, key)
		})
	})
	return publisher.Publish(ctx, files)
}

// check refuses what must not or cannot be deployed.
func (d *deployment) check(built *assembly.Assembly, stacks []*assembly.Stack) error {
	op := "deploy " + d.target.Name
	if len(built.Missing) > 0 {
		keys := make([]string, 0, len(built.Missing))
		for _, m := range built.Missing {
			keys = append(keys, m.Key)
		}
		return fault.Newf(fault.User, fault.ContextMissing, op, "Run `cdk synth` with credentials of the account and commit cdk.context.json",
			"the app needs context that nobody has, its templates hold dummy values: %s", strings.Join(keys, ", "))
	}
	for _, s := range stacks {
		if err := d.checkStack(op, s); err != nil {
			return err
		}
	}
	return nil
}

func (d *deployment) checkStack(op string, s *assembly.Stack) error {
	if messages := s.Errors(); len(messages) > 0 {
		texts := make([]string, 0, len(messages))
		for _, m := range messages {
			texts = append(texts, m.Path+": "+m.Text)
		}
		return fault.Newf(fault.User, fault.SynthAnnotation, op, "Mend what the app reports", "the app reports errors on stack %s: %s", s, strings.Join(texts, "; "))
	}
	if s.Account != "" && s.Account != d.target.Account || s.Region != "" && s.Region != d.target.Region {
		remedy := "Take account and region in the app from CDK_DEFAULT_ACCOUNT and CDK_DEFAULT_REGION"
		if d.target.Name != pipeline.Own {
			remedy += ", or correct the environment in the configuration"
		}
		return fault.Newf(fault.User, fault.EnvironmentMismatch, op, remedy,
			"stack %s is bound to account %s, region %s, but the environment is account %s, region %s",
			s, orAny(s.Account), orAny(s.Region), d.target.Account, d.target.Region)
	}
	if len(s.LegacyAssets) > 0 {
		return fault.Newf(fault.User, fault.AssemblyInvalid, op, "Use the default stack synthesizer", "stack %s has an asset of CDK version 1: %s", s, s.LegacyAssets[0])
	}
	return nil
}

func orAny(s string) string {
	if s == "" {
		return "(any)"
	}
	return s
}

func appName(dir string) string {
	if dir == "" || dir == "." {
		return "the app"
	}
	return dir
}

// files turns the stacks' file assets into what the publisher takes, with the
// credentials of each destination.
func (d *deployment) files(ctx context.Context, s *selection, stacks []*assembly.Stack) ([]assets.File, error) {
	var out []assets.File
	for _, stack := range stacks {
		for _, f := range stack.Files() {
			path, contentType := f.Path, ""
			if f.Packaging == assembly.PackagingExecutable {
				path, contentType = f.ProducedPath(), "application/zip"
				if _, err := os.Stat(filepath.Join(s.assembly.Dir, filepath.FromSlash(path))); err != nil {
					return nil, fault.Newf(fault.User, fault.AssetFailed, "publish asset "+f.DisplayName, "Let the app itself be synthesized by aphex: it runs the program then",
						"the program of asset %s of stack %s (%s) has made no file", f.DisplayName, stack, strings.Join(f.Executable, " "))
				}
			}
			region := s.places.Replace(f.Region)
			if region == "" {
				region = d.target.Region
			}
			places := s.places
			places.Region = region
			session, err := d.publishing.For(ctx, d.place(region), role(places.Role(f.Role)))
			if err != nil {
				return nil, err
			}
			d.warn(session.Warning)
			out = append(out, assets.File{
				ID: f.ID, Name: f.DisplayName, Path: path, Zip: f.Packaging == assembly.PackagingZip, ContentType: contentType,
				Bucket: places.Replace(f.Bucket), Key: places.Replace(f.Key), AWS: session.Config,
			})
		}
	}
	return out, nil
}

func role(r *assembly.Role) *awsauth.Role {
	if r == nil {
		return nil
	}
	return &awsauth.Role{ARN: r.ARN, ExternalID: r.ExternalID, Options: r.Options}
}

// requirements are the distinct demands of a stack on the bootstrap.
func requirements(s *assembly.Stack) []assets.Requirement {
	var out []assets.Requirement
	add := func(b assembly.Bootstrap) {
		r := assets.Requirement{Version: b.Version, Parameter: b.Parameter}
		if r.Version > 0 && !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	add(s.Bootstrap)
	for _, m := range s.Assets {
		add(m.Bootstrap)
	}
	return out
}
