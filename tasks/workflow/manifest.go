package workflow

import "go.yaml.in/yaml/v3"

// quoted is a string that is always written in double quotes, so that no YAML
// version can take it for anything but a string.
type quoted string

// MarshalYAML implements yaml.Marshaler.
func (q quoted) MarshalYAML() (any, error) {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: string(q)}, nil
}

// block is a string of several lines that is written as a literal block.
type block string

// MarshalYAML implements yaml.Marshaler.
func (b block) MarshalYAML() (any, error) {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.LiteralStyle, Value: string(b)}, nil
}

// The parts of Argo's WorkflowTemplate that are generated, in the order they
// are written. The JSON names are Argo's.
type (
	manifest struct {
		APIVersion string   `yaml:"apiVersion"`
		Kind       string   `yaml:"kind"`
		Metadata   metadata `yaml:"metadata"`
		Spec       spec     `yaml:"spec"`
	}

	metadata struct {
		Name        quoted            `yaml:"name,omitempty"`
		Namespace   quoted            `yaml:"namespace,omitempty"`
		Labels      map[string]quoted `yaml:"labels,omitempty"`
		Annotations map[string]quoted `yaml:"annotations,omitempty"`
	}

	spec struct {
		Entrypoint         quoted           `yaml:"entrypoint"`
		OnExit             quoted           `yaml:"onExit"`
		Arguments          arguments        `yaml:"arguments"`
		WorkflowMetadata   workflowMetadata `yaml:"workflowMetadata"`
		ServiceAccountName quoted           `yaml:"serviceAccountName"`
		ArtifactRepository *artifactRef     `yaml:"artifactRepositoryRef,omitempty"`
		ImagePullSecrets   []reference      `yaml:"imagePullSecrets,omitempty"`
		Synchronization    synchronization  `yaml:"synchronization"`
		TTLStrategy        ttlStrategy      `yaml:"ttlStrategy"`
		SecurityContext    securityContext  `yaml:"securityContext"`
		PodMetadata        metadata         `yaml:"podMetadata"`
		AutomountToken     *bool            `yaml:"automountServiceAccountToken,omitempty"`
		Executor           *executor        `yaml:"executor,omitempty"`
		PodGC              *podGC           `yaml:"podGC,omitempty"`
		PodSpecPatch       block            `yaml:"podSpecPatch"`
		Metrics            *metrics         `yaml:"metrics"`
		Templates          []template       `yaml:"templates"`
	}

	arguments struct {
		Parameters []parameter `yaml:"parameters"`
	}

	parameter struct {
		Name        quoted     `yaml:"name"`
		Description quoted     `yaml:"description,omitempty"`
		Value       *quoted    `yaml:"value,omitempty"`
		Enum        []quoted   `yaml:"enum,omitempty"`
		ValueFrom   *valueFrom `yaml:"valueFrom,omitempty"`
	}

	valueFrom struct {
		Supplied *struct{} `yaml:"supplied,omitempty"`
		Path     quoted    `yaml:"path,omitempty"`
		Default  *quoted   `yaml:"default,omitempty"`
	}

	workflowMetadata struct {
		Labels     map[string]quoted     `yaml:"labels"`
		LabelsFrom map[string]expression `yaml:"labelsFrom"`
	}

	expression struct {
		Expression quoted `yaml:"expression"`
	}

	reference struct {
		Name quoted `yaml:"name"`
	}

	artifactRef struct {
		ConfigMap quoted `yaml:"configMap"`
		Key       quoted `yaml:"key"`
	}

	synchronization struct {
		Mutexes []reference `yaml:"mutexes"`
	}

	ttlStrategy struct {
		SecondsAfterCompletion int `yaml:"secondsAfterCompletion"`
	}

	securityContext struct {
		RunAsNonRoot   bool           `yaml:"runAsNonRoot"`
		RunAsUser      int            `yaml:"runAsUser"`
		FSGroup        int            `yaml:"fsGroup"`
		SeccompProfile seccompProfile `yaml:"seccompProfile"`
	}

	seccompProfile struct {
		Type quoted `yaml:"type"`
	}

	// executor is the identity of Argo's own container in a stage's pod.
	executor struct {
		ServiceAccountName quoted `yaml:"serviceAccountName"`
	}

	podGC struct {
		Strategy quoted `yaml:"strategy"`
	}

	// template is a DAG, a plugin step or a container: exactly one of DAG,
	// Plugin and Container is set.
	template struct {
		Name          quoted         `yaml:"name"`
		Timeout       quoted         `yaml:"timeout,omitempty"`
		RetryStrategy *retryStrategy `yaml:"retryStrategy,omitempty"`
		DAG           *dag           `yaml:"dag,omitempty"`
		Plugin        *plugin        `yaml:"plugin,omitempty"`
		Container     *stepContainer `yaml:"container,omitempty"`
		Metrics       *metrics       `yaml:"metrics,omitempty"`
		Outputs       *outputs       `yaml:"outputs,omitempty"`
	}

	retryStrategy struct {
		Limit       quoted `yaml:"limit"`
		RetryPolicy quoted `yaml:"retryPolicy"`
	}

	// stepContainer is what a template says of its pod's main container; the
	// patch says the rest.
	stepContainer struct {
		Image           quoted   `yaml:"image"`
		ImagePullPolicy quoted   `yaml:"imagePullPolicy"`
		Command         []quoted `yaml:"command"`
		Args            []quoted `yaml:"args"`
	}

	dag struct {
		Tasks []dagTask `yaml:"tasks"`
	}

	dagTask struct {
		Name     quoted `yaml:"name"`
		Template quoted `yaml:"template"`
		Depends  quoted `yaml:"depends,omitempty"`
		When     quoted `yaml:"when,omitempty"`
	}

	plugin struct {
		Aphex body `yaml:"aphex"`
	}

	// body is what the plugin receives: identity and names, never commands.
	body struct {
		Stage       quoted `yaml:"stage"`
		Pipeline    quoted `yaml:"pipeline"`
		Environment quoted `yaml:"environment,omitempty"`
		Node        quoted `yaml:"node"`
		Topology    quoted `yaml:"topology"`
		Config      quoted `yaml:"config"`
		Repo        quoted `yaml:"repo"`
		Commit      quoted `yaml:"commit"`
		Branch      quoted `yaml:"branch"`
		Predecessor quoted `yaml:"predecessor"`
		AllowOlder  quoted `yaml:"allowOlder"`
		Force       quoted `yaml:"force,omitempty"`
		Status      quoted `yaml:"status,omitempty"`
		// Notifications are channels, as notify.Plan.Encode writes them.
		Notifications quoted `yaml:"notifications,omitempty"`
	}

	outputs struct {
		Parameters []parameter `yaml:"parameters"`
	}
)
