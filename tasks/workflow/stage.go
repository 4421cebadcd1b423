package workflow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/handover"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/revision"
	"github.com/aphex-pipeline/aphex/internal/workspace"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// cluster is what the stage needs of internal/kube.
type cluster interface {
	ConfigMap(ctx context.Context, namespace, name string) (*kube.ConfigMap, error)
	WorkflowTemplate(ctx context.Context, namespace, name string) (*unstructured.Unstructured, error)
	Apply(ctx context.Context, obj *unstructured.Unstructured, opts kube.ApplyOptions) (kube.Change, error)
}

// checkout is what the stage needs of internal/workspace.
type checkout interface {
	Prepare(ctx context.Context, src workspace.Source, out io.Writer) error
	File(ctx context.Context, path string) ([]byte, error)
	IsAncestor(ctx context.Context, ancestor, descendant string) (bool, error)
}

// guard keeps older commits from overwriting what newer ones made of the
// pipeline.
type guard interface {
	Check(ctx context.Context, git revision.Ancestry, environment, commit string, allowOlder bool) (revision.Decision, error)
	Enter(ctx context.Context, environment string, expected, next revision.State) error
}

// successors hands runs over.
type successors interface {
	Begin(ctx context.Context, run handover.Run) (name string, err error)
}

var (
	_ cluster    = (*kube.Client)(nil)
	_ successors = (*handover.Handover)(nil)
)

// Config is what the deploy-pipeline stage is made of. All fields are
// required.
type Config struct {
	Kube       cluster
	Workspace  checkout
	Guard      guard
	Successors successors
	Apps       Apps
}

// Stage is the deploy-pipeline stage: it makes the pipeline in the cluster
// what the run's commit says, for the runs to come. This run keeps the nodes
// it was created with, or hands its environments over to a successor.
type Stage struct{ cfg Config }

// NewStage returns the deploy-pipeline stage.
func NewStage(cfg Config) *Stage { return &Stage{cfg: cfg} }

var _ task.Runner = (*Stage)(nil)

// Run deploys the CDK app of the pipeline's own, if the run's commit has one,
// and then generates the WorkflowTemplate from the commit and applies it. Doing
// it again changes nothing. What the template needs is there before it, and an
// app that fails leaves the template as it is.
//
// Errors: those of the workspace, ConfigMissing, ConfigInvalid,
// InstallationMissing, those of Apps, and KubernetesRejected, also for a
// template that belongs to another pipeline or fields that belong to somebody
// else. None of them ends the run: it goes on with the nodes it has.
func (s *Stage) Run(ctx context.Context, req task.Request, env task.Env) (task.Result, error) {
	w, err := s.wanted(ctx, req, env)
	if err != nil {
		return task.Result{}, err
	}
	decision, err := s.cfg.Guard.Check(ctx, s.cfg.Workspace, revision.Pipeline, req.Commit, req.AllowOlder)
	if err != nil {
		return task.Result{}, err
	}
	if decision.Superseded {
		return superseded(req, decision.Previous), nil
	}
	current, err := s.current(ctx, req)
	if err != nil {
		return task.Result{}, err
	}
	infra, err := s.deployInfra(ctx, req, env, w, decision.Previous)
	if err != nil {
		return task.Result{}, err
	}
	if err := s.enter(ctx, req, decision.Previous, revision.Deployed); err != nil {
		return task.Result{}, err
	}
	before, err := remember(ctx, env.Effects, current)
	if err != nil {
		return task.Result{}, err
	}
	env.Progress("applying the pipeline")
	change, err := s.apply(ctx, req, w.manifest)
	if err != nil {
		return task.Result{}, err
	}
	digest := pipeline.TopologyDigest(w.config)
	message, reason := describe(req, change, before, w.config), ""
	if digest != req.Topology {
		reason = string(fault.TopologyDeferred)
	}
	if w.config.SelfModification == pipeline.SelfModificationSameRun && digest != req.Topology {
		env.Progress("handing over to a run of the new topology")
		successor, err := s.cfg.Successors.Begin(ctx, handover.Run{Namespace: req.Run.Namespace, Name: req.Run.Name, UID: req.Run.UID, Pipeline: req.Pipeline})
		if err != nil {
			return task.Result{}, err
		}
		message = fmt.Sprintf("WorkflowTemplate %s %s, topology %s in this run, %s in run %s: handed over to it, the environments are passed over here",
			req.Pipeline, change, short(req.Topology), short(digest), successor)
		reason = string(fault.HandedOver)
	}
	if infra != "" {
		message = infra + "; " + message
	}
	if _, err := fmt.Fprintln(env.Output, message); err != nil {
		return task.Result{}, fmt.Errorf("write the log: %w", err)
	}
	return task.Result{Message: message, Reason: reason, Outputs: map[string]string{task.OutputTopology: digest}}, nil
}

// wanted is the pipeline as the commit and its installation want it.
type wanted struct {
	config   *pipeline.Config
	region   string
	manifest []byte
}

