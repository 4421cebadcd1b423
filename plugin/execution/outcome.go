package execution

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/plugin/argo"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// Budgets of one reply. The Workflow object holds all replies of a run, and
// one that is too large takes its siblings with it.
const (
	maxMessage   = 1 << 10
	maxParameter = 32 << 10
	// maxReply bounds the reply as it is sent and kept, which is JSON: a
	// character may take six bytes there. There is never a result besides
	// parameters and artifacts.
	maxReply = 64 << 10
	// messageTail is what is kept of a long message's end, where the remedy
	// and the reason stand.
	messageTail = 400
)

// What stands for the middle that was cut out of a message.
const (
	gap       = " … "
	gapLogged = " … (its log has all of it) … "
)

// Exit codes, as `aphex task` gives them: a retry expression can tell what is
// worth another attempt.
const (
	exitDone      = "0"
	exitFailed    = "1"
	exitTransient = "75"
	exitSystem    = "125"
	exitCancelled = "143"
)

// outcome is how a stage ended.
type outcome struct {
	result task.Result
	err    error
	// reason is a fault.Reason, or empty.
	reason string
	// detached says that the stage stopped without an outcome.
	detached bool
	// logged says that the stage's log has what a message has no room for.
	logged bool
}

func success(result task.Result) outcome { return outcome{result: result, reason: result.Reason} }

func (e *Engine) failure(err error) outcome {
	return outcome{err: err, reason: string(fault.From(err).Reason)}
}

func (o *outcome) phase() (argo.Phase, string) {
	if o.err == nil {
		return argo.Succeeded, exitDone
	}
	switch fault.From(o.err).Class {
	case fault.User:
		return argo.Failed, exitFailed
	case fault.Transient:
		return argo.Failed, exitTransient
	case fault.Cancelled:
		return argo.Failed, exitCancelled
	case fault.System:
	}
	return argo.Error, exitSystem
}

// finalReply renders o: always a message, always every declared output. An
// output beyond the budget makes it the failure of this stage.
func (e *Engine) finalReply(call *argo.Call, o outcome, logURL, warning string) argo.Reply {
	values := map[string]string{}
	if o.err == nil {
		for name, value := range o.result.Outputs {
			values[name] = e.cfg.Redactor.String(value)
		}
	}
	if logURL != "" {
		values[task.OutputLogURL] = logURL
	}
	reply := e.compose(call, &o, parameters(call, values), logURL, warning)
	if err := withinBudget(call, &reply); err != nil {
		if o.reason != string(fault.OutputTooLarge) {
			return e.finalReply(call, e.failure(err), logURL, warning)
		}
		return e.compose(call, &o, nil, logURL, warning) // the names alone are too much
	}
	return reply
}

func (e *Engine) compose(call *argo.Call, o *outcome, parameters []argo.Parameter, logURL, warning string) argo.Reply {
	phase, exit := o.phase()
	message := o.result.Message
	if o.err != nil {
		message = fault.Message(o.err)
	}
	if message == "" {
		message = label(&call.Request) + " " + strings.ToLower(string(phase))
	}
	if o.err == nil && o.reason != "" {
		message += " [" + o.reason + "]"
	}
	if warning != "" {
		message += " (warning: " + warning + ")"
	}
	outputs := &argo.Outputs{Parameters: parameters, ExitCode: exit}
	if bucket, key, ok := s3Location(logURL); ok && e.cfg.MainLogs {
		outputs.Artifacts = []argo.Artifact{{Name: "main-logs", S3: argo.S3Location{Bucket: bucket, Key: key}}}
	}
	between := gap
	if o.logged {
		between = gapLogged
	}
	return argo.Final(phase, e.message(message, between), outputs)
}

// parameters lists what the stage and its template declare, in that order,
// then anything else the stage returned.
func parameters(call *argo.Call, values map[string]string) []argo.Parameter {
	names := task.Outputs(call.Request.Stage)
	globals := map[string]string{}
	for _, d := range call.Outputs {
		globals[d.Name] = d.GlobalName
		names = append(names, d.Name)
	}
	names = append(names, slices.Sorted(maps.Keys(values))...)
	var list []argo.Parameter
	seen := map[string]bool{}
	for _, name := range names {
		if !seen[name] {
			seen[name] = true
			list = append(list, argo.Parameter{Name: name, Value: strings.ToValidUTF8(values[name], "\uFFFD"), GlobalName: globals[name]})
		}
	}
	return list
}

func withinBudget(call *argo.Call, reply *argo.Reply) error {
	for _, p := range reply.Node.Outputs.Parameters {
		if len(p.Value) > maxParameter {
			return tooLarge(call, "output %s has %d bytes: at most %d are allowed", p.Name, len(p.Value), maxParameter)
		}
	}
	if total := len(reply.Encode()); total > maxReply {
		return tooLarge(call, "its reply has %d bytes with all outputs, as JSON: at most %d are allowed", total, maxReply)
	}
	return nil
}

func tooLarge(call *argo.Call, format string, args ...any) error {
	return fault.Newf(fault.User, fault.OutputTooLarge, "return the outputs of "+label(&call.Request),
		"Return less, or read the data from the bucket", format, args...)
}

// message makes text fit for a node: one redacted paragraph within the budget.
func (e *Engine) message(text, between string) string {
	text = strings.ToValidUTF8(e.cfg.Redactor.String(text), "\uFFFD")
	return shorten(strings.Join(strings.Fields(text), " "), between)
}

// shorten puts between in place of the middle of a text that is too long for a
// message.
func shorten(text, between string) string {
	if len(text) <= maxMessage {
		return text
	}
	head, tail := maxMessage-messageTail-len(between), len(text)-messageTail
	for !utf8.RuneStart(text[head]) {
		head--
	}
	for !utf8.RuneStart(text[tail]) {
		tail++
	}
	return text[:head] + between + text[tail:]
}

// label is what people call the stage: "deploy-dev", "test-dev", "build".
func label(req *task.Request) string {
	switch {
	case req.Environment == "":
		return req.Stage
	case req.Stage == task.StageDeployEnv:
		return "deploy-" + req.Environment
	}
	return fmt.Sprintf("%s-%s", req.Stage, req.Environment)
}

func s3Location(url string) (bucket, key string, ok bool) {
	rest, ok := strings.CutPrefix(url, "s3://")
	if !ok {
		return "", "", false
	}
	bucket, key, ok = strings.Cut(rest, "/")
	return bucket, key, ok && key != ""
}
