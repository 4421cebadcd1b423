package notify

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
)

// Plan is what the generator hands to the finish stage: which channels there
// are, and where runs can be looked at.
type Plan struct {
	// ArgoURL is the address of the Argo UI; empty for no links.
	ArgoURL  string                  `json:"argo,omitempty"`
	Channels []pipeline.Notification `json:"channels"`
}

// Encode returns the plan as the text of a step body, empty for no channels.
func (p Plan) Encode() string {
	if len(p.Channels) == 0 {
		return ""
	}
	text, err := json.Marshal(p)
	if err != nil { // strings and slices of strings always marshal
		panic(err)
	}
	return string(text)
}

// Decode reads what Encode wrote.
//
// Error: text of another shape.
func Decode(text string) (Plan, error) {
	plan := Plan{}
	if text == "" {
		return plan, nil
	}
	if err := json.Unmarshal([]byte(text), &plan); err != nil {
		return Plan{}, fmt.Errorf("read the notification channels of the step: %w", err)
	}
	return plan, nil
}

// Event is the end of a run, and the body that webhooks and topics get.
type Event struct {
	SchemaVersion string `json:"schema_version"`
	// Key is equal for equal ends of equal tries and nothing else.
	Key      string `json:"key"`
	Event    string `json:"event"`
	Pipeline string `json:"pipeline"`
	RepoURL  string `json:"repo_url"`
	Branch   string `json:"branch"`
	Commit   string `json:"commit"`
	Run      string `json:"run"`
	RunUID   string `json:"run_uid"`
	// Seconds is how long the run took.
	Seconds float64 `json:"seconds"`
	// Reason qualifies the end, such as "Superseded" or that of the failure.
	Reason string `json:"reason,omitempty"`
	// Failed is the stage that failed the run, or, of a run that succeeded all
	// the same, deploy-pipeline.
	Failed *FailedStage `json:"failed,omitempty"`
	// Environments are those that the run got as far as, in order.
	Environments []string `json:"environments"`
	// Deferred is deploy-pipeline, if it failed or left new stages for the next
	// run.
	Deferred *FailedStage `json:"deferred,omitempty"`
	// PassedOver says why a run that succeeded deployed nothing: a successor or
	// a replacement does, or a newer commit has been.
	PassedOver string `json:"passed_over,omitempty"`
	// RunURL leads to the run in the Argo UI, RecordURL to its record.
	RunURL    string `json:"run_url,omitempty"`
	RecordURL string `json:"record_url,omitempty"`
	// RecordError says why there is no complete record; what is told of the run
	// is what was known without.
	RecordError string `json:"record_error,omitempty"`
}

// FailedStage is a stage that failed or left something undone, and why.
type FailedStage struct {
	Stage   string `json:"stage"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message"`
	// LogURL is where the bucket has its log.
	LogURL string `json:"log_url,omitempty"`
}

// maxMessage bounds the cause in an announcement, in runes.
const maxMessage = 1000

// NewEvent describes the end of a run whose record is closed. epoch is that of
// the try that ended.
func NewEvent(run record.Run, epoch, argoURL, recordURL string) Event {
	e := Event{
		SchemaVersion: record.SchemaVersion, Event: pipeline.EventSucceeded, Pipeline: run.Pipeline, RepoURL: run.RepoURL, Branch: run.Branch,
		Commit: run.CommitSHA, Run: run.WorkflowName, RunUID: run.WorkflowID, Reason: run.Reason, Environments: []string{}, RecordURL: recordURL,
	}
	if run.Status != record.Succeeded {
		e.Event = pipeline.EventFailed
	}
	// The key is that of the run's status: what else is known of the end may be
	// more the next time.
	sum := sha256.Sum256([]byte(strings.Join([]string{run.WorkflowID, epoch, e.Event}, "\x00")))
	e.Key = "aphex-" + hex.EncodeToString(sum[:16])
	if run.CompletedAt != nil {
		e.Seconds = run.CompletedAt.Sub(run.TriggeredAt).Round(time.Millisecond).Seconds()
	}
	if argoURL != "" {
		e.RunURL = strings.TrimSuffix(argoURL, "/") + "/workflows/" + run.Namespace + "/" + run.WorkflowName
	}
	for _, stage := range run.Stages {
		if stage.Environment != "" && !slices.Contains(e.Environments, stage.Environment) {
			e.Environments = append(e.Environments, stage.Environment)
		}
	}
	if stage := record.FirstFailed(run.Stages); stage != nil {
		e.Failed = describe(stage)
	}
	e.Deferred = deferred(run.Stages)
	if e.Event == pipeline.EventSucceeded {
		e.PassedOver = cut(passedOver(run.Stages), maxMessage)
		if e.Deferred != nil {
			e.Event = pipeline.EventDeferred
		}
	}
	return e
}

