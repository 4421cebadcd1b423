package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/aphex-pipeline/aphex/e2e/lab"
)

// Victim is what is killed.
type Victim string

// The victims: three processes of the agent pod by SIGKILL, the pod by an
// ordinary deletion, by one without any grace, and by its node declaring it
// failed.
const (
	Sidecar   Victim = "sidecar"
	Worker    Victim = "worker"
	Agent     Victim = "agent"
	Pod       Victim = "pod"
	PodForced Victim = "pod-forced"
	Node      Victim = "node"
)

// Victims are all of them.
func Victims() []Victim { return []Victim{Sidecar, Worker, Agent, Pod, PodForced, Node} }

// serves reports whether the victim's death is the end of the sidecar's
// process at once.
func (v Victim) serves() bool { return v == Sidecar || v == PodForced }

// command is how the command lines of the victim begin, NUL-separated.
func (v Victim) command() []string {
	switch v {
	case Sidecar:
		return []string{"aphex\x00plugin\x00"}
	case Worker:
		return []string{"/aphex/bin/aphex\x00worker\x00"}
	case Agent:
		return []string{"argoexec\x00agent\x00main", "/bin/argoexec\x00agent\x00main", "/var/run/argo/argoexec\x00agent\x00main"}
	case Pod, PodForced, Node:
	}
	return nil
}

var podResource = schema.GroupVersionResource{Version: "v1", Resource: "pods"}

const (
	// deathLimit bounds the wait for a process that got SIGKILL.
	deathLimit = 15 * time.Second
	deathPoll  = 5 * time.Millisecond
)

// errNobody is a victim that is not there at the moment.
var errNobody = errors.New("there is no such victim")

// nobodyPoll is how often it is looked for again.
const nobodyPoll = 50 * time.Millisecond

// kill kills the victim in the present agent pod of run, and returns the pod's
// UID once the victim is dead.
func kill(ctx context.Context, l *lab.Lab, run *lab.Run, v Victim) (podUID string, err error) {
	pods := l.Dynamic.Resource(podResource).Namespace(run.Namespace)
	pod, err := pods.Get(ctx, run.AgentPod(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", errNobody
	}
	if err != nil {
		return "", fmt.Errorf("find the agent pod: %w", err)
	}
	uid := string(pod.GetUID())
	switch v {
	case Sidecar, Worker, Agent:
		return uid, killProcess(ctx, uid, v)
	case Pod:
		return uid, pods.Delete(ctx, pod.GetName(), metav1.DeleteOptions{})
	case PodForced:
		if err := pods.Delete(ctx, pod.GetName(), metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
			return uid, err
		}
		return uid, killAll(ctx, uid)
	case Node:
		patch := []byte(`{"status": {"phase": "Failed", "reason": "NodeLost", "message": "the node was lost"}}`)
		_, err := pods.Patch(ctx, pod.GetName(), types.MergePatchType, patch, metav1.PatchOptions{}, "status")
		return uid, errors.Join(err, killAll(ctx, uid))
	}
	return uid, fmt.Errorf("victim %q is unknown", v)
}

// killProcess kills the one process of a pod that is the victim.
func killProcess(ctx context.Context, podUID string, v Victim) error {
	all, err := processes(podUID)
	if err != nil {
		return err
	}
	for _, p := range all {
		for _, prefix := range v.command() {
			if strings.HasPrefix(p.command, prefix) && !strings.Contains(p.command, "--wait-ready") {
				return p.kill(ctx, podUID)
			}
		}
	}
	return fmt.Errorf("%w: the pod has only %v", errNobody, all)
}

// killAll kills every process of a pod.
func killAll(ctx context.Context, podUID string) error {
	all, err := processes(podUID)
	for _, p := range all {
		err = errors.Join(err, p.kill(ctx, podUID))
	}
	return err
}

// process is a process of a pod on this machine.
type process struct {
	pid     int
	command string
}

// String is the number and the command line.
func (p process) String() string {
	return fmt.Sprintf("%d (%s)", p.pid, strings.TrimSpace(strings.ReplaceAll(p.command, "\x00", " ")))
}

// processes lists the processes in the control groups of a pod.
func processes(podUID string) ([]process, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return nil, err
	}
	var found []process
	for _, file := range files {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil || !ofPod(pid, podUID) {
			continue
		}
		command, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		if err != nil || len(command) == 0 || bytes.HasPrefix(command, []byte("/pause")) {
			continue
		}
		found = append(found, process{pid: pid, command: string(command)})
	}
	return found, nil
}

// ofPod reports whether a process is in a control group of the pod.
func ofPod(pid int, podUID string) bool {
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && bytes.Contains(groups, []byte("pod"+podUID))
}

// kill ends the process with SIGKILL, and no other that has its number by now,
// and waits for its end.
func (p process) kill(ctx context.Context, podUID string) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) { // the latter while it ends, since Linux 6.15
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %s: %w", p, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if !ofPod(p.pid, podUID) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %s: %w", p, err)
	}
	ctx, cancel := context.WithTimeout(ctx, deathLimit)
	defer cancel()
	for {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if ready > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %s does not die: %w", p, context.Cause(ctx))
		case <-time.After(deathPoll):
		}
	}
}
