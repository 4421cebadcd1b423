package reconcile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
)

// podFailed begins the message of a node whose agent pod failed.
//
// Source: workflow/controller/agent.go, updateAgentPodStatus, Argo v3.7.18.
const podFailed = "agent pod failed with reason:"

// Values of a Workflow's spec.shutdown.
const (
	shutdownStop      = "Stop"
	shutdownTerminate = "Terminate"
)

// reasonCode is the reason at the end of a node's message.
var reasonCode = regexp.MustCompile(`\[([A-Z][A-Za-z]+)\]$`)

// agrees reports whether a run's record is closed with all its stages, belongs
// to the run's last try and says of its end what the run does.
func agrees(w *kube.Workflow, rec *record.Run) bool {
	if rec.CompletedAt == nil || rec.CompletedAt.Before(w.StartedAt) {
		return false
	}
	for i := range rec.Stages {
		if rec.Stages[i].Status == record.Running {
			return false
		}
	}
	if w.Phase != kube.PhaseSucceeded {
		return rec.Status == record.Failed
	}
	return rec.Status == record.Succeeded || terminated(w)
}

// terminated: Argo calls a run Succeeded that was terminated while it waited
// for its turn.
func terminated(w *kube.Workflow) bool { return w.Shutdown == shutdownTerminate }

// verdict is how a run ended.
type verdict struct {
	status record.Status
	reason string
	stages []record.Stage
	// ended are the indexes of the stages whose records were still open.
	ended []int
}

// judge tells from outside how a run ended. known says that the run had a
// record, which means that it began.
func judge(w *kube.Workflow, known bool, stages []record.Stage) verdict {
	v := verdict{status: record.Failed, stages: stages}
	if w.Phase == kube.PhaseSucceeded && (known || !terminated(w)) {
		v.status = record.Succeeded
	}
	cause := causeOf(w)
	for i := range v.stages {
		if v.stages[i].Status == record.Running {
			v.stages[i] = end(w, v.stages[i], cause)
			v.ended = append(v.ended, i)
		}
	}
	v.reason = v.reasonOf(w, cause)
	return v
}

// causeOf says why a run ended that none of its stages ended. It looks at the
// Workflow alone: the stages' records are written one by one, and a pass after
// one that died in between must come to the same verdict.
func causeOf(w *kube.Workflow) fault.Reason {
	if w.Phase == kube.PhaseSucceeded && !terminated(w) {
		return ""
	}
	switch w.Shutdown {
	case shutdownTerminate:
		return fault.Terminated
	case shutdownStop:
		return fault.Stopped
	}
	if slices.ContainsFunc(w.Nodes(), lost) {
		return fault.AgentLost
	}
	return ""
}

// end closes a stage's record by what the controller says of its node. A stage
// that nobody ended, in a run that failed and that nobody ended, went away with
// its pod.
func end(w *kube.Workflow, s record.Stage, cause fault.Reason) record.Stage {
	s.CompletedAt = &w.FinishedAt
	node := nodeOf(w, &s)
	if node.Phase == kube.PhaseSucceeded {
		s.Status, s.Message = record.Succeeded, node.Message
		return s
	}
	s.Status = record.Failed
	if code := reasonCode.FindStringSubmatch(node.Message); code != nil {
		s.Reason, s.ErrorMessage = code[1], &node.Message
		return s
	}
	if cause == "" && w.Phase != kube.PhaseSucceeded {
		cause = fault.AgentLost
	}
	s.Reason = string(cause)
	message := explain(w, s.StageName, cause, node.Message)
	s.ErrorMessage = &message
	return s
}

// nodeOf is a stage's node, the zero Node if it has none.
func nodeOf(w *kube.Workflow, s *record.Stage) kube.Node {
	node, _ := w.Node(kube.NodeID(w.Name, w.Name+"."+pipeline.Node{Stage: s.Stage, Environment: s.Environment}.Name()))
	return node
}

// lost reports whether a node ended with its agent pod.
func lost(node kube.Node) bool {
	return node.Phase == kube.PhaseError && strings.HasPrefix(node.Message, podFailed)
}

// explain is the message of a stage that could not write its own.
func explain(w *kube.Workflow, stage string, cause fault.Reason, said string) string {
	if said == "" {
		said = "the run ended before it"
	}
	retry := fmt.Sprintf("Retry the run (argo retry %s -n %s): it goes on from here", w.Name, w.Namespace)
	if cause == fault.AgentLost {
		return fault.Message(fault.Newf(fault.System, cause, stage, retry, "the agent pod was lost (%s)", said))
	}
	if cause == fault.Stopped || cause == fault.Terminated {
		return fault.Message(fault.Newf(fault.Cancelled, cause, stage, retry, "the run was ended by hand (%s)", said))
	}
	return said
}

// reasonOf is the reason of the first stage that failed by itself, else the
// run's cause, else whatever reason a stage gives. A stage whose pod ended
// under it may have recorded what it saw of that last, such as a worker that
// was gone: that is no reason of its own.
func (v *verdict) reasonOf(w *kube.Workflow, cause fault.Reason) string {
	var other string
	for _, s := range v.stages {
		if s.Reason == "" {
			continue
		}
		own := s.Status == record.Failed && s.Stage != pipeline.StageDeployPipeline && s.Reason != string(fault.Cancellation) && !lost(nodeOf(w, &s))
		if own && v.status == record.Failed {
			return s.Reason
		}
		if other == "" {
			other = s.Reason
		}
	}
	if cause != "" {
		return string(cause)
	}
	return other
}
