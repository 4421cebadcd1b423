package fault

// Reason is a stable code for a kind of fault. Codes are part of the product's
// interface: they appear in node messages, records and docs/reasons.md, and
// are never renamed.
type Reason string

// The reasons, by the part of the product that meets them.
const (
	// Internal is a defect of aphex itself.
	Internal Reason = "Internal"
	// BadRequest is a plugin body that cannot be understood.
	BadRequest Reason = "BadRequest"
	// UnresolvedTag is a plugin body that still contains a {{tag}}.
	UnresolvedTag Reason = "UnresolvedTag"
	// UnknownStage is a stage name nobody registered.
	UnknownStage Reason = "UnknownStage"
	// Cancellation is work ended by a person or by the end of the run.
	Cancellation Reason = "Cancelled"
	// AgentLost is a run whose agent pod ended before its stages did: its node
	// died, or it was evicted. One retry completes the run.
	AgentLost Reason = "AgentLost"
	// Stopped is a run that a person stopped.
	Stopped Reason = "Stopped"
	// Terminated is a run that a person terminated.
	Terminated Reason = "Terminated"
	// StageTimeout is a stage that used up its time.
	StageTimeout Reason = "StageTimeout"
	// OutOfOrder is a stage that was started before its turn, or without what
	// stages before it make.
	OutOfOrder Reason = "OutOfOrder"
	// OutputTooLarge is an output beyond what a reply may carry.
	OutputTooLarge Reason = "OutputTooLarge"

	// ConfigInvalid is a configuration with findings.
	ConfigInvalid Reason = "ConfigInvalid"
	// ConfigMissing is a configuration file that is not in the commit.
	ConfigMissing Reason = "ConfigMissing"
	// CommitInvalid is a commit that is not 40 hexadecimal digits.
	CommitInvalid Reason = "CommitInvalid"
	// CommitUnknown is a commit the repository does not have.
	CommitUnknown Reason = "CommitUnknown"
	// RepositoryUnreachable is a repository that does not answer.
	RepositoryUnreachable Reason = "RepositoryUnreachable"
	// RepositoryDenied is a repository that refuses our credentials.
	RepositoryDenied Reason = "RepositoryDenied"
	// RepositoryInvalid is a repository URL we do not accept.
	RepositoryInvalid Reason = "RepositoryInvalid"
	// CloneFailed is any other failure of git.
	CloneFailed Reason = "CloneFailed"

	// CommandFailed is a command of the user that did not exit 0.
	CommandFailed Reason = "CommandFailed"
	// TestsFailed is tests that failed by their reports, although the commands
	// that ran them exited 0.
	TestsFailed Reason = "TestsFailed"
	// ToolMissing is a program the worker image lacks.
	ToolMissing Reason = "ToolMissing"
	// WorkerLost is a worker that went away during a command.
	WorkerLost Reason = "WorkerLost"
	// WorkerUnavailable is a worker that cannot be reached at all.
	WorkerUnavailable Reason = "WorkerUnavailable"
	// DirectoryMissing is a working directory that does not exist.
	DirectoryMissing Reason = "DirectoryMissing"
	// PathRefused is a path that leaves the folder it belongs to.
	PathRefused Reason = "PathRefused"

	// SynthFailed is a CDK app that did not exit 0.
	SynthFailed Reason = "SynthFailed"
	// SynthTimeout is a CDK app that did not end in time.
	SynthTimeout Reason = "SynthTimeout"
	// SynthAnnotation is a CDK app that reported errors on its stacks.
	SynthAnnotation Reason = "SynthAnnotation"
	// ContextMissing is context the app needs and nobody has.
	ContextMissing Reason = "ContextMissing"
	// AssemblyInvalid is a cloud assembly that cannot be used.
	AssemblyInvalid Reason = "AssemblyInvalid"
	// AppMissing is a configured path without a CDK app.
	AppMissing Reason = "AppMissing"
	// StackUnknown is a configured stack the app does not define.
	StackUnknown Reason = "StackUnknown"
	// StackAmbiguous is a configured name that fits several stacks.
	StackAmbiguous Reason = "StackAmbiguous"
	// StackUnlisted is a dependency that the environment does not list.
	StackUnlisted Reason = "StackUnlisted"
	// StackOrder is a configured order that contradicts a dependency.
	StackOrder Reason = "StackOrder"
	// EnvironmentMismatch is a stack bound to another account or region.
	EnvironmentMismatch Reason = "EnvironmentMismatch"
	// ImageAssetUnsupported is a container image asset that nobody can build:
	// no builder works in the worker, or it lacks what the asset asks for.
	ImageAssetUnsupported Reason = "ImageAssetUnsupported"
	// ImageBuildFailed is a container image whose build did not succeed.
	ImageBuildFailed Reason = "ImageBuildFailed"

	// CredentialsMissing is a sidecar without any AWS identity.
	CredentialsMissing Reason = "CredentialsMissing"
	// RoleDenied is a role that could not be assumed.
	RoleDenied Reason = "RoleDenied"
	// AccountMismatch is credentials of another account than configured.
	AccountMismatch Reason = "AccountMismatch"
	// NotBootstrapped is an environment without a usable CDK bootstrap.
	NotBootstrapped Reason = "NotBootstrapped"
	// SecretMissing is a secret, or a key or field of one, that is named but not
	// there.
	SecretMissing Reason = "SecretMissing"
	// SecretDenied is a secret that the pipeline may not read, or that its
	// installation does not allow to build commands.
	SecretDenied Reason = "SecretDenied"
	// SecretUnusable is a secret whose value no command can be given, or that
	// could not be hidden in logs.
	SecretUnusable Reason = "SecretUnusable"
	// SecretLeaked is a file with the value of a secret where it would be kept.
	SecretLeaked Reason = "SecretLeaked"
	// AWSUnavailable is an AWS endpoint that does not answer.
	AWSUnavailable Reason = "AWSUnavailable"
	// AWSRejected is any other refusal by an AWS service.
	AWSRejected Reason = "AWSRejected"

	// AssetFailed is an asset that could not be packaged or published.
	AssetFailed Reason = "AssetFailed"
	// ParameterMissing is a template parameter without a value.
	ParameterMissing Reason = "ParameterMissing"
	// ChangeSetFailed is a change set that CloudFormation refused.
	ChangeSetFailed Reason = "ChangeSetFailed"
	// StackFailed is a stack that did not reach a successful end.
	StackFailed Reason = "StackFailed"
	// StackBusy is a stack held by an operation of somebody else.
	StackBusy Reason = "StackBusy"
	// StackPaused is a stack in a failed state that needs a decision.
	StackPaused Reason = "StackPaused"
	// StackEmpty is a template without resources.
	StackEmpty Reason = "StackEmpty"
	// StackTimeout is a stack that used up the time its configuration gives it.
	StackTimeout Reason = "StackTimeout"

	// Superseded marks an older commit passed over. It is not a failure.
	Superseded Reason = "Superseded"
	// StaleTopology marks a run replaced by one of the current template.
	StaleTopology Reason = "StaleTopology"
	// HandedOver marks a run whose environments a successor of the new topology
	// deploys. It is not a failure.
	HandedOver Reason = "HandedOver"
	// TopologyDeferred marks a run whose commit changes the stages, which the
	// next run follows. It is not a failure.
	TopologyDeferred Reason = "TopologyDeferred"
	// TopologyChanged is a topology that does not fit the commit.
	TopologyChanged Reason = "TopologyChanged"
	// KubernetesRejected is a refusal by the Kubernetes API server.
	KubernetesRejected Reason = "KubernetesRejected"
	// InstallationMissing is a pipeline without its settings in the cluster.
	InstallationMissing Reason = "InstallationMissing"
	// ClockSkew is a clock that differs too much from another one.
	ClockSkew Reason = "ClockSkew"
	// JournalConflict is a journal written by another, newer pod.
	JournalConflict Reason = "JournalConflict"
	// JournalInvalid is a journal that cannot be read: edited by hand, or of
	// another version of aphex.
	JournalInvalid Reason = "JournalInvalid"
	// EventsMissing is a stack without events in the record of a run.
	EventsMissing Reason = "EventsMissing"
	// RunUnknown is a run that cannot be found.
	RunUnknown Reason = "RunUnknown"
	// ArtifactMissing is an artifact that no build has published.
	ArtifactMissing Reason = "ArtifactMissing"
	// ArtifactRefused is a file that cannot be published: its name can be no
	// object's, or there are too many.
	ArtifactRefused Reason = "ArtifactRefused"
	// DownloadRefused is a download that would replace a local file, or whose
	// folder cannot be written to.
	DownloadRefused Reason = "DownloadRefused"
	// LogMissing is a log that is not in the bucket.
	LogMissing Reason = "LogMissing"
	// StoreFailed is an object that could not be written to or read from the bucket.
	StoreFailed Reason = "StoreFailed"
	// SnapshotInvalid is a snapshot whose bytes are not those recorded.
	SnapshotInvalid Reason = "SnapshotInvalid"
	// WorkspaceFailed is a workspace that could not be prepared.
	WorkspaceFailed Reason = "WorkspaceFailed"
)
