package revision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

// writeAttempts bounds the conditional writes of one update. A conflict means
// that another environment of the same pipeline was recorded at this moment;
// five in a row would need five other writers.
const writeAttempts = 5

// State is what is known of one environment.
type State struct {
	// Commit is the last commit whose deployment began.
	Commit string `json:"commit"`
	// Run is the name of the Workflow that deployed it.
	Run string `json:"run"`
	// RunUID is that Workflow's UID.
	RunUID string `json:"runUID"`
	// Phase is "deploying" from before the first write to the end, then
	// "deployed".
	Phase string `json:"phase"`
	// At is when Phase was entered, in UTC.
	At time.Time `json:"at"`
}

// The phases of an environment.
const (
	Deploying = "deploying"
	Deployed  = "deployed"
)

// Pipeline is the key under which the revision of the pipeline's own template
// is kept, beside those of the environments.
const Pipeline = pipeline.Own

// Ancestry answers questions about the commit graph.
type Ancestry interface {
	// IsAncestor reports whether ancestor is reachable from descendant. The
	// error wraps fault.CommitUnknown if the repository lacks one of them.
	IsAncestor(ctx context.Context, ancestor, descendant string) (bool, error)
}

// configMaps is what the guard needs of the Kubernetes API.
type configMaps interface {
	ConfigMap(ctx context.Context, namespace, name string) (*kube.ConfigMap, error)
	CreateConfigMap(ctx context.Context, cm *kube.ConfigMap) (*kube.ConfigMap, error)
	UpdateConfigMap(ctx context.Context, cm *kube.ConfigMap) (*kube.ConfigMap, error)
}

// Guard keeps the state of one pipeline's environments. It is safe for
// concurrent use, also by several processes.
type Guard struct {
	kube                configMaps
	namespace, pipeline string
	now                 func() time.Time
}

// New returns the guard of a pipeline in a namespace.
func New(k configMaps, namespace, pipeline string) *Guard {
	return &Guard{kube: k, namespace: namespace, pipeline: pipeline, now: time.Now}
}

// Decision is the guard's answer.
type Decision struct {
	// Superseded says that the environment must be passed over.
	Superseded bool
	// Previous is what the environment had; the zero State if nothing.
	Previous State
	// Note is a sentence for the log when the decision is not the plain one.
	Note string
}

// Check says whether commit may be deployed to environment. It may not if it
// is a proper ancestor of the commit there, unless allowOlder. A commit that
// the repository no longer has (rewritten history) does not block.
func (g *Guard) Check(ctx context.Context, git Ancestry, environment, commit string, allowOlder bool) (Decision, error) {
	state, err := g.State(ctx, environment)
	if err != nil {
		return Decision{}, err
	}
	d := Decision{Previous: state}
	if state.Commit == "" || state.Commit == commit {
		return d, nil
	}
	older, err := git.IsAncestor(ctx, commit, state.Commit)
	switch {
	case errors.Is(err, &fault.Fault{Reason: fault.CommitUnknown}):
		d.Note = fmt.Sprintf("%s holds commit %.12s, which the repository no longer has: history was rewritten, going on", environment, state.Commit)
		return d, nil
	case err != nil:
		return Decision{}, fmt.Errorf("compare with the commit deployed to %s: %w", environment, err)
	}
	if older && allowOlder {
		d.Note = fmt.Sprintf("going back from commit %.12s to the older %.12s, as allow-older asks", state.Commit, commit)
		return d, nil
	}
	d.Superseded = older
	return d, nil
}

// State returns what is known of an environment; the zero State if nothing.
func (g *Guard) State(ctx context.Context, environment string) (State, error) {
	cm, err := g.kube.ConfigMap(ctx, g.namespace, g.name())
	if errors.Is(err, kube.ErrNotFound) {
		return State{}, nil
	}
	if err != nil {
		return State{}, g.fault(err)
	}
	return g.decode(cm, environment)
}

// Enter records that run (name and UID) deploys commit to environment, in the
// given phase. Deploying must be recorded before the first write, so that an
// older commit can no longer overwrite what this one begins. expected is the
// State the decision was made on; if the environment has moved since, the
// error has reason StackBusy and nothing is written.
func (g *Guard) Enter(ctx context.Context, environment string, expected, next State) error {
	next.At = g.now().UTC()
	for range writeAttempts {
		err := g.tryEnter(ctx, environment, expected, next)
		if errors.Is(err, kube.ErrConflict) || errors.Is(err, kube.ErrExists) {
			continue
		}
		return err
	}
	return fault.Newf(fault.Transient, fault.KubernetesRejected, "record the revision of "+environment,
		"Retry the run", "%d conditional writes of ConfigMap %s/%s in a row met a conflict", writeAttempts, g.namespace, g.name())
}

func (g *Guard) tryEnter(ctx context.Context, environment string, expected, next State) error {
	value, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encode revision: %w", err)
	}
	cm, err := g.kube.ConfigMap(ctx, g.namespace, g.name())
	if errors.Is(err, kube.ErrNotFound) {
		_, err = g.kube.CreateConfigMap(ctx, &kube.ConfigMap{
			Namespace: g.namespace, Name: g.name(),
			Labels: map[string]string{pipeline.LabelPipeline: g.pipeline, "app.kubernetes.io/managed-by": "aphex"},
			Data:   map[string]string{environment: string(value)},
		})
		return g.fault(err)
	}
	if err != nil {
		return g.fault(err)
	}
	current, err := g.decode(cm, environment)
	if err != nil {
		return err
	}
	if current.Commit != expected.Commit && current.RunUID != next.RunUID {
		return fault.Newf(fault.Transient, fault.StackBusy, "record the revision of "+environment,
			"Wait for that run, then retry this one",
			"run %s began to deploy commit %.12s meanwhile", current.Run, current.Commit)
	}
	cm.Data[environment] = string(value)
	_, err = g.kube.UpdateConfigMap(ctx, cm)
	return g.fault(err)
}

func (g *Guard) name() string { return "aphex-state-" + g.pipeline }

func (g *Guard) decode(cm *kube.ConfigMap, environment string) (State, error) {
	var s State
	text, ok := cm.Data[environment]
	if !ok {
		return s, nil
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, fault.Newf(fault.User, fault.KubernetesRejected, "read the revision of "+environment,
			"Mend or delete that entry; without it the next run deploys whatever commit it has",
			"ConfigMap %s/%s holds no valid JSON under %q: %w", g.namespace, g.name(), environment, err)
	}
	return s, nil
}

// fault gives API errors the guard's context; conflicts pass through to the
// retry.
func (g *Guard) fault(err error) error {
	if err == nil || errors.Is(err, kube.ErrConflict) || errors.Is(err, kube.ErrExists) {
		return err
	}
	return kube.Fault(fmt.Sprintf("keep revisions in ConfigMap %s/%s", g.namespace, g.name()), err,
		"Apply the manifests of this version: the plugin's service account needs get, create and update on configmaps",
		"Retry the run when the API server is back")
}
