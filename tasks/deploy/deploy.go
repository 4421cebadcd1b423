package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/aphex-pipeline/aphex/internal/awsauth"
	"github.com/aphex-pipeline/aphex/internal/awscalls"
	"github.com/aphex-pipeline/aphex/internal/cfn"
	"github.com/aphex-pipeline/aphex/internal/count"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/handover"
	"github.com/aphex-pipeline/aphex/internal/outputs"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/revision"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/workspace"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// DefaultTimeout ends the deployment of an environment that does not say
// otherwise.
const DefaultTimeout = time.Hour

// maxOutputsParameter is how large the outputs document may be as an output
// parameter. Argo keeps parameters in the Workflow object, which etcd limits;
// a larger document is in the bucket only.
const maxOutputsParameter = 30 << 10

// checkout is what the stage needs of internal/workspace.
type checkout interface {
	Prepare(ctx context.Context, src workspace.Source, out io.Writer) error
	File(ctx context.Context, path string) ([]byte, error)
	Reset(ctx context.Context, key string, out io.Writer) error
	IsAncestor(ctx context.Context, ancestor, descendant string) (bool, error)
}

// Synthesizer turns the checkout into cloud assemblies.
type Synthesizer interface {
	// FindApp returns the folder of the CDK app that a configured stack path
	// belongs to, relative to the source root.
	FindApp(ctx context.Context, path string) (string, error)
	// Synth runs an app and returns the folder of its assembly, which nobody
	// else changes and the caller removes. What the app prints goes to out.
	Synth(ctx context.Context, req SynthRequest, out io.Writer) (dir string, err error)
}

// SynthRequest asks for the assembly of one app.
type SynthRequest struct {
	// Environment is what the app is synthesized for.
	Environment pipeline.Environment
	// App is a folder as FindApp returns it.
	App string
	// Stacks are the configured names of the stacks that will be deployed.
	Stacks []string
	// Artifacts is the configured folder of the build's artifacts.
	Artifacts string
	// Outputs is the folder of the worker's tree with the stack outputs of what
	// the run has deployed before; empty for none.
	Outputs string
	// ID is unique per execution and app.
	ID string
}

// bucket is what the stage needs of internal/store.
type bucket interface {
	Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error)
	Get(ctx context.Context, key string) (io.ReadCloser, store.Object, error)
}

// Guard keeps older commits from overwriting newer ones.
type Guard interface {
	Check(ctx context.Context, git revision.Ancestry, environment, commit string, allowOlder bool) (revision.Decision, error)
	Enter(ctx context.Context, environment string, expected, next revision.State) error
}

// EventRecorder keeps the events of stacks.
type EventRecorder interface {
	PutEvents(ctx context.Context, e record.Events) error
}

// Successors tells of runs that left their environments to a successor.
type Successors interface {
	Successor(ctx context.Context, run handover.Run) (name string, err error)
}

// verifier makes sure that the artifacts are the published ones.
type verifier interface {
	Verify(ctx context.Context, uid, folder string, out io.Writer) error
}

// Config is what the stage is made of. Workspace, Synth, Store, Private and
// Base are required.
type Config struct {
	Workspace checkout
	Synth     Synthesizer
	Store     bucket
	// Private is a folder that no user code can reach, on the file system of
	// what Synth returns; assemblies are kept there while they are deployed.
	Private string
	// Guard is nil where no state is kept (aphex task): any commit is
	// deployed then.
	Guard Guard
	// Successors is nil where no cluster is (aphex task).
	Successors Successors
	// Base returns the process's own AWS identity, see awsauth.Base.
	Base func(ctx context.Context) (aws.Config, error)
	// Artifacts verifies the build's artifacts; nil for nobody.
	Artifacts verifier
	// Outputs gives the apps the stack outputs of earlier environments; nil for
	// nobody.
	Outputs OutputsWriter
	// Events keeps what CloudFormation says about each stack; nil for nobody.
	Events EventRecorder
	// Deployed is told of all stacks of the environment whose deployment has
	// ended, well or not, once; nil for nobody.
	Deployed func(ctx context.Context, req task.Request, stacks []Deployment) error
	// Images builds container images; nil for nobody.
	Images ImageBuilder
	// Hide is told of registry tokens, which no log may show; nil for nobody.
	Hide func(...string)
	// Redact hides secrets in what is kept; nil for as is. The log hides them
	// by itself.
	Redact func(string) string
	// TemplateEndpoint replaces the S3 endpoint CloudFormation reads templates
	// from; empty for the endpoint of Base, else AWS's own.
	TemplateEndpoint string
}

// Stage is the deploy-env stage.
type Stage struct {
	cfg Config
	now func() time.Time
	// budgets are shared by all executions in the process.
	budgets *cfn.Budgets
}

// New returns the deploy-env stage.
func New(cfg Config) *Stage { return &Stage{cfg: cfg, now: time.Now, budgets: &cfn.Budgets{}} }

