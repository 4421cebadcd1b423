package record

import "time"

// SchemaVersion is written into every record, so that readers of a later
// version can tell what they have.
const SchemaVersion = "1.0"

// Status is the state of a run or stage.
type Status string

// The statuses, as in the founding document's data models.
const (
	Running   Status = "running"
	Succeeded Status = "succeeded"
	Failed    Status = "failed"
)

// Run is the record of one run (WorkflowMetadata), stored at RunKey.
type Run struct {
	SchemaVersion string `json:"schema_version"`
	// WorkflowID is the Workflow's UID.
	WorkflowID   string `json:"workflow_id"`
	WorkflowName string `json:"workflow_name"`
	Namespace    string `json:"namespace"`
	Pipeline     string `json:"pipeline"`
	CommitSHA    string `json:"commit_sha"`
	Branch       string `json:"branch"`
	RepoURL      string `json:"repo_url"`
	// Predecessor is, for a successor, the UID of the run whose build it took
	// over.
	Predecessor string `json:"predecessor,omitempty"`
	// TriggeredAt is when the first stage of the run began, in UTC.
	TriggeredAt time.Time `json:"triggered_at"`
	// CompletedAt is nil while the run lasts.
	CompletedAt *time.Time `json:"completed_at"`
	Status      Status     `json:"status"`
	// Reason qualifies the status, such as "Superseded" or the reason of the
	// first failed stage.
	Reason string `json:"reason,omitempty"`
	// Stages are in the order they began.
	Stages []Stage `json:"stages"`
	// Artifacts is how much the build published; nil if it has not.
	Artifacts *ArtifactTotal `json:"artifacts,omitempty"`
	// Notifications are the channels that the end was announced to.
	Notifications []Notification `json:"notifications,omitempty"`
	// Metrics is what came of the figures of the end; nil if nobody tried.
	Metrics *Metrics `json:"metrics,omitempty"`
}

// Metrics says what came of sending the figures of a run's end.
type Metrics struct {
	Sent bool `json:"sent"`
	// Error says why they were not; empty if they were.
	Error string `json:"error,omitempty"`
	// Until is the end of the last try whose figures were sent: stages that had
	// ended by then are in them. nil before the first.
	Until *time.Time `json:"until,omitempty"`
}

// Measured reports up to when the run's figures have been sent, the zero time
// for never.
func (r *Run) Measured() time.Time {
	if r.Metrics == nil || r.Metrics.Until == nil {
		return time.Time{}
	}
	return *r.Metrics.Until
}

// Measure sets what came of sending the figures of the run's end: failure is
// the reason why they were not, empty if they were.
func (r *Run) Measure(failure string) {
	m := &Metrics{Sent: failure == "", Error: failure, Until: r.CompletedAt}
	if !m.Sent {
		m.Until = nil
		if r.Metrics != nil {
			m.Until = r.Metrics.Until
		}
	}
	r.Metrics = m
}

// Notification says what came of the announcement to one channel.
type Notification struct {
	// Type and Target are those of the configuration: a reference, no secret.
	Type   string             `json:"type"`
	Target string             `json:"target"`
	Status NotificationStatus `json:"status"`
	// Key is that of the announcement: equal for equal ends.
	Key string `json:"key,omitempty"`
	// Error says why it could not be announced; empty if it could.
	Error string `json:"error,omitempty"`
}

// NotificationStatus is the state of an announcement.
type NotificationStatus string

// The states of announcements.
const (
	NotificationSent   NotificationStatus = "sent"
	NotificationFailed NotificationStatus = "failed"
)

// Stage is the record of one stage (StageMetadata), stored at StageKey.
type Stage struct {
	// StageName is the stage and, where there is one, its environment:
	// "deploy-env-dev".
	StageName   string     `json:"stage_name"`
	Stage       string     `json:"stage"`
	Environment string     `json:"environment,omitempty"`
	Attempt     int        `json:"attempt"`
	Epoch       string     `json:"epoch"`
	StartedAt   time.Time  `json:"started_at"`
	CompletedAt *time.Time `json:"completed_at"`
	Status      Status     `json:"status"`
	Reason      string     `json:"reason,omitempty"`
	// Message is the node's message of a stage that ended well.
	Message string `json:"message,omitempty"`
	// ErrorMessage is the node's message of a stage that did not.
	ErrorMessage *string `json:"error_message"`
	// LogURL is where the bucket has the stage's log; empty if it has none.
	LogURL string `json:"log_url,omitempty"`
	// EventURLs are where it has the events of the stacks of a deploy-env stage.
	EventURLs []string `json:"event_urls,omitempty"`
	// Tests is what the test reports of a test stage say; nil without any.
	Tests *Tests `json:"tests,omitempty"`
}

// StageName joins a stage and its environment: "build", "deploy-env-dev".
func StageName(stage, environment string) string {
	if environment == "" {
		return stage
	}
	return stage + "-" + environment
}

// RunKey is the object key of a run's record.
func RunKey(uid string) string { return "runs/" + uid + "/run.json" }

// StageKey is the object key of a stage's record.
func StageKey(uid, stage, environment string) string {
	return StagePrefix(uid) + StageName(stage, environment) + ".json"
}

// StagePrefix is the common prefix of a run's stage records.
func StagePrefix(uid string) string { return "runs/" + uid + "/stages/" }

// SnapshotKey is the object key of a run's workspace snapshot.
func SnapshotKey(uid string) string { return "runs/" + uid + "/snapshot.tar.zst" }

// AssemblyKey is the object key of a cloud assembly that a run deploys, by the
// SHA-256 of its archive in hexadecimal.
func AssemblyKey(uid, sha256 string) string {
	return "runs/" + uid + "/assemblies/" + sha256 + ".tar.zst"
}

// OutputsKey is the object key of an environment's stack outputs.
func OutputsKey(uid, environment string) string {
	return "runs/" + uid + "/environments/" + environment + "/outputs.json"
}

// TestKey is the object key of an environment's test result.
func TestKey(uid, environment string) string {
	return "runs/" + uid + "/environments/" + environment + "/tests.json"
}
