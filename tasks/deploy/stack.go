package deploy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/assets"
	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/cfn"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// login finds out who we are and, if the environment names a role, takes it.
func (d *deployment) login(ctx context.Context) error {
	base, err := d.stage.cfg.Base(ctx)
	if err != nil {
		return err
	}
	base = d.calls.Attach(base)
	name := awsauth.SessionName(d.req.Pipeline, d.req.Run.Name, d.req.Stage)
	d.sessions = awsauth.NewSessions(base, name)
	d.publishing = d.sessions
	d.warned = map[string]bool{}
	d.outputs, d.outcomes = map[string]map[string]string{}, map[string]cfn.Outcome{}
	if d.caller, err = d.sessions.Caller(ctx); err != nil {
		return err
	}
	if d.target.RoleARN == "" {
		return nil
	}
	session, err := d.sessions.For(ctx, d.place(d.target.Region), d.configuredRole())
	if err != nil {
		return err
	}
	d.warn(session.Warning)
	d.publishing = awsauth.NewSessions(session.Config, name)
	return nil
}

func (d *deployment) configuredRole() *awsauth.Role {
	return &awsauth.Role{ARN: d.target.RoleARN, ExternalID: d.target.ExternalID, Chosen: true}
}

func (d *deployment) place(region string) awsauth.Target {
	return awsauth.Target{Environment: d.target.Name, Account: d.target.Account, Region: region}
}

// warn says each warning once.
func (d *deployment) warn(text string) {
	if text == "" {
		return
	}
	d.mu.Lock()
	known := d.warned[text]
	d.warned[text] = true
	d.mu.Unlock()
	if known {
		return
	}
	d.say("warning: %s", text)
}

// session returns the credentials a stack is deployed with: the role of the
// configuration, else the deploy role of the assembly, else our own.
func (d *deployment) session(ctx context.Context, s *selection, stack *assembly.Stack) (awsauth.Session, error) {
	wanted := role(s.places.Role(stack.DeployRole))
	if d.target.RoleARN != "" {
		wanted = d.configuredRole()
	}
	session, err := d.sessions.For(ctx, d.place(d.target.Region), wanted)
	if err != nil {
		return awsauth.Session{}, err
	}
	d.warn(session.Warning)
	return session, nil
}

