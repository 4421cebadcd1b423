package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aphex-pipeline/aphex/e2e/cluster"
	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/plugin/nudge"
)

const (
	// sampleEvery is how often memory is looked at.
	sampleEvery = 10 * time.Second
	// controllerDeployment is Argo's.
	controllerDeployment = "deployment/workflow-controller"
)

// observed is what is seen from outside while the Workflows run.
type observed struct {
	done sync.WaitGroup

	mu     sync.Mutex
	err    error
	nudges map[string]map[string]bool // values of the annotation, by Workflow
	// conflicts are the controller's writes that met another one, and how
	// often it gave up.
	conflicts, lines int
	memory           []sample
}

// sample is the memory in use, in bytes.
type sample struct {
	at         time.Time
	controller int64
	sidecars   []int64
}

// observe begins to look until ctx ends.
func observe(ctx context.Context, l *lab.Lab) (*observed, error) {
	o := &observed{nudges: map[string]map[string]bool{}}
	logs := exec.CommandContext(ctx, l.Cluster.Tools().Kubectl, "--kubeconfig", l.Cluster.Kubeconfig(),
		"logs", "-n", cluster.ControllerNamespace, controllerDeployment, "-f", "--since=1s")
	pipe, err := logs.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := logs.Start(); err != nil {
		return nil, fmt.Errorf("follow the controller's log: %w", err)
	}
	o.done.Go(func() {
		o.readLog(pipe)
		if err := logs.Wait(); ctx.Err() == nil {
			o.fail(fmt.Errorf("the controller's log ended early: %w", err))
		}
	})
	o.done.Go(func() {
		err := l.WatchWorkflows(ctx, func(name string, annotations map[string]string) {
			value, ok := annotations[nudge.Annotation]
			if !ok {
				return
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			if o.nudges[name] == nil {
				o.nudges[name] = map[string]bool{}
			}
			o.nudges[name][value] = true
		})
		if ctx.Err() == nil {
			o.fail(fmt.Errorf("the watch of Workflows ended early: %w", err))
		}
	})
	o.done.Go(func() { o.sampleMemory(ctx, l) })
	return o, nil
}

func (o *observed) wait() error {
	o.done.Wait()
	return o.err
}

func (o *observed) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = errors.Join(o.err, err)
}

// readLog counts what the controller says of conflicts.
func (o *observed) readLog(log io.Reader) {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		o.mu.Lock()
		o.lines++
		if strings.Contains(lines.Text(), "the object has been modified") {
			o.conflicts++
		}
		o.mu.Unlock()
	}
	if err := lines.Err(); err != nil && !errors.Is(err, io.ErrClosedPipe) && !strings.Contains(err.Error(), "file already closed") {
		o.fail(fmt.Errorf("read the controller's log: %w", err))
	}
}

func (o *observed) sampleMemory(ctx context.Context, l *lab.Lab) {
	ticker := time.NewTicker(sampleEvery)
	defer ticker.Stop()
	for {
		used, err := l.Memory(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil { // a kubelet that is busy is asked again
			s := sample{at: time.Now()}
			for container, bytes := range used {
				switch {
				case strings.HasSuffix(container, "/workflow-controller"):
					s.controller = bytes
				case strings.HasSuffix(container, "/aphex-executor-plugin") && bytes > 0:
					s.sidecars = append(s.sidecars, bytes)
				}
			}
			slices.Sort(s.sidecars)
			o.mu.Lock()
			o.memory = append(o.memory, s)
			o.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
