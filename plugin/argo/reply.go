package argo

import (
	"encoding/json"
	"time"
)

// Phase is a node phase as Argo writes it.
type Phase string

// The phases a reply may carry. An empty phase is a quiet poll.
const (
	Running   Phase = "Running"
	Succeeded Phase = "Succeeded"
	// Failed is for the user's work: code, configuration, cancellation.
	Failed Phase = "Failed"
	// Error is for ours or the cluster's.
	Error Phase = "Error"
)

// Reply is the answer to one call.
//
// The zero value is "not mine" and encodes as exactly {}: the agent shares one
// reply object between all plugins, so nothing else may be in it.
type Reply struct {
	Node *Node `json:"node,omitempty"`
	// Requeue is when the agent calls again, as a Go duration with a unit.
	// Final replies have none: a Failed one with a requeue is called again.
	Requeue string `json:"requeue,omitempty"`
}

// Node is the state of the node that the reply reports.
type Node struct {
	Phase   Phase    `json:"phase,omitempty"`
	Message string   `json:"message,omitempty"`
	Outputs *Outputs `json:"outputs,omitempty"`
}

// Outputs are a node's outputs; they replace what the node had.
type Outputs struct {
	Parameters []Parameter `json:"parameters,omitempty"`
	Artifacts  []Artifact  `json:"artifacts,omitempty"`
	// ExitCode is what a retry expression sees as lastRetry.exitCode.
	ExitCode string `json:"exitCode,omitempty"`
}

// Parameter is an output parameter. Value is always encoded, also when empty:
// a declared output that is missing hangs whoever refers to it.
type Parameter struct {
	Name       string `json:"name"`
	Value      string `json:"value"`
	GlobalName string `json:"globalName,omitempty"`
}

// Artifact is an output artifact in an S3 bucket.
type Artifact struct {
	Name string     `json:"name"`
	S3   S3Location `json:"s3"`
}

// S3Location is where an artifact lies.
type S3Location struct {
	Bucket string `json:"bucket,omitempty"`
	Key    string `json:"key"`
}

// NotMine is the reply to other plugins' templates.
func NotMine() Reply { return Reply{} }

// Quiet asks to be called again after requeue and reports nothing.
func Quiet(requeue time.Duration) Reply {
	return Reply{Node: &Node{}, Requeue: requeue.String()}
}

// Progress reports the node as running and asks to be called again.
func Progress(message string, requeue time.Duration) Reply {
	return Reply{Node: &Node{Phase: Running, Message: message}, Requeue: requeue.String()}
}

// Final reports the node's end.
func Final(phase Phase, message string, outputs *Outputs) Reply {
	return Reply{Node: &Node{Phase: phase, Message: message, Outputs: outputs}}
}

// IsFinal reports whether the agent takes r as the node's end.
func (r Reply) IsFinal() bool {
	if r.Node == nil {
		return false
	}
	switch r.Node.Phase {
	case Succeeded, Failed, Error:
		return r.Requeue == ""
	case Running:
	}
	return false
}

// Encode returns r as JSON. Equal replies give equal bytes.
func (r Reply) Encode() []byte {
	b, err := json.Marshal(r)
	if err != nil { // strings always marshal
		panic(err)
	}
	return b
}