var _ task.Runner = (*Stage)(nil)

// Run deploys one environment. An environment that the commit no longer has,
// that already has a newer commit, or of a run that was handed over to a
// successor, is passed over: deployed is "false" and the Result's Reason says
// why.
//
// Errors: those of the workspace, of synth, of assembly.Resolve, of awsauth,
// assets, images and cfn; EnvironmentMismatch; StageTimeout if the
// environment's timeout passed, StackTimeout if that of a stack did. A failure
// leaves later stacks untouched.
func (s *Stage) Run(ctx context.Context, req task.Request, env task.Env) (task.Result, error) {
	if s.cfg.Successors != nil {
		name, err := s.cfg.Successors.Successor(ctx, handover.Run{Namespace: req.Run.Namespace, Name: req.Run.Name, UID: req.Run.UID, Pipeline: req.Pipeline})
		if err != nil {
			return task.Result{}, err
		}
		if name != "" {
			return passedOver(fault.HandedOver, "%s: handed over to run %s, passed over here", req.Environment, name), nil
		}
	}
	if err := s.cfg.Workspace.Prepare(ctx, workspace.Source{RepoURL: req.RepoURL, Commit: req.Commit, Branch: req.Branch}, env.Output); err != nil {
		return task.Result{}, err
	}
	cfg, err := pipeline.Read(ctx, s.cfg.Workspace, req.ConfigPath)
	if err != nil {
		return task.Result{}, err
	}
	target, ok := cfg.Environment(req.Environment)
	if !ok {
		return passedOver(fault.TopologyChanged, "%s: commit %.12s no longer has this environment, it was passed over", req.Environment, req.Commit), nil
	}
	d := &deployment{stage: s, req: req, env: env, target: target, artifacts: cfg.Build.Artifacts, earlier: outputs.Before(cfg, target.Name), began: s.now(), total: len(target.Stacks)}
	d.enter = d.recordRevision
	superseded, err := d.checkRevision(ctx)
	if err != nil {
		return task.Result{}, err
	}
	if superseded != nil {
		return *superseded, nil
	}
	timeout := target.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	limited, cancel := context.WithTimeoutCause(ctx, timeout, fault.Newf(fault.User, fault.StageTimeout, "deploy "+target.Name,
		"Raise the timeout of the environment, or find out what took so long", "the environment's time of %s is used up (environments[].timeout)", timeout))
	defer cancel()
	defer d.report(ctx)
	defer func() { d.say("%s", &d.calls) }()
	return d.run(limited)
}

func passedOver(reason fault.Reason, format string, args ...any) task.Result {
	return task.Result{
		Message: fmt.Sprintf(format, args...),
		Reason:  string(reason),
		Outputs: map[string]string{task.OutputDeployed: "false", task.OutputStacks: "", task.OutputStacksURL: ""},
	}
}

// deployment is one call of Run or DeployApp.
type deployment struct {
	stage  *Stage
	req    task.Request
	env    task.Env
	target pipeline.Environment
	// artifacts is the configured folder.
	artifacts string
	// earlier is what the run may have deployed before.
	earlier []string
	began   time.Time

	// enter is told the phase of the deployment, Deploying before the first
	// write; it may be told twice.
	enter    func(ctx context.Context, phase string) error
	previous revision.State
	entered  bool

	sessions *awsauth.Sessions
	// publishing hands out the credentials of assets.
	publishing *awsauth.Sessions
	caller     awsauth.Identity
	// calls counts what AWS is asked.
	calls awscalls.Counter

	// used says that an app was synthesized since the last reset.
	used bool
	// dirs are the folders of assemblies.
	dirs []string
	// order are the names of the stacks as configured, count is how many have
	// begun, of total.
	order        []string
	count, total int

	// mu guards what several stacks write at a time.
	mu     sync.Mutex
	warned map[string]bool
	// ended are the stacks whose deployment has ended.
	ended []Deployment
	// outputs and outcomes are those of the stacks, by name.
	outputs  map[string]map[string]string
	outcomes map[string]cfn.Outcome
}

func (d *deployment) checkRevision(ctx context.Context) (*task.Result, error) {
	if d.stage.cfg.Guard == nil {
		return nil, nil //nolint:nilnil // nothing speaks against deploying
	}
	decision, err := d.stage.cfg.Guard.Check(ctx, d.stage.cfg.Workspace, d.target.Name, d.req.Commit, d.req.AllowOlder)
	if err != nil {
		return nil, err
	}
	d.previous = decision.Previous
	if decision.Note != "" {
		d.say("%s", decision.Note)
	}
	if !decision.Superseded {
		return nil, nil //nolint:nilnil // as above
	}
	result := passedOver(fault.Superseded, "%s: commit %.12s is older than %.12s, which run %s has brought here; passed over (set allow-older to go back on purpose)",
		d.target.Name, d.req.Commit, decision.Previous.Commit, decision.Previous.Run)
	return &result, nil
}