// wanted reads what the pipeline is to be.
func (s *Stage) wanted(ctx context.Context, req task.Request, env task.Env) (wanted, error) {
	source := workspace.Source{RepoURL: req.RepoURL, Commit: req.Commit, Branch: req.Branch}
	if err := s.cfg.Workspace.Prepare(ctx, source, env.Output); err != nil {
		return wanted{}, err
	}
	cfg, err := pipeline.Read(ctx, s.cfg.Workspace, req.ConfigPath)
	if err != nil {
		return wanted{}, err
	}
	inst, err := s.installation(ctx, req)
	if err != nil {
		return wanted{}, err
	}
	manifest, err := Generate(cfg, inst)
	if err != nil {
		return wanted{}, fault.Wrap(fault.User, fault.ConfigInvalid, "generate the pipeline",
			"Mend the configuration or the pipeline's installation", err)
	}
	return wanted{config: cfg, region: inst.Region, manifest: manifest}, nil
}

// superseded is the result of a commit that is older than the one which has
// defined the pipeline.
func superseded(req task.Request, by revision.State) task.Result {
	return task.Result{
		Message: fmt.Sprintf("commit %.12s is older than %.12s, by which run %s defined the pipeline; it was left as it is (allow-older=true goes back on purpose)",
			req.Commit, by.Commit, by.Run),
		Reason: string(fault.Superseded), Outputs: map[string]string{task.OutputTopology: req.Topology},
	}
}

// enter records that this commit is about to define the pipeline.
func (s *Stage) enter(ctx context.Context, req task.Request, previous revision.State, phase string) error {
	return s.cfg.Guard.Enter(ctx, revision.Pipeline, previous, revision.State{
		Commit: req.Commit, Run: req.Run.Name, RunUID: req.Run.UID, Phase: phase,
	})
}

// installation reads the pipeline's settings from its ConfigMap and sees that
// they are those of this pipeline in this namespace.
func (s *Stage) installation(ctx context.Context, req task.Request) (pipeline.Installation, error) {
	name := pipeline.InstallationName(req.Pipeline)
	op := fmt.Sprintf("read the installation of pipeline %s from ConfigMap %s/%s", req.Pipeline, req.Run.Namespace, name)
	const remedy = "Apply the ConfigMap with key " + pipeline.InstallationKey + ", see manifests/samples"
	object, err := s.cfg.Kube.ConfigMap(ctx, req.Run.Namespace, name)
	if errors.Is(err, kube.ErrNotFound) {
		return pipeline.Installation{}, fault.Wrap(fault.User, fault.InstallationMissing, op, remedy, err)
	}
	if err != nil {
		return pipeline.Installation{}, rejected(op, err)
	}
	data, ok := object.Data[pipeline.InstallationKey]
	if !ok {
		return pipeline.Installation{}, fault.Newf(fault.User, fault.InstallationMissing, op, remedy, "it has no key %s", pipeline.InstallationKey)
	}
	inst, err := pipeline.LoadInstallation(pipeline.InstallationKey, []byte(data))
	if err != nil {
		return pipeline.Installation{}, fault.Wrap(fault.User, fault.ConfigInvalid, op, "Mend the ConfigMap", err)
	}
	if inst.Pipeline != req.Pipeline || inst.Namespace != req.Run.Namespace {
		return pipeline.Installation{}, fault.Newf(fault.User, fault.ConfigInvalid, op, "Mend the ConfigMap",
			"it describes pipeline %s in namespace %s, but this run is of pipeline %s in namespace %s",
			inst.Pipeline, inst.Namespace, req.Pipeline, req.Run.Namespace)
	}
	return inst, nil
}

// current returns the pipeline's template in the cluster, nil if there is
// none. One that is not this pipeline's is left alone.
func (s *Stage) current(ctx context.Context, req task.Request) (*unstructured.Unstructured, error) {
	op := fmt.Sprintf("read WorkflowTemplate %s/%s", req.Run.Namespace, req.Pipeline)
	object, err := s.cfg.Kube.WorkflowTemplate(ctx, req.Run.Namespace, req.Pipeline)
	if errors.Is(err, kube.ErrNotFound) {
		return nil, nil //nolint:nilnil // no template is an ordinary answer
	}
	if err != nil {
		return nil, rejected(op, err)
	}
	if owner := object.GetLabels()[pipeline.LabelPipeline]; owner != req.Pipeline {
		return nil, fault.Newf(fault.User, fault.KubernetesRejected, op,
			"Rename or delete it, or give this pipeline another name",
			"it is not this pipeline's: its label %s is %q, not %q", pipeline.LabelPipeline, owner, req.Pipeline)
	}
	return object, nil
}

