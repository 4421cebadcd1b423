package argo

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/jsonlimit"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// maxDepth bounds how deep a request may be nested. The generator's templates
// have some ten levels.
const maxDepth = 64

// PluginName is the key of aphex's body under a template's plugin field.
const PluginName = "aphex"

// Declared is an output parameter that the template declares.
type Declared struct {
	Name, GlobalName string
}

// Call is one decoded request that is ours.
type Call struct {
	// Request is the step's body. Its Run has no Epoch yet: the wire does not
	// carry one.
	Request task.Request
	// Retried says that the template has a retry strategy, so that the node is
	// one of its attempts.
	Retried bool
	// Template is the template's name, for logs.
	Template string
	// Outputs are the outputs the template declares, in its order.
	Outputs []Declared
	// Digest identifies the body's content: "sha256:<hex>".
	Digest string
}

// NodeName is the name under which Argo keeps the node: an attempt of a
// retried step has its number appended.
func (c *Call) NodeName() string {
	if c.Retried {
		return fmt.Sprintf("%s(%d)", c.Request.Node, c.Request.Attempt)
	}
	return c.Request.Node
}

// envelope is the request as the agent sends it. Unknown fields belong to
// Argo and are passed over, the template's timeout among them: Argo applies it
// to nodes that never started, and it says nothing about a running stage.
type envelope struct {
	Workflow struct {
		Metadata struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
			UID       string `json:"uid"`
		} `json:"metadata"`
	} `json:"workflow"`
	Template struct {
		Name    string          `json:"name"`
		Plugin  json.RawMessage `json:"plugin"`
		Outputs struct {
			Parameters []struct {
				Name       string `json:"name"`
				GlobalName string `json:"globalName"`
			} `json:"parameters"`
		} `json:"outputs"`
	} `json:"template"`
}

// Decode reads one request.
//
// ours says whether the template is addressed to aphex; if not, the answer is
// NotMine, also for bytes that are no request at all. If it is ours and cannot
// be understood, the error is a *fault.Fault whose reason is BadRequest or
// UnresolvedTag, and call holds what could be read.
func Decode(body io.Reader) (call Call, ours bool, err error) {
	raw, err := io.ReadAll(body)
	if err != nil {
		return Call{}, false, fmt.Errorf("read request: %w", err)
	}
	mine := aphexBody(raw)
	if mine == nil {
		return Call{}, false, nil
	}
	sum := sha256.Sum256(mine)
	call.Digest = "sha256:" + hex.EncodeToString(sum[:])
	if err := jsonlimit.Check(raw, maxDepth); err != nil {
		return call, true, badRequest("the request cannot be read: %w", err)
	}
	var env envelope
	if err := json.Unmarshal(raw, &env); err != nil {
		return call, true, badRequest("the request is not of the shape Argo sends: %w", err)
	}
	return call, true, call.fill(&env, mine)
}

// aphexBody returns the body under template.plugin.aphex, or nil if raw has
// none. It asks for nothing else, so that other plugins' templates, whatever
// their form, are never ours.
func aphexBody(raw []byte) json.RawMessage {
	var outer struct {
		Template struct {
			Plugin json.RawMessage `json:"plugin"`
		} `json:"template"`
	}
	if json.Unmarshal(raw, &outer) != nil {
		return nil
	}
	var plugin map[string]json.RawMessage
	if json.Unmarshal(outer.Template.Plugin, &plugin) != nil {
		return nil
	}
	body, ok := plugin[PluginName]
	if !ok {
		return nil
	}
	return bytes.TrimSpace(body)
}

func (c *Call) fill(env *envelope, body json.RawMessage) error {
	meta := env.Workflow.Metadata
	c.Request.Run = task.Run{Namespace: meta.Namespace, Name: meta.Name, UID: meta.UID}
	c.Template = env.Template.Name
	for _, p := range env.Template.Outputs.Parameters {
		if p.Name != "" {
			c.Outputs = append(c.Outputs, Declared{Name: p.Name, GlobalName: p.GlobalName})
		}
	}
	if meta.UID == "" || meta.Name == "" || meta.Namespace == "" {
		return badRequest("workflow has name %q, namespace %q and uid %q: all three are needed", meta.Name, meta.Namespace, meta.UID)
	}
	return c.fillBody(body)
}

func badRequest(format string, args ...any) error {
	return fault.Newf(fault.User, fault.BadRequest, "read the step's plugin body",
		"Generate the WorkflowTemplate anew with the aphex version that runs in the cluster", format, args...)
}
