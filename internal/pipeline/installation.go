package pipeline

import (
	"cmp"
	"maps"
	"slices"
)

// Defaults of an Installation.
const (
	// DefaultBranch is the branch whose pushes start runs.
	DefaultBranch = "main"
	// DefaultControllerNamespace is where Argo's controller usually lives.
	DefaultControllerNamespace = "argo"
	// DefaultGitSecret is the Secret with keys username and password. It need
	// not exist: a public repository wants no credentials.
	DefaultGitSecret = "aphex-git"
	// DefaultServiceAccount is the service account runs use.
	DefaultServiceAccount = "aphex-workflow"
	// DefaultAudience is the audience AWS STS expects of a projected token.
	DefaultAudience = "sts.amazonaws.com"
	// DefaultPullPolicy is Kubernetes' own default for pinned images.
	DefaultPullPolicy = "IfNotPresent"
	// DefaultTTLDays keeps a finished Workflow long enough to be retried after
	// a long weekend; the records outlive it.
	DefaultTTLDays = 14
)

// The values of Installation.Runner.
const (
	// RunnerPlugin runs all stages of a run in its agent pod.
	RunnerPlugin = "plugin"
	// RunnerContainer runs each stage in a pod of its own.
	RunnerContainer = "container"
)

// The values of Installation.Nudge.
const (
	// NudgeOn makes the controller look at results at once.
	NudgeOn = "on"
	// NudgeOff leaves the controller to its own pace.
	NudgeOff = "off"
)

// The values of Images.Builder.
const (
	// BuilderAuto takes Docker where an engine answers, else Buildah.
	BuilderAuto = "auto"
	// BuilderDocker is the docker command, with an engine.
	BuilderDocker = "docker"
	// BuilderBuildah is buildah, without one.
	BuilderBuildah = "buildah"
)

// InstallationKey is the key of the installation's ConfigMap that holds it.
const InstallationKey = "installation.yaml"

// InstallationName returns the name of the ConfigMap that holds the
// installation of a pipeline.
func InstallationName(pipeline string) string { return "aphex-pipeline-" + pipeline }

// Installation is what a pipeline needs to know about its cluster and account
// that its repository does not say.
//
// It comes from LoadInstallation; one built by hand is completed by
// WithDefaults and checked by Validate. It is read-only afterwards.
type Installation struct {
	// Pipeline is the pipeline's name: a DNS label of at most 40 characters,
	// unique in the cluster. Required.
	Pipeline string `yaml:"pipeline"`
	// Namespace is where its runs live. It must not be the controller's own,
	// since every agent pod of the cluster would then get the plugin.
	// Required.
	Namespace string `yaml:"namespace"`
	// ControllerNamespace is the namespace of Argo's controller.
	ControllerNamespace string `yaml:"controllerNamespace,omitempty"`
	// Runner is RunnerPlugin or RunnerContainer; the latter is for clusters
	// whose controller does not run executor plugins.
	Runner string `yaml:"runner,omitempty"`
	// Nudge is NudgeOn or NudgeOff: whether the plugin changes an annotation
	// of its Workflow when a stage has ended, so that the controller goes on at
	// once. It means nothing with RunnerContainer.
	Nudge string `yaml:"nudge,omitempty"`
	// RepoURL is the repository's URL, http, https or ssh, without
	// credentials. Required.
	RepoURL string `yaml:"repoUrl"`
	// Branch is the branch whose pushes start runs.
	Branch string `yaml:"branch,omitempty"`
	// ConfigPath is the configuration's path inside the repository,
	// slash-separated.
	ConfigPath string `yaml:"configPath,omitempty"`
	// Bucket is the S3 bucket for artifacts, logs, records and snapshots.
	// Required.
	Bucket string `yaml:"bucket"`
	// BucketPrefix goes before every key; empty for none.
	BucketPrefix string `yaml:"bucketPrefix,omitempty"`
	// Region is the region of the bucket and of the base credentials.
	// Required.
	Region string `yaml:"region"`
	// EndpointURL replaces the endpoints of all AWS services: a VPC endpoint
	// or an emulator. Empty for AWS's own.
	EndpointURL string `yaml:"endpointUrl,omitempty"`
	// Images are the images of the agent pod.
	Images Images `yaml:"images"`
	// ImagePullPolicy is Always, IfNotPresent or Never.
	ImagePullPolicy string `yaml:"imagePullPolicy,omitempty"`
	// ImagePullSecrets are names of Secrets for private registries.
	ImagePullSecrets []string `yaml:"imagePullSecrets,omitempty"`
	// GitSecret is a Secret with keys username and password, mounted in the
	// sidecar alone. It may be missing from the cluster.
	GitSecret string `yaml:"gitSecret,omitempty"`
	// BuildSecrets are what build.secrets of the configuration may refer to:
	// references without "#" and what follows it. The Secrets of the namespace
	// among them are mounted in the sidecar alone; they may be missing from the
	// cluster. Empty for none.
	BuildSecrets []string `yaml:"buildSecrets,omitempty"`
	// ChannelSecrets are names of Secrets of the namespace that targets under
	// notifications of the configuration may refer to, mounted like those of
	// BuildSecrets and never given to commands. Empty for none.
	ChannelSecrets []string `yaml:"channelSecrets,omitempty"`
	// AWS says where the sidecar's base credentials come from.
	AWS AWSIdentity `yaml:"aws,omitempty"`
	// WorkerResources are the worker's requests and limits, by resource name;
	// the repository's worker.resources override them one by one.
	WorkerResources Resources `yaml:"workerResources,omitempty"`
	// WorkerEnv are variables of the worker's container that user commands
	// see, such as a proxy or a package mirror. Values are not secret.
	WorkerEnv map[string]string `yaml:"workerEnv,omitempty"`
	// ArtifactRepository is what Argo's server reads the bucket with. Naming
	// one lets the log panel of Argo's user interface show the stages' logs.
	ArtifactRepository ArtifactRepository `yaml:"artifactRepository,omitempty"`
	// ArgoURL is the base of links to runs; empty for no links. The
	// repository's argo.url overrides it.
	ArgoURL string `yaml:"argoUrl,omitempty"`
	// ServiceAccount is the service account of the runs.
	ServiceAccount string `yaml:"serviceAccount,omitempty"`
	// TTLDays is how many days a finished Workflow is kept, 1 to 365.
	TTLDays int `yaml:"ttlDays,omitempty"`
}

