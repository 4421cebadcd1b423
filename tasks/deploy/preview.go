package deploy

import (
	"context"
	"fmt"
	"slices"

	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/assets"
	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/cfn"
	"github.com/aphex-pipeline/aphex/internal/count"
	"github.com/aphex-pipeline/aphex/internal/diff"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// PreviewRequest asks what deploying an environment would change.
type PreviewRequest struct {
	// Environment is the configured one.
	Environment pipeline.Environment
	// Artifacts is the configured folder of the build's artifacts.
	Artifacts string
	// Stacks are the configured names of those to look at; empty for all.
	Stacks []string
	// Owner is whose preview it is: what a killed preview of the same owner
	// left behind is removed. Two of one owner must not run at once.
	Owner string
	// ChangeSets asks CloudFormation as well, by change sets that are never
	// executed and always removed.
	ChangeSets bool
}

// preview is one call of Preview.
type preview struct {
	*deployment

	request PreviewRequest
	// readers are the look-up roles that were proved.
	readers map[string]awsauth.Session
}

// Preview synthesizes the apps of an environment as its deployment would, and
// compares the stacks with those that are there. Of cfg it needs Synth and
// Base. Without PreviewRequest.ChangeSets it writes nothing, and assumes the
// look-up roles of the assembly alone; a stack without one that can be assumed
// is read as it would be deployed, which is said.
//
// Errors: those of synth, of assembly.Resolve, awsauth, assets and cfn;
// EnvironmentMismatch and whatever else a deployment refuses before its first
// write; StackUnknown for a request of a stack that is not configured.
func Preview(ctx context.Context, cfg Config, request PreviewRequest, env task.Env) ([]diff.Stack, error) {
	p := &preview{request: request, readers: map[string]awsauth.Session{}, deployment: &deployment{
		stage: New(cfg), env: env, target: request.Environment, artifacts: request.Artifacts,
		req: task.Request{Pipeline: "local", Run: task.Run{Name: "diff"}, Stage: "diff"},
	}}
	for _, name := range request.Stacks {
		if !slices.ContainsFunc(p.target.Stacks, func(s pipeline.Stack) bool { return s.Name == name }) {
			return nil, fault.Newf(fault.User, fault.StackUnknown, "preview "+p.target.Name, "Name a stack that the configuration lists for the environment",
				"stack %q is not one of environment %s", name, p.target.Name)
		}
	}
	groups, err := p.groups(ctx)
	if err != nil {
		return nil, err
	}
	defer p.removeAssemblies()
	if err := p.identify(ctx); err != nil {
		return nil, err
	}
	known := map[string]*selection{}
	var out []diff.Stack
	for _, g := range groups {
		s, ok := known[g.app]
		if !ok {
			if s, err = p.synthesize(ctx, g); err != nil {
				return nil, err
			}
			known[g.app] = s
		}
		for _, wanted := range g.stacks {
			if len(request.Stacks) > 0 && !slices.Contains(request.Stacks, wanted.Name) {
				continue
			}
			stack, err := p.stack(ctx, s, s.stacks[wanted.Name])
			if err != nil {
				return nil, err
			}
			out = append(out, stack)
		}
	}
	return out, nil
}

// identify finds out who we are. A role is assumed only for change sets.
func (p *preview) identify(ctx context.Context) error {
	if p.request.ChangeSets {
		return p.login(ctx)
	}
	base, err := p.stage.cfg.Base(ctx)
	if err != nil {
		return err
	}
	p.sessions = awsauth.NewSessions(base, awsauth.SessionName(p.req.Pipeline, p.req.Run.Name, p.req.Stage))
	p.warned = map[string]bool{}
	p.caller, err = p.sessions.Caller(ctx)
	return err
}

// synthesize makes the assembly of an app and finds its stacks in it.
func (p *preview) synthesize(ctx context.Context, g group) (*selection, error) {
	dir, err := p.stage.cfg.Synth.Synth(ctx, SynthRequest{
		Environment: p.target, App: g.app, Stacks: namesOf(g.all), Artifacts: p.artifacts, ID: p.request.Owner + " " + p.target.Name + " " + g.app,
	}, p.env.Output)
	if err != nil {
		return nil, err
	}
	p.dirs = append(p.dirs, dir)
	built, err := assembly.Load(dir)
	if err != nil {
		return nil, err
	}
	s, stacks, err := p.choose(built, g)
	if err != nil || !p.request.ChangeSets {
		return s, err
	}
	return s, p.proveStacks(ctx, s, stacks)
}

// reader returns the credentials a stack is read with: those of its look-up
// role, else those it is deployed with.
func (p *preview) reader(ctx context.Context, s *selection, stack *assembly.Stack) (awsauth.Session, error) {
	if stack.LookupRole == nil {
		p.warn(fmt.Sprintf("stack %s names no look-up role: it is read with what deploys it", stack))
		return p.session(ctx, s, stack)
	}
	lookup := s.places.Role(stack.LookupRole)
	key := fmt.Sprint(lookup.ARN, lookup.ExternalID)
	if session, ok := p.readers[key]; ok {
		return session, nil
	}
	session, why, err := p.lookup(ctx, lookup)
	if err != nil {
		return awsauth.Session{}, err
	}
	if why == "" {
		p.readers[key] = session
		return session, nil
	}
	p.warn(fmt.Sprintf("look-up role %s is of no use (%s): stacks are read with what deploys them", lookup.ARN, why))
	return p.session(ctx, s, stack)
}

// lookup assumes a look-up role and checks that the bootstrap gave it the
// rights to read; why says why it is of no use otherwise.
func (p *preview) lookup(ctx context.Context, lookup *assembly.Role) (session awsauth.Session, why string, err error) {
	session, err = p.sessions.For(ctx, p.place(p.target.Region), role(lookup))
	switch {
	case err != nil && fault.From(err).Reason == fault.RoleDenied:
		return session, fault.From(err).Err.Error(), nil
	case err != nil:
		return session, "", err
	case session.Role == "":
		return session, session.Warning, nil
	}
	r := assets.Requirement{Version: lookup.Bootstrap.Version, Parameter: lookup.Bootstrap.Parameter}
	err = assets.CheckBootstrap(ctx, session.Config, p.target.Account, r, func(ctx context.Context) (string, bool, error) {
		return p.deployer(session, nil).Output(ctx, assets.ToolkitStack, "BootstrapVersion")
	})
	if err != nil && (ctx.Err() != nil || fault.From(err).Class == fault.Transient) {
		return session, "", err
	}
	if err != nil {
		why = err.Error() // the role is of no use: not the end of the preview
	}
	return session, why, nil
}

func (p *preview) previewer(session awsauth.Session) *cfn.Previewer {
	return cfn.NewPreviewer(cfn.Config{
		Budget: p.stage.budgets.For(p.target.Account, session.Config.Region),
		AWS:    session.Config, Account: p.target.Account, TemplateEndpoint: p.stage.cfg.TemplateEndpoint,
		OnNote: func(text string) { p.say("%s", text) },
	})
}

// stack compares one stack.
func (p *preview) stack(ctx context.Context, s *selection, stack *assembly.Stack) (diff.Stack, error) {
	p.env.Progress(fmt.Sprintf("%s: comparing %s", p.target.Name, stack.Name))
	session, err := p.reader(ctx, s, stack)
	if err != nil {
		return diff.Stack{}, err
	}
	c := &compared{
		reader: p.previewer(session), assembly: s.assembly, stack: stack, paths: s.assembly.Resources(stack),
		deletes: s.configured[stack].OnEmpty == pipeline.OnEmptyDelete,
		out: diff.Stack{
			Environment: p.target.Name, Account: p.target.Account, Region: p.target.Region, Name: stack.Name, Path: stack.HierarchicalID,
			Changes: []diff.Change{}, Security: []diff.Security{},
		},
	}
	if err := c.compare(ctx); err != nil {
		return diff.Stack{}, err
	}
	if p.request.ChangeSets {
		if err := p.ask(ctx, s, stack, c); err != nil {
			return diff.Stack{}, err
		}
	}
	return c.out, nil
}

// ask asks CloudFormation about one stack, with the credentials that would
// deploy it.
func (p *preview) ask(ctx context.Context, s *selection, stack *assembly.Stack, c *compared) error {
	session, err := p.session(ctx, s, stack)
	if err != nil {
		return err
	}
	in := p.input(s, stack, c.template)
	in.Execution = p.request.Owner
	if in.TemplateURL, err = p.upload(ctx, s, stack, c); err != nil {
		return err
	}
	found, err := p.previewer(session).Preview(ctx, in)
	if err != nil {
		return err
	}
	changes := make([]diff.ResourceInput, 0, len(found.Changes))
	for _, change := range found.Changes {
		r := diff.ResourceInput{ID: change.LogicalID, Type: change.Type, ResourceChange: diff.ResourceChange{
			Action: change.Action, Replacement: change.Replacement, PolicyAction: change.PolicyAction, Scope: change.Scope, PhysicalID: change.PhysicalID,
		}}
		for _, d := range change.Details {
			r.Details = append(r.Details, diff.ResourceDetail{
				Attribute: d.Attribute, Path: d.Path, RequiresRecreation: d.RequiresRecreation,
				Evaluation: d.Evaluation, Source: d.Source, Cause: d.Cause, Before: d.Before, After: d.After,
			})
		}
		changes = append(changes, r)
	}
	c.out = c.out.AddChangeSet(diff.ChangeSet{Status: diff.ChangeSetStatus(found.Status), Reason: found.Reason}, changes, c.old, c.wanted)
	return nil
}

// upload publishes the templates that CloudFormation can only read from a
// bucket, those of nested stacks and one too large for a request, and returns
// the URL of the latter; empty to send the template in the request.
func (p *preview) upload(ctx context.Context, s *selection, stack *assembly.Stack, c *compared) (string, error) {
	_, inline := cfn.Inline(c.template)
	wanted := slices.Clone(c.nestedFiles)
	if !inline {
		wanted = append(wanted, stack.TemplateFile)
	}
	if len(wanted) == 0 {
		return "", nil
	}
	stacks := []*assembly.Stack{stack}
	all, err := p.files(ctx, s, stacks)
	if err != nil {
		return "", err
	}
	files := slices.DeleteFunc(all, func(f assets.File) bool { return !slices.Contains(wanted, f.Path) })
	if !inline {
		large, err := p.templates(ctx, s, stacks)
		if err != nil {
			return "", err
		}
		files = append(files, large...)
	}
	summary, err := p.publish(ctx, s, stacks, files)
	if err != nil {
		return "", err
	}
	p.say("%s: %s uploaded for CloudFormation to read, %d already there", stack.Name, count.Of(summary.Published, "template"), summary.Present)
	if inline {
		return "", nil
	}
	return s.templateURL(stack), nil
}
