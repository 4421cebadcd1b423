package pipeline

import "time"

// Version is the only version of the configuration format.
const Version = "1.0"

// DefaultFile is the configuration's path inside a repository unless told
// otherwise.
const DefaultFile = "aphex-config.yaml"

// DefaultArtifacts is the folder that build publishes unless build.artifacts
// names another.
const DefaultArtifacts = "artifacts/"

// The values of Config.SelfModification.
const (
	// SelfModificationNextRun is the default: a run goes on with the topology
	// it started with, and the next one has the new.
	SelfModificationNextRun = "next-run"
	// SelfModificationSameRun lets a run that changed the topology hand its
	// environments over to a successor that has the new one.
	SelfModificationSameRun = "same-run"
)

// Config is a valid pipeline configuration with its defaults filled in.
//
// It comes from Load and is read-only afterwards; it is safe for concurrent
// reading.
type Config struct {
	// Version is always "1.0".
	Version string `yaml:"version"`
	// Build is the build stage.
	Build Build `yaml:"build"`
	// Environments are the environments in the order they are deployed. Names
	// are unique; there is at least one.
	Environments []Environment `yaml:"environments"`
	// Tools are programs the worker image must provide, checked by validate.
	Tools []string `yaml:"tools,omitempty"`
	// Worker is the container that runs the user's commands.
	Worker Worker `yaml:"worker,omitempty"`
	// Argo says where the Argo UI is.
	Argo Argo `yaml:"argo,omitempty"`
	// Cache is what builds keep from one run to the next.
	Cache []Cache `yaml:"cache,omitempty"`
	// Notifications are the channels that hear of the end of a run.
	Notifications []Notification `yaml:"notifications,omitempty"`
	// SelfModification is when a change of the topology takes effect.
	SelfModification string `yaml:"selfModification,omitempty"`
	// AllowedSecrets are the texts that look like secrets and that comments of
	// the file allow, by position.
	AllowedSecrets []AllowedSecret `yaml:"-"`
}

// Build is what the build stage does.
type Build struct {
	// Commands run in order in the worker. Working directory and exported
	// variables carry over from one to the next.
	Commands []string `yaml:"commands"`
	// Timeout ends the stage; 0 means the stage's default.
	Timeout time.Duration `yaml:"timeout,omitempty"`
	// Artifacts is a folder relative to the source root, slash-separated and
	// inside the repository, whose files are published.
	Artifacts string `yaml:"artifacts,omitempty"`
	// Env are variables of every build command. Values are not secret.
	Env map[string]string `yaml:"env,omitempty"`
	// Secrets are variables of every build command by their name; the values are
	// references as internal/secretref reads them.
	Secrets map[string]string `yaml:"secrets,omitempty"`
	// Credentials gives the build commands short-lived AWS credentials.
	Credentials bool `yaml:"credentials,omitempty"`
	// Snapshot is what later stages see of the build.
	Snapshot Snapshot `yaml:"snapshot,omitempty"`
}

// Snapshot selects, by patterns of paths, what of the build's changes later
// stages see.
type Snapshot struct {
	// Exclude is left out.
	Exclude []string `yaml:"exclude,omitempty"`
	// Include is kept although it looks like a secret.
	Include []string `yaml:"include,omitempty"`
}

// Cache is files and folders that one build makes and a later one may find.
type Cache struct {
	// Paths are relative to the source root or, with "~/" before them, to HOME
	// of the commands; slash-separated, at least one.
	Paths []string `yaml:"paths"`
	// Key are files of the commit, relative to the source root: a build finds
	// what another one with the same content of them kept. At least one.
	Key []string `yaml:"key"`
}