// describe says of a stage what announcements do.
func describe(stage *record.Stage) *FailedStage {
	is := &FailedStage{Stage: stage.StageName, Reason: stage.Reason, Message: cut(stage.Message, maxMessage), LogURL: stage.LogURL}
	if stage.ErrorMessage != nil {
		is.Message = cut(*stage.ErrorMessage, maxMessage)
	}
	return is
}

// deferred describes a deploy-pipeline after which the pipeline is not, or not
// yet for this run, what the commit says.
func deferred(stages []record.Stage) *FailedStage {
	for i := range stages {
		stage := &stages[i]
		if stage.Stage == pipeline.StageDeployPipeline && (stage.Status == record.Failed || stage.Reason == string(fault.TopologyDeferred)) {
			return describe(stage)
		}
	}
	return nil
}

// passedOver is the message of the last stage that left the environments to
// another run, empty if one of them was deployed.
func passedOver(stages []record.Stage) string {
	var why string
	for _, stage := range stages {
		switch reason := fault.Reason(stage.Reason); {
		case reason == fault.HandedOver, reason == fault.StaleTopology, reason == fault.Superseded:
			why = stage.Message
		case reason == "" && stage.Stage == pipeline.StageDeployEnv:
			return ""
		}
	}
	return why
}

// cut shortens text to at most n runes.
func cut(text string, n int) string {
	runes := []rune(text)
	if len(runes) <= n {
		return text
	}
	return string(runes[:n-1]) + "…"
}

// events are all that e is for the filters of channels: a run that succeeded
// although its own change failed is of each kind.
func (e Event) events() []string {
	names := []string{e.Event}
	if e.Event == pipeline.EventDeferred {
		names = append(names, pipeline.EventSucceeded)
	}
	if e.Failed != nil {
		names = append(names, pipeline.EventFailed)
	}
	if e.Deferred != nil {
		names = append(names, pipeline.EventDeferred)
	}
	return names
}

// wanted reports whether a channel is to hear of the event.
func wanted(c pipeline.Notification, e Event) bool {
	if len(c.Events) > 0 && !slices.ContainsFunc(e.events(), func(name string) bool { return slices.Contains(c.Events, name) }) {
		return false
	}
	return len(c.Environments) == 0 || slices.ContainsFunc(c.Environments, func(name string) bool { return slices.Contains(e.Environments, name) })
}

// title is the event in a few words.
func (e Event) title() string {
	text := e.Pipeline + " " + e.Event
	switch {
	case e.Event == pipeline.EventFailed && e.Failed != nil:
		text += " at " + e.Failed.Stage
	case e.Event == pipeline.EventDeferred:
		text = e.Pipeline + " succeeded, " + e.change()
	}
	if e.Reason != "" {
		text += " (" + e.Reason + ")"
	}
	return text
}

// change says what came of a change of the pipeline that is not in force.
func (e Event) change() string {
	if e.Deferred.Reason == string(fault.TopologyDeferred) {
		return "its new stages wait for the next run"
	}
	return "its own change failed"
}

// took is the run's duration for people.
func (e Event) took() string {
	return time.Duration(e.Seconds * float64(time.Second)).Round(time.Second).String()
}

// shortCommit is the commit for people.
func (e Event) shortCommit() string { return e.Commit[:min(len(e.Commit), 10)] }