// apply makes the cluster's template what manifest says. A template first
// made with kubectl, by `kubectl apply` of the same generated file, is taken
// over; anybody else's fields are a conflict.
func (s *Stage) apply(ctx context.Context, req task.Request, manifest []byte) (kube.Change, error) {
	object, err := kube.ParseManifest(manifest)
	if err != nil {
		return "", fmt.Errorf("parse the generated WorkflowTemplate: %w", err)
	}
	change, err := s.cfg.Kube.Apply(ctx, object, kube.ApplyOptions{
		Owned: []string{"kubectl", "kubectl-client-side-apply", "kubectl-create"},
	})
	if err != nil {
		return "", rejected(fmt.Sprintf("apply WorkflowTemplate %s/%s", req.Run.Namespace, req.Pipeline), err)
	}
	return change, nil
}

// rejected makes a fault of an API server's refusal.
func rejected(op string, err error) error {
	switch {
	case errors.Is(err, kube.ErrForbidden):
		return fault.Wrap(fault.User, fault.KubernetesRejected, op,
			"Give the service account aphex-executor-plugin the rights in manifests/base", err)
	case errors.Is(err, kube.ErrConflict):
		return fault.Wrap(fault.User, fault.KubernetesRejected, op,
			"Remove the other manager's fields from the object, or delete it: the next run makes it anew", err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fault.Wrap(fault.Transient, fault.KubernetesRejected, op, "Retry the run", err)
}

// state is the pipeline as it was before the apply.
type state struct {
	// Topology is the template's digest, empty if there was no template.
	Topology string `json:"topology"`
	// Nodes are the names of its environments' nodes.
	Nodes []string `json:"nodes"`
}

// effectBefore is the effect that keeps the state before the first apply, so
// that a second one, after the process died, still tells what changed.
const effectBefore = "before"

// maxEffect is the limit of an effect's value. A larger state is not kept:
// the message of a resumed execution is then less exact.
const maxEffect = 4096

// remember returns the state before this execution's first apply.
func remember(ctx context.Context, effects task.Effects, current *unstructured.Unstructured) (state, error) {
	if value, ok, err := effects.Get(ctx, effectBefore); err != nil {
		return state{}, fmt.Errorf("read the state before the apply: %w", err)
	} else if ok {
		var before state
		if err := json.Unmarshal(value, &before); err != nil {
			return state{}, fmt.Errorf("decode the state before the apply: %w", err)
		}
		return before, nil
	}
	var before state
	if current != nil {
		before = state{Topology: current.GetAnnotations()[pipeline.AnnotationTopology], Nodes: environmentNodes(current)}
	}
	value, err := json.Marshal(before)
	if err != nil {
		return state{}, fmt.Errorf("encode the state before the apply: %w", err)
	}
	if len(value) <= maxEffect {
		if err := effects.Put(ctx, effectBefore, value); err != nil {
			return state{}, fmt.Errorf("keep the state before the apply: %w", err)
		}
	}
	return before, nil
}

// describe says what the apply did and what it means for this run and the
// next.
func describe(req task.Request, change kube.Change, before state, cfg *pipeline.Config) string {
	after := pipeline.TopologyDigest(cfg)
	text := fmt.Sprintf("WorkflowTemplate %s %s", req.Pipeline, change)
	if after == req.Topology {
		return text + ", topology unchanged (" + short(after) + ")"
	}
	text += fmt.Sprintf(", topology %s in this run, %s from the next", short(req.Topology), short(after))
	switch before.Topology {
	case req.Topology:
	case after:
		return text + "; the template has it already, by an earlier try of this run or another run"
	default:
		return text + "; the template was changed by somebody else after this run started"
	}
	var now []string
	for _, node := range pipeline.Topology(cfg) {
		if node.Environment != "" {
			now = append(now, node.Name())
		}
	}
	added, removed := without(now, before.Nodes), without(before.Nodes, now)
	if len(added) > 0 {
		text += "; added, waits for the next run: " + strings.Join(added, ", ")
	}
	if len(removed) > 0 {
		text += "; removed, passed over in this run: " + strings.Join(removed, ", ")
	}
	if len(added)+len(removed) == 0 {
		text += "; the same stages in another order, which the next run follows"
	}
	return text
}

// short is a digest as people compare it.
func short(digest string) string {
	const shown = len("sha256:") + 12
	if len(digest) <= shown {
		return digest
	}
	return digest[:shown]
}

// without returns the names that others does not have.
func without(names, others []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(others, name) })
}

// environmentNodes reads the names of the environments' nodes from a template
// that Generate made: those whose step body names an environment.
func environmentNodes(template *unstructured.Unstructured) []string {
	steps, _, _ := unstructured.NestedSlice(template.Object, "spec", "templates")
	var names []string
	for _, step := range steps {
		fields, ok := step.(map[string]any)
		if !ok {
			continue
		}
		name, _, _ := unstructured.NestedString(fields, "name")
		environment, _, _ := unstructured.NestedString(fields, "plugin", "aphex", "environment")
		args, _, _ := unstructured.NestedStringSlice(fields, "container", "args")
		isEnvironment := func(arg string) bool { return strings.HasPrefix(arg, argEnvironment) }
		if environment != "" || slices.ContainsFunc(args, isEnvironment) {
			names = append(names, name)
		}
	}
	return names
}