// Environment is an account and region with the stacks deployed to it.
type Environment struct {
	// Name is a lower-case DNS label of at most 40 characters, unique in the
	// configuration. It becomes part of node names and object keys.
	Name string `yaml:"name"`
	// Region is an AWS region such as "eu-west-1".
	Region string `yaml:"region"`
	// Account is an AWS account id: exactly 12 digits.
	Account string `yaml:"account"`
	// Stacks are deployed in this order; at least one.
	Stacks []Stack `yaml:"stacks"`
	// Tests run after the last stack; nil if the environment has none.
	Tests *Tests `yaml:"tests,omitempty"`
	// Timeout ends the environment's deploy stage; 0 means the stage's
	// default.
	Timeout time.Duration `yaml:"timeout,omitempty"`
	// RoleARN is the role to deploy with, in Account; empty means the bootstrap
	// roles that the assembly names.
	RoleARN string `yaml:"roleArn,omitempty"`
	// ExternalID goes with RoleARN; empty for none.
	ExternalID string `yaml:"externalId,omitempty"`
	// Concurrency is how many stacks of one app are deployed at the same time,
	// 1 to 32; 0 means 1: one after the other, in the order of Stacks.
	Concurrency int `yaml:"concurrency,omitempty"`
	// ImportExistingResources takes resources that exist already under the name
	// a stack gives them into the stack.
	ImportExistingResources bool `yaml:"importExistingResources,omitempty"`
	// OnFailedStack is what happens to a stack that an earlier deployment left
	// in a failed state: empty for an error, or OnFailedStackRollback.
	OnFailedStack string `yaml:"onFailedStack,omitempty"`
	// Context is CDK context for this environment, as JSON values: string,
	// float64 or int, bool, nil, []any, map[string]any.
	Context map[string]any `yaml:"context,omitempty"`
	// RequiredContext are context keys that must have a value before synth.
	RequiredContext []string `yaml:"requiredContext,omitempty"`
}

// OnFailedStackRollback rolls a paused stack back and then deploys it.
const OnFailedStackRollback = "rollback"

// Stack names one stack of a CDK app.
type Stack struct {
	// Name is matched against hierarchical ids, then stack names.
	Name string `yaml:"name"`
	// Path is a file or folder relative to the source root, slash-separated
	// and inside the repository; the app is the nearest folder at or above it
	// that holds cdk.json.
	Path string `yaml:"path"`
	// Timeout ends the deployment of this stack; 0 means no other limit than
	// the environment's.
	Timeout time.Duration `yaml:"timeout,omitempty"`
	// OnEmpty is what happens to a stack in the account that has no resources
	// in the app any more: empty for an error, or OnEmptyDelete.
	OnEmpty string `yaml:"onEmpty,omitempty"`
}

// OnEmptyDelete deletes a stack that has no resources in the app any more.
const OnEmptyDelete = "delete"

// Tests is what the test stage of an environment does.
type Tests struct {
	// Commands run in order in the worker with the stack outputs at hand.
	Commands []string `yaml:"commands,omitempty"`
	// Timeout ends the stage; 0 means the stage's default.
	Timeout time.Duration `yaml:"timeout,omitempty"`
	// Reports are patterns of paths relative to the source root: the test
	// reports (JUnit XML) that the commands write.
	Reports []string `yaml:"reports,omitempty"`
}

// Worker is the container that runs the user's commands.
type Worker struct {
	// Image is a pinned image reference; empty means the installation's
	// default. It holds only characters that are safe inside a pod patch.
	Image string `yaml:"image,omitempty"`
	// Resources are the container's requests and limits.
	Resources Resources `yaml:"resources,omitempty"`
}

// Resources are quantities by resource name (cpu, memory,
// ephemeral-storage), each in Kubernetes' notation.
type Resources struct {
	// Requests is what the scheduler reserves.
	Requests map[string]string `yaml:"requests,omitempty"`
	// Limits is what the container may use at most.
	Limits map[string]string `yaml:"limits,omitempty"`
}

// Argo says where the Argo UI is.
type Argo struct {
	// URL is the base of links to runs, http or https; empty for no links.
	URL string `yaml:"url,omitempty"`
}

// Environment returns the environment of that name; ok is false if there is
// none.
func (c *Config) Environment(name string) (env Environment, ok bool) {
	for _, e := range c.Environments {
		if e.Name == name {
			return e, true
		}
	}
	return Environment{}, false
}

// The kinds of channels.
const (
	NotifySlack   = "slack"
	NotifyGitHub  = "github"
	NotifyWebhook = "webhook"
	NotifySNS     = "sns"
)

// The ends of a run that can be announced.
const (
	EventSucceeded = "succeeded"
	EventFailed    = "failed"
	// EventDeferred is a run that succeeded while a change of the pipeline
	// itself failed, or waits for the next run.
	EventDeferred = "deferred"
)

// Notification is one channel. The JSON names are those of the generated
// WorkflowTemplate.
type Notification struct {
	// Type is one of the Notify constants.
	Type string `yaml:"type" json:"type"`
	// Target is the ARN of a topic for NotifySNS, else a reference to what has
	// the address or token: "secretsmanager:" or "ssm:", a name and perhaps
	// "#" and a field.
	Target string `yaml:"target" json:"target"`
	// Events are the Event constants that are announced; empty for all.
	Events []string `yaml:"events,omitempty" json:"events,omitempty"`
	// Environments limits the channel to runs that got as far as one of these;
	// empty for all runs.
	Environments []string `yaml:"environments,omitempty" json:"environments,omitempty"`
}
