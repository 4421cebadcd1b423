package argo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// The keys of a step body, as the generator writes them.
const (
	keyStage       = "stage"
	keyPipeline    = "pipeline"
	keyEnvironment = "environment"
	keyNode        = "node"
	keyTopology    = "topology"
	keyConfig      = "config"
	keyRepo        = "repo"
	keyCommit      = "commit"
	keyBranch      = "branch"
	keyPredecessor = "predecessor"
	keyAllowOlder  = "allowOlder"
	keyForce       = "force"
	keyAttempt     = "attempt"
	keyStatus      = "status"
	keyNotify      = "notifications"
)

// required are the keys every body has; those in mayBeEmpty are checked by
// the stages, whose messages say more than ours could.
func required() []string {
	return []string{keyStage, keyPipeline, keyNode, keyTopology, keyConfig, keyRepo, keyCommit, keyBranch}
}

func mayBeEmpty() []string {
	return []string{keyRepo, keyCommit, keyBranch, keyPredecessor, keyAllowOlder, keyForce, keyStatus, keyAttempt, keyEnvironment, keyNotify}
}

func known() []string {
	return append(required(), keyEnvironment, keyPredecessor, keyAllowOlder, keyForce, keyAttempt, keyStatus, keyNotify)
}

// maxAttempt bounds the attempt number: beyond it something is wrong.
const maxAttempt = 1_000_000

// tag matches an Argo template tag that was not substituted.
var tag = regexp.MustCompile(`\{\{[^{}]*\}\}`)

// uid matches what Kubernetes uses as a UID. It becomes part of object keys.
var uid = regexp.MustCompile(`\A[0-9A-Za-z-]{1,63}\z`)

// fillBody reads the aphex body, strictly: all findings are reported at once.
func (c *Call) fillBody(body json.RawMessage) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil || raw == nil {
		return badRequest("plugin.%s is %s: it must be an object", PluginName, kind(body))
	}
	b := &bodyReader{raw: raw, values: map[string]string{}}
	b.readAll()
	if len(b.tags) > 0 {
		c.assign(b)
		return fault.Newf(fault.User, fault.UnresolvedTag, "read the step's plugin body",
			"Check the spelling of the tag and that the template has what it refers to, then generate the WorkflowTemplate anew",
			"%s", strings.Join(b.tags, "; "))
	}
	c.assign(b)
	c.check(b)
	if len(b.findings) > 0 {
		return badRequest("%s", strings.Join(b.findings, "; "))
	}
	return nil
}

func (c *Call) assign(b *bodyReader) {
	r := &c.Request
	r.Stage, r.Node, r.Pipeline = b.values[keyStage], b.values[keyNode], b.values[keyPipeline]
	r.Environment, r.Topology, r.ConfigPath = b.values[keyEnvironment], b.values[keyTopology], b.values[keyConfig]
	r.RepoURL, r.Commit, r.Branch = b.values[keyRepo], b.values[keyCommit], b.values[keyBranch]
	r.Notifications = b.values[keyNotify]
	r.WorkflowStatus, r.Predecessor = b.values[keyStatus], b.values[keyPredecessor]
}

// check looks at the values together and fills in those that are not strings.
func (c *Call) check(b *bodyReader) {
	r := &c.Request
	r.AllowOlder, r.Force = b.yes(keyAllowOlder), b.yes(keyForce)
	if r.Predecessor != "" && !uid.MatchString(r.Predecessor) {
		b.findf("%s is %q: it must be the UID of a run", keyPredecessor, r.Predecessor)
	}
	if v, ok := b.values[keyAttempt]; ok {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n > maxAttempt {
			b.findf("%s is %q: it must be a number from 0", keyAttempt, v)
		}
		r.Attempt, c.Retried = n, true
	}
	switch r.Stage {
	case task.StageDeployEnv, task.StageTest:
		if r.Environment == "" {
			b.findf("%s is missing: stage %s needs it", keyEnvironment, r.Stage)
		}
	case task.StageFinish:
		if _, ok := b.raw[keyStatus]; !ok {
			b.findf("%s is missing: stage %s needs it", keyStatus, r.Stage)
		}
	}
	if r.Node != "" && !strings.HasPrefix(r.Node, r.Run.Name) {
		b.findf("%s is %q: it must be a node of workflow %q", keyNode, r.Node, r.Run.Name)
	}
}

// bodyReader collects values and findings.
type bodyReader struct {
	raw      map[string]json.RawMessage
	values   map[string]string
	findings []string
	tags     []string
}

func (b *bodyReader) findf(format string, args ...any) {
	b.findings = append(b.findings, fmt.Sprintf(format, args...))
}

func (b *bodyReader) readAll() {
	keys := known()
	for _, key := range slices.Sorted(maps.Keys(b.raw)) {
		if !slices.Contains(keys, key) {
			b.findf("%q is not a key of the body: the keys are %s", key, strings.Join(keys, ", "))
			if t := tag.Find(b.raw[key]); t != nil {
				b.tags = append(b.tags, fmt.Sprintf("%s still contains the tag %s", key, t))
			}
			continue
		}
		b.read(key)
	}
	for _, key := range required() {
		if _, ok := b.raw[key]; !ok {
			b.findf("%s is missing", key)
		}
	}
}

// yes reads a switch that is off unless it is said to be on.
func (b *bodyReader) yes(key string) bool {
	switch v := b.values[key]; v {
	case "", "false":
	case "true":
		return true
	default:
		b.findf("%s is %q: it must be true or false", key, v)
	}
	return false
}

func (b *bodyReader) read(key string) {
	value, ok := scalar(b.raw[key], key == keyAllowOlder || key == keyForce || key == keyAttempt)
	if !ok {
		b.findf("%s is %s: it must be a string, so quote it in the template", key, kind(b.raw[key]))
		return
	}
	if t := tag.FindString(value); t != "" {
		b.tags = append(b.tags, fmt.Sprintf("%s still contains the tag %s", key, t))
	}
	if value == "" && !slices.Contains(mayBeEmpty(), key) {
		b.findf("%s is empty", key)
	}
	b.values[key] = value
}

// scalar returns a JSON string's value; with loose, also a bool or number as
// it is written, since YAML turns unquoted ones into those.
func scalar(raw json.RawMessage, loose bool) (string, bool) {
	if bytes.HasPrefix(raw, []byte(`"`)) {
		var s string
		err := json.Unmarshal(raw, &s)
		return s, err == nil
	}
	if !loose || len(raw) == 0 {
		return "", false
	}
	switch raw[0] {
	case '{', '[', 'n':
		return "", false
	}
	return string(raw), true
}

// kind describes a JSON value for a message, without its content if large.
func kind(raw json.RawMessage) string {
	switch {
	case len(raw) == 0, string(raw) == "null":
		return "null"
	case raw[0] == '{':
		return "an object"
	case raw[0] == '[':
		return "a list"
	case len(raw) > 60:
		return "a long value"
	}
	return string(raw)
}