// Images are the images of the agent pod.
type Images struct {
	// Plugin is the image with the aphex binary. Required.
	Plugin string `yaml:"plugin"`
	// Worker is the toolchain of pipelines whose repository names no other.
	// Required.
	Worker string `yaml:"worker"`
	// Builder is the program that builds container image assets in the
	// worker: BuilderDocker or BuilderBuildah; empty is BuilderAuto.
	Builder string `yaml:"builder,omitempty"`
	// Rootless gives the worker what buildah needs to build without an
	// engine: user namespaces with more than one user. It widens what user
	// code may do; see docs/spec/images.md.
	Rootless bool `yaml:"rootless,omitempty"`
}

// ArtifactRepository names the entry of a ConfigMap that describes the
// pipeline's bucket to Argo (its artifactRepositoryRef). The zero value says
// that Argo's server cannot read the bucket: logs are then there, and in
// `aphex logs`, but not in Argo's log panel.
type ArtifactRepository struct {
	// ConfigMap is in the pipeline's namespace, or the controller's. Without
	// it, or without the key, Argo refuses to start runs.
	ConfigMap string `yaml:"configMap,omitempty"`
	// Key is the entry's; the pipeline's name by default.
	Key string `yaml:"key,omitempty"`
}

// AWSIdentity says where the sidecar's base credentials come from. The zero
// value leaves it to what the cluster attaches to the service account: IRSA
// or EKS Pod Identity.
type AWSIdentity struct {
	// RoleARN is the role to assume with the projected token. Required with
	// ProjectToken.
	RoleARN string `yaml:"roleArn,omitempty"`
	// Audience is the token's audience.
	Audience string `yaml:"audience,omitempty"`
	// ProjectToken mounts a token of the run's service account into the
	// sidecar for AssumeRoleWithWebIdentity: what clusters without the EKS
	// webhook need.
	ProjectToken bool `yaml:"projectToken,omitempty"`
}

// WithDefaults returns i with every optional field that is empty set to its
// default.
func (i Installation) WithDefaults() Installation {
	i.ControllerNamespace = cmp.Or(i.ControllerNamespace, DefaultControllerNamespace)
	i.Runner = cmp.Or(i.Runner, RunnerPlugin)
	i.Nudge = cmp.Or(i.Nudge, NudgeOn)
	i.Branch = cmp.Or(i.Branch, DefaultBranch)
	i.ConfigPath = cmp.Or(i.ConfigPath, DefaultFile)
	i.ImagePullPolicy = cmp.Or(i.ImagePullPolicy, DefaultPullPolicy)
	i.GitSecret = cmp.Or(i.GitSecret, DefaultGitSecret)
	i.AWS.Audience = cmp.Or(i.AWS.Audience, DefaultAudience)
	i.ServiceAccount = cmp.Or(i.ServiceAccount, DefaultServiceAccount)
	if i.ArtifactRepository.ConfigMap != "" {
		i.ArtifactRepository.Key = cmp.Or(i.ArtifactRepository.Key, i.Pipeline)
	}
	i.TTLDays = cmp.Or(i.TTLDays, DefaultTTLDays)
	i.WorkerResources = defaultWorkerResources().override(i.WorkerResources)
	return i
}

// defaultWorkerResources let a small CDK app synthesize. There is no CPU
// limit: a throttled build helps nobody.
func defaultWorkerResources() Resources {
	return Resources{
		Requests: map[string]string{"cpu": "250m", "memory": "512Mi"},
		Limits:   map[string]string{"memory": "2Gi"},
	}
}

// WithConfig returns i with what the repository's configuration overrides:
// the worker's image and resources and the link base.
func (i Installation) WithConfig(c *Config) Installation {
	i.Images.Worker = cmp.Or(c.Worker.Image, i.Images.Worker)
	i.ArgoURL = cmp.Or(c.Argo.URL, i.ArgoURL)
	i.WorkerResources = i.WorkerResources.override(c.Worker.Resources)
	return i
}

// override returns r with other's quantities in place of its own of the same
// name. A limit below r's own request of that name lowers the request too, so
// that naming a small limit alone gives a valid container.
func (r Resources) override(other Resources) Resources {
	merge := func(base, over map[string]string) map[string]string {
		merged := maps.Clone(base)
		if merged == nil {
			merged = make(map[string]string, len(over))
		}
		maps.Copy(merged, over)
		return merged
	}
	out := Resources{Requests: merge(r.Requests, other.Requests), Limits: merge(r.Limits, other.Limits)}
	for _, name := range slices.Sorted(maps.Keys(out.Limits)) {
		request, requested := out.Requests[name]
		if !requested || !quantityLess(out.Limits[name], request) {
			continue
		}
		if _, explicit := other.Requests[name]; !explicit {
			out.Requests[name] = out.Limits[name]
		} else if _, explicit := other.Limits[name]; !explicit {
			out.Limits[name] = request
		}
	}
	return out
}