// proveStacks proves credentials and bootstrap of every stack, and that no two
// apps deploy one stack.
func (d *deployment) proveStacks(ctx context.Context, s *selection, stacks []*assembly.Stack) error {
	checked := map[string]bool{}
	for _, stack := range stacks {
		if _, twice := d.outputs[stack.Name]; twice {
			return fault.Newf(fault.User, fault.StackAmbiguous, "deploy "+d.target.Name, "Give the stacks different names, or list one of them",
				"two apps of the environment define stack %s", stack.Name)
		}
		session, err := d.session(ctx, s, stack)
		if err != nil {
			return err
		}
		for _, r := range requirements(stack) {
			key := fmt.Sprintf("%s %d %s", session.Role, r.Version, r.Parameter)
			if checked[key] {
				continue
			}
			checked[key] = true
			toolkit := d.deployer(session, nil)
			err := assets.CheckBootstrap(ctx, session.Config, d.target.Account, r, func(ctx context.Context) (string, bool, error) {
				return toolkit.Output(ctx, assets.ToolkitStack, "BootstrapVersion")
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// deployer returns what deploys with a session; what is said about the stack
// is kept in said, which may be nil.
func (d *deployment) deployer(session awsauth.Session, said *events) *cfn.Deployer {
	return cfn.New(cfn.Config{
		Budget: d.stage.budgets.For(d.target.Account, session.Config.Region),
		AWS:    session.Config, Account: d.target.Account, Journal: d.env.Effects, TemplateEndpoint: d.stage.cfg.TemplateEndpoint,
		OnNote: func(text string) { d.say("%s", text) },
		OnEvent: func(e cfn.Event) {
			d.event(e)
			if said != nil {
				said.add(e)
			}
		},
	})
}

// event writes one line per event: time, environment, stack, status, type,
// logical id, construct path and, if CloudFormation gives one, the reason.
func (d *deployment) event(e cfn.Event) {
	var line strings.Builder
	fmt.Fprintf(&line, "%s %s %s %s %s %s", e.Time.UTC().Format(time.TimeOnly), d.target.Name, e.Stack, e.Status, e.Type, e.LogicalID)
	if e.Path != "" {
		fmt.Fprintf(&line, " (%s)", e.Path)
	}
	if e.Reason != "" {
		fmt.Fprintf(&line, ": %s", e.Reason)
	}
	if _, err := fmt.Fprintln(d.env.Output, line.String()); err != nil {
		d.env.Logger.Warn("log line lost", "err", err)
	}
}

// input is everything about a stack that CloudFormation is told.
func (d *deployment) input(s *selection, stack *assembly.Stack, template []byte) cfn.Input {
	resources := s.assembly.Resources(stack)
	return cfn.Input{
		StackName: stack.Name, Template: template, TemplateURL: s.templateURL(stack),
		Tags: stack.Tags, RoleARN: s.places.Replace(stack.ExecutionRoleARN), NotificationARNs: stack.NotificationARNs,
		TerminationProtection: stack.TerminationProtection, Execution: d.req.Key(), Force: d.req.Force, ImportExisting: d.target.ImportExistingResources,
		RollBackPaused: d.target.OnFailedStack == pipeline.OnFailedStackRollback, DeleteEmpty: s.configured[stack].OnEmpty == pipeline.OnEmptyDelete,
		ConstructPath: resources.Path, Source: sourceIn(resources),
	}
}

// limited ends ctx when the time that the configuration gives a stack is used
// up.
func (d *deployment) limited(ctx context.Context, s *selection, stack *assembly.Stack) (context.Context, context.CancelFunc) {
	limit := s.configured[stack].Timeout
	if limit == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, limit, fault.Newf(fault.User, fault.StackTimeout, fmt.Sprintf("deploy stack %s (%s)", stack.Name, d.target.Region),
		"Raise the timeout of the stack, or find out what took so long", "the stack's time of %s is used up (environments[].stacks[].timeout)", limit))
}

// timedOut reports whether the time of the stack, or of all of them, is used up.
func timedOut(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return errors.Is(cause, &fault.Fault{Reason: fault.StackTimeout}) || errors.Is(cause, &fault.Fault{Reason: fault.StageTimeout})
}

// deployStack deploys one stack; several may be under way at a time.
func (d *deployment) deployStack(ctx context.Context, s *selection, stack *assembly.Stack) error {
	ctx, cancel := d.limited(ctx, s, stack)
	defer cancel()
	session, err := d.session(ctx, s, stack)
	if err != nil {
		return err
	}
	template, err := s.assembly.ReadFile(stack.TemplateFile)
	if err != nil {
		return err
	}
	began, said := d.stage.now(), newEvents()
	defer d.storeEvents(ctx, stack.Name, said)
	result, err := d.deployer(session, said).Deploy(ctx, d.input(s, stack, template))
	if ctx.Err() == nil || err == nil || timedOut(ctx) { // else it goes on without us
		d.mu.Lock()
		d.ended = append(d.ended, Deployment{Stack: stack.Name, Succeeded: err == nil, Began: began, Ended: d.stage.now()})
		d.mu.Unlock()
	}
	if err != nil {
		return err
	}
	for _, warning := range result.Warnings {
		d.say("%s: warning: %s", stack.Name, warning)
	}
	d.say("%s %s in %s", stack.Name, result.Outcome, seconds(d.stage.now().Sub(began)))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.outputs[stack.Name], d.outcomes[stack.Name] = result.Outputs, result.Outcome
	return nil
}

// sourceIn returns the lines of the app that made resources, in files relative
// to the checkout.
func sourceIn(resources *assembly.Resources) func(logicalIDs ...string) string {
	return func(logicalIDs ...string) string {
		line := resources.Source(logicalIDs...)
		if _, inside, ok := strings.Cut(line, "/"+worker.SourceDir+"/"); ok {
			return inside
		}
		return line
	}
}
