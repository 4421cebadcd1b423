package pipeline

// Own stands for the pipeline itself where environments have their name: in
// revisions, in records, in the log. No environment may be called so.
const Own = "pipeline"

// Labels and annotations of the objects of a pipeline.
const (
	// LabelPipeline is the pipeline's name, on its WorkflowTemplate, runs and
	// agent pods.
	LabelPipeline = "aphex.dev/pipeline"
	// LabelComponent says what an object of aphex is for.
	LabelComponent = "aphex.dev/component"
	// ComponentJournal is the LabelComponent of the journal of a run.
	ComponentJournal = "journal"
	// AnnotationWorkflow is, on a journal, the name of its run.
	AnnotationWorkflow = "aphex.dev/workflow"
	// LabelCommit is a run's commit, empty if it is not a full SHA.
	LabelCommit = "aphex.dev/commit"
	// LabelBranch is a run's branch with what a label cannot hold replaced.
	LabelBranch = "aphex.dev/branch"
	// LabelReason is, on a run that is over, the reason in its record, such as
	// "AgentLost". It is that of the try before while a run is retried.
	LabelReason = "aphex.dev/reason"
	// LabelRecorded is "true" on a run that succeeded and whose record says so.
	LabelRecorded = "aphex.dev/recorded"
	// LabelAnnounced is, on a run whose end was told of from outside, the key of
	// the announcement.
	LabelAnnounced = "aphex.dev/announced"
	// AnnotationTopology is the topology digest of a WorkflowTemplate.
	AnnotationTopology = "aphex.dev/topology"
	// AnnotationReplaces is, on a replacement, the run it replaces.
	AnnotationReplaces = "aphex.dev/replaces"
	// AnnotationReplacedBy is, on a replaced run, its replacement.
	AnnotationReplacedBy = "aphex.dev/replaced-by"
	// AnnotationSucceeds is, on a successor, the run that handed over to it.
	AnnotationSucceeds = "aphex.dev/succeeds"
	// AnnotationHandedOver is, on a run, the successor it hands its
	// environments over to. It is written before the successor is created: a
	// run that has it deploys nothing any more.
	AnnotationHandedOver = "aphex.dev/handed-over-to"
)

// The arguments of a run.
const (
	// ArgumentCommit is the full SHA to deliver.
	ArgumentCommit = "commit-sha"
	// ArgumentBranch is the branch it was pushed to.
	ArgumentBranch = "branch"
	// ArgumentRepoURL is the repository's URL.
	ArgumentRepoURL = "repo-url"
	// ArgumentAllowOlder is "true" or "false": whether an older commit may
	// replace a newer one.
	ArgumentAllowOlder = "allow-older"
	// ArgumentForce is "true" or "false": whether assets are published and
	// stacks deployed again that seem to be as wanted.
	ArgumentForce = "force"
	// ArgumentPredecessor is, on a successor, the UID of the run whose build it
	// takes over; empty otherwise.
	ArgumentPredecessor = "predecessor"
)
