package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/aphex-pipeline/aphex/tasks/task"
)

// pollEvery is the interval of polls whose deadline is the caller's context.
const pollEvery = 200 * time.Millisecond

var workflows = schema.GroupVersionResource{Group: "argoproj.io", Version: "v1alpha1", Resource: "workflows"}

// Run is one Workflow.
type Run struct {
	lab             *Lab
	Namespace, Name string
}

// Status is a Workflow's state, as far as tests look at it.
type Status struct {
	// Version changes whenever anybody writes the Workflow.
	Version string `json:"-"`
	UID     string `json:"uid"`
	Phase   string `json:"phase"`
	Message string `json:"message"`
	// Nodes are the stages' nodes in the order they began.
	Nodes []Node `json:"nodes"`
}

// Node is one stage of a run.
type Node struct {
	Name       string `json:"name"`
	Display    string `json:"displayName"`
	Type       string `json:"type"`
	Phase      string `json:"phase"`
	Message    string `json:"message"`
	StartedAt  string `json:"startedAt"`
	FinishedAt string `json:"finishedAt"`
	Outputs    struct {
		Parameters []struct {
			Name  string `json:"name"`
			Value string `json:"value"`
		} `json:"parameters"`
	} `json:"outputs"`
}

// Output returns an output parameter of the node, empty if it has none.
func (n Node) Output(name string) string {
	for _, p := range n.Outputs.Parameters {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

// Done reports whether the Workflow has ended.
func (s Status) Done() bool {
	return s.Phase == "Succeeded" || s.Phase == "Failed" || s.Phase == "Error"
}

// Node returns the stage with that display name, the last attempt if there
// are several; the zero Node if there is none.
func (s Status) Node(display string) Node {
	var found Node
	for _, n := range s.Nodes {
		if n.Display == display || strings.HasPrefix(n.Display, display+"(") {
			found = n
		}
	}
	return found
}

// Status reads the Workflow.
func (r *Run) Status(ctx context.Context) (Status, error) {
	obj, err := r.lab.Dynamic.Resource(workflows).Namespace(r.Namespace).Get(ctx, r.Name, metav1.GetOptions{})
	if err != nil {
		return Status{}, fmt.Errorf("read run %s: %w", r.Name, err)
	}
	return statusOf(obj)
}

func statusOf(obj *unstructured.Unstructured) (Status, error) {
	var wire struct {
		Status struct {
			Phase   string          `json:"phase"`
			Message string          `json:"message"`
			Nodes   map[string]Node `json:"nodes"`
		} `json:"status"`
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &wire); err != nil {
		return Status{}, fmt.Errorf("read run %s: %w", obj.GetName(), err)
	}
	s := Status{Version: obj.GetResourceVersion(), UID: string(obj.GetUID()), Phase: wire.Status.Phase, Message: wire.Status.Message}
	for _, n := range wire.Status.Nodes {
		// The node of a pod has a message of Argo's only if it failed.
		if n.Message == "" {
			n.Message = n.Output(task.OutputMessage)
		}
		if n.Type != "DAG" && n.Type != "Steps" && n.Type != "TaskGroup" && n.Type != "StepGroup" {
			s.Nodes = append(s.Nodes, n)
		}
	}
	slices.SortFunc(s.Nodes, func(a, b Node) int {
		if c := strings.Compare(a.StartedAt, b.StartedAt); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return s, nil
}

// Wait polls until the Workflow has ended or ctx does.
func (r *Run) Wait(ctx context.Context) (Status, error) {
	return r.Until(ctx, "the run ends", Status.Done)
}

// WaitEvery is Wait with an interval of its own, for many runs at once.
func (r *Run) WaitEvery(ctx context.Context, every time.Duration) (Status, error) {
	return r.until(ctx, "the run ends", every, Status.Done)
}

// Until polls until the condition holds. The error says what was waited for
// and what the run looked like at the end.
func (r *Run) Until(ctx context.Context, what string, holds func(Status) bool) (Status, error) {
	return r.until(ctx, what, pollEvery, holds)
}

func (r *Run) until(ctx context.Context, what string, every time.Duration, holds func(Status) bool) (Status, error) {
	for {
		status, err := r.Status(ctx)
		if err == nil && holds(status) {
			return status, nil
		}
		select {
		case <-ctx.Done():
			text, marshalErr := json.MarshalIndent(status, "", "  ")
			if marshalErr != nil {
				text = []byte(marshalErr.Error())
			}
			return status, fmt.Errorf("wait until %s: %w\n%s", what, errors.Join(context.Cause(ctx), err), text)
		case <-time.After(every):
		}
	}
}

// quiet is how long nobody has written a Workflow that is settled.
const quiet = 3 * time.Second

// Settled waits until nobody writes the Workflow any more, as a person does who
// looks at its end. The controller of v3.7.18 puts what it wrote last into its
// cache after the write: a retry in that moment is overwritten there, and not
// acted upon until somebody writes the Workflow again.
func (r *Run) Settled(ctx context.Context) error {
	version, since := "", time.Now()
	_, err := r.Until(ctx, "the Workflow is settled", func(status Status) bool {
		if status.Version != version {
			version, since = status.Version, time.Now()
		}
		return time.Since(since) >= quiet
	})
	return err
}

// Retry is `argo retry` of a run that has ended.
func (r *Run) Retry(ctx context.Context) error {
	for {
		if err := r.Settled(ctx); err != nil {
			return err
		}
		_, err := r.lab.Argo(ctx, "retry", r.Name, "-n", r.Namespace)
		// By the controller or a reconciler, at the same moment.
		if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "the object has been modified") {
			return err
		}
	}
}

// Terminate is `argo terminate`.
func (r *Run) Terminate(ctx context.Context) error {
	_, err := r.lab.Argo(ctx, "terminate", r.Name, "-n", r.Namespace)
	return err
}

// FailAgent lets the kubelet end the run's agent pod as Failed, as it does with
// pods it evicts: the pod gets a deadline that has passed.
func (r *Run) FailAgent(ctx context.Context) error {
	_, err := r.lab.Kubectl(ctx, nil, "patch", "pod", "-n", r.Namespace, r.AgentPod(), "-p", `{"spec":{"activeDeadlineSeconds":1}}`)
	return err
}

// Label returns a label of the Workflow, empty if it has none.
func (r *Run) Label(ctx context.Context, name string) (string, error) {
	obj, err := r.lab.Dynamic.Resource(workflows).Namespace(r.Namespace).Get(ctx, r.Name, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("read run %s: %w", r.Name, err)
	}
	return obj.GetLabels()[name], nil
}

// AgentSuffix ends the names of agent pods, behind that of their Workflow.
const AgentSuffix = "-1340600742-agent"

// AgentPod is the name of the run's agent pod: Argo's constant hash of its
// purpose.
func (r *Run) AgentPod() string { return r.Name + AgentSuffix }

// Log returns what the sidecar has logged so far.
func (r *Run) Log(ctx context.Context) (string, error) {
	return r.lab.Kubectl(ctx, nil, "logs", "-n", r.Namespace, r.AgentPod(), "-c", "aphex-executor-plugin")
}

// InSidecar runs a command in the sidecar's container and returns its output.
func (r *Run) InSidecar(ctx context.Context, command ...string) (string, error) {
	args := []string{"exec", "-n", r.Namespace, r.AgentPod(), "-c", "aphex-executor-plugin", "--"}
	return r.lab.Kubectl(ctx, nil, append(args, command...)...)
}

// FollowLogs copies the sidecar's log to out from the moment the pod runs. The
// function it returns stops that and waits for the end.
func (r *Run) FollowLogs(ctx context.Context, out io.Writer) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			cmd := exec.CommandContext(ctx, r.lab.Cluster.Tools().Kubectl, "--kubeconfig", r.lab.Cluster.Kubeconfig(),
				"logs", "-n", r.Namespace, r.AgentPod(), "-c", "aphex-executor-plugin", "-f")
			cmd.Stdout = out
			if cmd.Run() == nil {
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(pollEvery):
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
