package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

const (
	namespace = "shop"
	wfName    = "shop-x7k2p"
	wfUID     = "0b1c2d3e-aaaa-bbbb-cccc-111122223333"
	token     = "s3cret-of-the-agent"
	// deadline bounds every wait. It only matters when a test fails.
	deadline = 90 * time.Second

	workflows = "workflows"
	taskSets  = "workflowtasksets"
)

// world is a Workflow, its task set and who works on them. The test itself is
// the controller.
type world struct {
	t    *testing.T
	kube *kubetest.Server
	tap  *tap
	dir  string // of the agent pod
	// workers is the agent's number of workers, if not its default, and token
	// the one that it presents.
	workers, token string

	mu    sync.Mutex
	steps map[string]step // by node id
	epoch time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, kube: kubetest.New(t), dir: t.TempDir(), token: token, steps: map[string]step{}, epoch: time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)}
	w.kube.Put(workflows, kubetest.Object{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
		"metadata": map[string]any{"name": wfName, "namespace": namespace, "uid": wfUID},
		"spec":     map[string]any{}, "status": map[string]any{"phase": "Running", "startedAt": w.epoch.Format(time.RFC3339), "nodes": map[string]any{}},
	})
	w.kube.Put(taskSets, kubetest.Object{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTaskSet",
		"metadata": map[string]any{"name": wfName, "namespace": namespace, "ownerReferences": []any{map[string]any{
			"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": wfName, "uid": wfUID, "controller": true,
		}}},
		"spec": map[string]any{"tasks": map[string]any{}},
	})
	w.tap = newTap(t, w)
	return w
}

// step is one plugin step of the Workflow.
type step struct {
	stage string
	// plugin is the key of the body, "aphex" unless set.
	plugin string
	// more are further keys of the body.
	more map[string]any
	// name tells steps of one stage apart.
	name string
}

func (s step) node() string {
	node := wfName + "." + s.stage
	if s.name != "" {
		node += "-" + s.name
	}
	return node
}

func (s step) id() string {
	if attempt, ok := s.more["attempt"]; ok {
		return kube.NodeID(wfName, fmt.Sprintf("%s(%s)", s.node(), attempt))
	}
	return kube.NodeID(wfName, s.node())
}

// template is the step as the controller puts it into the task set.
func (s step) template() kubetest.Object {
	body := map[string]any{
		"stage": s.stage, "pipeline": "shop", "node": s.node(), "topology": "sha256:00",
		"config": "aphex-config.yaml", "repo": "https://git.test/shop.git",
		"commit": "0123456789012345678901234567890123456789", "branch": "main", "allowOlder": "false",
	}
	switch s.stage {
	case task.StageDeployEnv, task.StageTest:
		body["environment"] = s.name
	case task.StageFinish:
		body["status"] = "Succeeded"
	}
	maps.Copy(body, s.more)
	var outputs []any
	for _, name := range task.Outputs(s.stage) {
		outputs = append(outputs, map[string]any{"name": name, "valueFrom": map[string]any{"supplied": map[string]any{}}})
	}
	plugin := s.plugin
	if plugin == "" {
		plugin = "aphex"
	}
	return kubetest.Object{
		"name": s.stage, "timeout": "1h", "plugin": map[string]any{plugin: body},
		"outputs": map[string]any{"parameters": outputs},
	}
}

// schedule makes the controller create the step's node.
func (w *world) schedule(steps ...step) {
	w.mu.Lock()
	for _, s := range steps {
		w.steps[s.id()] = s
	}
	w.mu.Unlock()
	w.kube.Change(workflows, namespace, wfName, func(o kubetest.Object) {
		for _, s := range steps {
			branch(o, "status", "nodes")[s.id()] = map[string]any{"id": s.id(), "name": s.node(), "type": "Plugin", "phase": "Pending"}
		}
	})
	w.fillTasks()
}

// fillTasks puts every unfinished node's task into the task set.
func (w *world) fillTasks() {
	w.mu.Lock()
	defer w.mu.Unlock()
	unfinished := map[string]step{}
	for id, s := range w.steps {
		if !kube.Fulfilled(w.phase(s)) {
			unfinished[id] = s
		}
	}
	w.kube.Change(taskSets, namespace, wfName, func(o kubetest.Object) {
		for id, s := range unfinished {
			branch(o, "spec", "tasks")[id] = s.template()
		}
	})
}

// reconcile does what the controller does: it copies the task set's results
// over the nodes, without a look at what those are, removes what is finished
// from the task set and then writes the Workflow. If that write is lost, so
// are the results.
func (w *world) reconcile() { w.reconcileWith(true) }

