package task

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"log/slog"
)

// Stage names, as they stand in step bodies and records.
const (
	StageValidate       = "validate"
	StageBuild          = "build"
	StageDeployPipeline = "deploy-pipeline"
	StageDeployEnv      = "deploy-env"
	StageTest           = "test"
	StageFinish         = "finish"
	// StageNoop does nothing. It is in no generated template; measurements
	// use it.
	StageNoop = "noop"
)

// Output parameters, as declared by the generated template. Every stage also
// has OutputLogURL, which the plugin itself fills in.
const (
	// OutputProceed of validate is "true", or "false" if this run ended itself
	// in favour of a replacement. All later stages are conditional on it.
	OutputProceed = "proceed"
	// OutputArtifactPath of build is the s3:// prefix of the run's artifacts.
	OutputArtifactPath = "artifact-path"
	// OutputSnapshot of build is the s3:// URL of the workspace snapshot.
	OutputSnapshot = "snapshot"
	// OutputTopology of deploy-pipeline is the digest it applied. Nothing may
	// reference it: the stage is allowed to fail.
	OutputTopology = "topology"
	// OutputDeployed of deploy-env is "true", or "false" if the environment
	// was passed over. The environment's test stage is conditional on it.
	OutputDeployed = "deployed"
	// OutputStacks of deploy-env is the environment's stack outputs as JSON in
	// the shape of `cdk deploy --outputs-file`; empty if too large.
	OutputStacks = "stack-outputs"
	// OutputStacksURL of deploy-env is the s3:// URL of the same document.
	OutputStacksURL = "stack-outputs-url"
	// OutputResult of test is "passed".
	OutputResult = "result"
	// OutputRecord of finish is the s3:// URL of the run record.
	OutputRecord = "record"
	// OutputLogURL of every stage is the s3:// URL of its complete log.
	OutputLogURL = "log-url"
	// OutputMessage is the message of a stage that has a pod of its own: Argo
	// gives such a node a message only if it fails.
	OutputMessage = "message"
)

// Outputs returns the output parameters a stage declares, in a fixed order.
func Outputs(stage string) []string {
	switch stage {
	case StageValidate:
		return []string{OutputProceed, OutputLogURL}
	case StageBuild:
		return []string{OutputArtifactPath, OutputSnapshot, OutputLogURL}
	case StageDeployPipeline:
		return []string{OutputTopology, OutputLogURL}
	case StageDeployEnv:
		return []string{OutputDeployed, OutputStacks, OutputStacksURL, OutputLogURL}
	case StageTest:
		return []string{OutputResult, OutputLogURL}
	case StageFinish:
		return []string{OutputRecord, OutputLogURL}
	}
	return nil
}

// Run identifies the Workflow a stage belongs to.
type Run struct {
	Namespace string
	Name      string
	// UID is the Workflow's UID: unique over all runs, stable over retries.
	UID string
	// Epoch separates the tries of one run: it changes with every `argo retry`
	// (the Workflow's status.startedAt in RFC 3339, UTC). Never empty.
	Epoch string
}

// Request is one attempt at one stage. It is data only: everything in it
// comes from the step body and the RPC.
type Request struct {
	Run Run
	// Stage is one of the Stage constants.
	Stage string
	// Node is the Argo node name, such as "shop-x7k2p.deploy-dev".
	Node string
	// Attempt counts from 0 where the template has a retry strategy.
	Attempt int
	// Pipeline is the pipeline's name, unique in a cluster.
	Pipeline string
	// Environment is the environment's name for deploy-env and test, else empty.
	Environment string
	// Topology is the digest of the topology this run was created with.
	Topology string
	// ConfigPath is the configuration's path inside the repository.
	ConfigPath string
	// RepoURL, Commit and Branch are the run's arguments as given, unchecked.
	RepoURL, Commit, Branch string
	// Predecessor is the UID of the run whose build this one takes over; empty
	// for a run that builds itself.
	Predecessor string
	// AllowOlder lets an older commit overwrite a newer one.
	AllowOlder bool
	// Force publishes assets and deploys stacks again that seem to be as
	// wanted; for deploy-env only.
	Force bool
	// Notifications are the channels that hear of the run's end, as
	// notify.Plan.Encode wrote them; set for finish only, empty for none.
	Notifications string
	// WorkflowStatus is the run's status so far; set for finish only
	// ("Succeeded", "Failed", "Error").
	WorkflowStatus string
}

// Key identifies the execution: run, node, attempt and epoch. Equal keys are
// the same attempt asked for again. Hash it before use in a name.
func (r *Request) Key() string {
	b, err := json.Marshal([]any{r.Run.UID, r.Node, r.Attempt, r.Run.Epoch})
	if err != nil { // strings and ints always marshal
		panic(err)
	}
	return string(b)
}

// BuiltBy is the UID of the run whose build, and so whose snapshot, this run
// has: its own, unless it is a successor.
func (r *Request) BuiltBy() string { return cmp.Or(r.Predecessor, r.Run.UID) }

// Result is what a stage that ended well hands on.
type Result struct {
	// Message is the node message: one paragraph, never empty.
	Message string
	// Outputs are output parameters by name. Every output the generated
	// template declares for the stage must be present, empty if unknown.
	Outputs map[string]string
	// Reason qualifies a good end that is not the ordinary one, such as
	// fault.Superseded; empty otherwise.
	Reason string
}

// Env is what a stage may use of its surroundings while it runs.
type Env struct {
	// Output receives the user-visible log of the stage, live. Safe for
	// concurrent use; whole lines are never torn apart.
	Output io.Writer
	// Logger is for the operator. Never nil.
	Logger *slog.Logger
	// Progress replaces the stage's running message ("dev: deploying
	// shop-api (2/3)"). Cheap; may be called often.
	Progress func(message string)
	// Effects records what is about to be done to the outside.
	Effects Effects
}

// Effects is the stage's part of the journal: small facts that must survive
// the process, written before the act they announce.
type Effects interface {
	// Put stores value (JSON) under name for this execution and returns when
	// it is durable. Names are [a-z0-9-]{1,63}, values at most 4 KiB.
	Put(ctx context.Context, name string, value []byte) error
	// Get returns the value stored under name by this execution, by whichever
	// process. ok is false if there is none.
	Get(ctx context.Context, name string) (value []byte, ok bool, err error)
	// Earlier returns what other executions of the same stage and environment
	// of the run, those of earlier tries, stored under name; oldest first.
	Earlier(ctx context.Context, name string) ([][]byte, error)
}

// Runner is one stage.
//
// Run must be safe to call again with the same Request after the process died
// at any point: effects happen once. It must return soon after ctx ends. A
// failure is returned as an error (a *fault.Fault when it is the user's to
// mend), never as a Result.
type Runner interface {
	Run(ctx context.Context, req Request, env Env) (Result, error)
}

// RunnerFunc makes a function a Runner.
type RunnerFunc func(ctx context.Context, req Request, env Env) (Result, error)

// Run calls f.
func (f RunnerFunc) Run(ctx context.Context, req Request, env Env) (Result, error) {
	return f(ctx, req, env)
}

// Registry maps stage names to runners. It is filled once, in the composition
// root, and only read afterwards.
type Registry map[string]Runner