// recordRevision records the revision. The first call comes before the first
// write: from then on an older commit cannot overwrite what this one begins,
// even if this one fails half-way.
func (d *deployment) recordRevision(ctx context.Context, phase string) error {
	if d.stage.cfg.Guard == nil || d.entered && phase == revision.Deploying {
		return nil
	}
	next := revision.State{Commit: d.req.Commit, Run: d.req.Run.Name, RunUID: d.req.Run.UID, Phase: phase}
	if err := d.stage.cfg.Guard.Enter(ctx, d.target.Name, d.previous, next); err != nil {
		return err
	}
	d.previous, d.entered = next, true
	return nil
}

// reset makes the view that apps are synthesized from: exactly the commit and
// what the build made of it.
func (d *deployment) reset(ctx context.Context) error {
	d.used = false
	if err := d.stage.cfg.Workspace.Reset(ctx, record.SnapshotKey(d.req.BuiltBy()), d.env.Output); err != nil {
		return err
	}
	if d.stage.cfg.Artifacts == nil {
		return nil
	}
	return d.stage.cfg.Artifacts.Verify(ctx, d.req.BuiltBy(), d.artifacts, d.env.Output)
}

func (d *deployment) run(ctx context.Context) (task.Result, error) {
	if err := d.reset(ctx); err != nil {
		return task.Result{}, err
	}
	groups, err := d.groups(ctx)
	if err != nil {
		return task.Result{}, err
	}
	defer d.removeAssemblies()
	if err := d.login(ctx); err != nil {
		return task.Result{}, err
	}
	assemblies := map[string]*selection{}
	for _, g := range groups {
		if err := d.deployGroup(ctx, g, assemblies); err != nil {
			return task.Result{}, err
		}
	}
	if err := d.enter(ctx, revision.Deployed); err != nil {
		return task.Result{}, err
	}
	return d.finish(ctx)
}

// finish stores the outputs and makes the result.
func (d *deployment) finish(ctx context.Context) (task.Result, error) {
	document, url, err := d.storeOutputs(ctx)
	if err != nil {
		return task.Result{}, err
	}
	if len(document) > maxOutputsParameter {
		document = ""
	}
	return task.Result{
		Message: d.summary(d.target.Name),
		Outputs: map[string]string{task.OutputDeployed: "true", task.OutputStacks: document, task.OutputStacksURL: url},
	}, nil
}

// storeOutputs keeps the outputs of the stacks in the bucket and returns them.
func (d *deployment) storeOutputs(ctx context.Context) (document, url string, err error) {
	text, err := outputsDocument(d.outputs)
	if err != nil {
		return "", "", err
	}
	object, err := d.stage.cfg.Store.Put(ctx, record.OutputsKey(d.req.Run.UID, d.target.Name), bytes.NewReader(text), store.PutOptions{ContentType: "application/json"})
	if err != nil {
		return "", "", fmt.Errorf("store the outputs of %s: %w", d.target.Name, err)
	}
	return string(text), object.URL, nil
}

// summary says what was deployed: "dev: 2 stacks in 3 s: a created, b unchanged; 12 AWS calls".
func (d *deployment) summary(what string) string {
	outcomes := make([]string, len(d.order))
	for i, stack := range d.order {
		outcomes[i] = fmt.Sprintf("%s %s", stack, d.outcomes[stack])
	}
	return fmt.Sprintf("%s: %s in %s: %s; %s", what, count.Of(len(outcomes), "stack"), seconds(d.stage.now().Sub(d.began)), strings.Join(outcomes, ", "), count.Of(d.calls.Total(), "AWS call"))
}

// outputsDocument is JSON in the shape of `cdk deploy --outputs-file`: stack
// name, then key, then value.
func outputsDocument(outputs map[string]map[string]string) ([]byte, error) {
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(outputs); err != nil {
		return nil, fmt.Errorf("encode the stack outputs: %w", err)
	}
	return bytes.TrimRight(buf.Bytes(), "\n"), nil
}

// say writes a line to the stage's log. The log is beside the point of the
// work: a line that cannot be written does not stop it.
func (d *deployment) say(format string, args ...any) {
	if _, err := fmt.Fprintf(d.env.Output, "%s %s %s\n", d.stage.now().UTC().Format(time.TimeOnly), d.target.Name, fmt.Sprintf(format, args...)); err != nil {
		d.env.Logger.Warn("log line lost", "err", err)
	}
}

// seconds renders a duration as "12 s" or "3 min 5 s".
func seconds(d time.Duration) string {
	n := int(d.Round(time.Second).Seconds())
	if n < 60 {
		return fmt.Sprintf("%d s", n)
	}
	return fmt.Sprintf("%d min %d s", n/60, n%60)
}