func (w *world) reconcileWith(written bool) {
	results := w.results()
	w.kube.Change(taskSets, namespace, wfName, func(o kubetest.Object) {
		for id, r := range results {
			if kube.Fulfilled(string(r.Phase)) {
				delete(branch(o, "spec", "tasks"), id)
				delete(branch(o, "status", "nodes"), id)
			}
		}
	})
	if written {
		w.kube.Change(workflows, namespace, wfName, func(o kubetest.Object) {
			for id, r := range results {
				if node, ok := branch(o, "status", "nodes")[id].(map[string]any); ok {
					node["phase"], node["message"] = string(r.Phase), r.Message
				}
			}
		})
	}
	w.fillTasks()
}

// stop is `argo stop`: unfinished nodes are failed, and the run goes on with
// its exit handlers.
func (w *world) stop() {
	w.kube.Change(workflows, namespace, wfName, func(o kubetest.Object) {
		branch(o, "spec")["shutdown"] = "Stop"
		for _, raw := range branch(o, "status", "nodes") {
			if node, ok := raw.(map[string]any); ok && !kube.Fulfilled(fmt.Sprint(node["phase"])) {
				node["phase"], node["message"] = "Failed", "Stopped with strategy 'Stop'"
			}
		}
	})
}

// end marks the run as over. The controller deletes the pod right after that.
func (w *world) end(phase string) {
	w.kube.Change(workflows, namespace, wfName, func(o kubetest.Object) { branch(o, "status")["phase"] = phase })
	w.kube.Change(taskSets, namespace, wfName, func(o kubetest.Object) {
		branch(o, "metadata", "labels")["workflows.argoproj.io/completed"] = "true"
	})
}

// retry is `argo retry` of the given steps: same ids, new start.
func (w *world) retry(steps ...step) {
	w.mu.Lock()
	w.epoch = w.epoch.Add(time.Minute)
	started := w.epoch.Format(time.RFC3339)
	w.mu.Unlock()
	w.kube.Change(workflows, namespace, wfName, func(o kubetest.Object) {
		status := branch(o, "status")
		status["phase"], status["startedAt"] = "Running", started
		delete(branch(o, "spec"), "shutdown")
	})
	w.kube.Change(taskSets, namespace, wfName, func(o kubetest.Object) {
		delete(branch(o, "metadata", "labels"), "workflows.argoproj.io/completed")
	})
	w.schedule(steps...)
}

// phase is what the Workflow says of a step.
func (w *world) phase(s step) string {
	node, ok := branch(w.kube.Get(workflows, namespace, wfName), "status", "nodes")[s.id()].(map[string]any)
	if !ok {
		return ""
	}
	return fmt.Sprint(node["phase"])
}

// results is what the agent has reported.
func (w *world) results() map[string]wfv1.NodeResult {
	raw, err := json.Marshal(branch(w.kube.Get(taskSets, namespace, wfName), "status", "nodes"))
	require.NoError(w.t, err)
	var results map[string]wfv1.NodeResult
	require.NoError(w.t, json.Unmarshal(raw, &results), "the task set's status is of the shape Argo knows")
	return results
}

// tasks are the ids the agent is to run.
func (w *world) tasks() []string {
	return slices.Sorted(maps.Keys(branch(w.kube.Get(taskSets, namespace, wfName), "spec", "tasks")))
}

// result waits for the agent to report a step in one of the phases.
func (w *world) result(s step, phases ...wfv1.NodePhase) wfv1.NodeResult {
	w.t.Helper()
	var last wfv1.NodeResult
	w.until(fmt.Sprintf("%s is reported as %v", s.node(), phases), func() bool {
		last = w.results()[s.id()]
		return slices.Contains(phases, last.Phase)
	})
	return last
}

// final waits for the step's last word.
func (w *world) final(s step) wfv1.NodeResult {
	w.t.Helper()
	return w.result(s, wfv1.NodeSucceeded, wfv1.NodeFailed, wfv1.NodeError)
}

// until polls.
func (w *world) until(what string, holds func() bool) {
	w.t.Helper()
	end := time.Now().Add(deadline)
	for !holds() {
		if time.Now().After(end) {
			require.Fail(w.t, "waited in vain: "+what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// branch returns the map at the path, made if need be.
func branch(o kubetest.Object, path ...string) map[string]any {
	for _, key := range path {
		next, ok := o[key].(map[string]any)
		if !ok {
			next = map[string]any{}
			o[key] = next
		}
		o = next
	}
	return o
}

func parameters(n *wfv1.NodeResult) map[string]string {
	m := map[string]string{}
	if n.Outputs != nil {
		for _, p := range n.Outputs.Parameters {
			m[p.Name] = p.Value.String()
		}
	}
	return m
}
