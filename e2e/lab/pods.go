package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

var pods = schema.GroupVersionResource{Version: "v1", Resource: "pods"}

// Pod is a pod of a run.
type Pod struct{ Name, UID, Phase string }

// AtWork reports whether the pod has not come to its end.
func (p Pod) AtWork() bool { return p.Phase != "Succeeded" && p.Phase != "Failed" }

// Pods lists the pods that a run has now.
func (l *Lab) Pods(ctx context.Context, run *Run) ([]Pod, error) {
	list, err := l.Dynamic.Resource(pods).Namespace(run.Namespace).List(ctx, metav1.ListOptions{LabelSelector: labelRun + "=" + run.Name})
	if err != nil {
		return nil, fmt.Errorf("list the pods of run %s: %w", run.Name, err)
	}
	found := make([]Pod, 0, len(list.Items))
	for i := range list.Items {
		pod, err := podOf(&list.Items[i])
		if err != nil {
			return nil, err
		}
		found = append(found, pod)
	}
	return found, nil
}

func podOf(obj *unstructured.Unstructured) (Pod, error) {
	phase, _, err := unstructured.NestedString(obj.Object, "status", "phase")
	if err != nil {
		return Pod{}, fmt.Errorf("read pod %s: %w", obj.GetName(), err)
	}
	return Pod{Name: obj.GetName(), UID: string(obj.GetUID()), Phase: phase}, nil
}

// PodWatch counts the pods of a namespace over time.
type PodWatch struct {
	stop func()
	done chan struct{}

	mu   sync.Mutex
	uids map[string]string
	err  error
}

// WatchPods begins to record every pod that exists in the namespace from now
// on, however short its life.
func (l *Lab) WatchPods(ctx context.Context, namespace string) (*PodWatch, error) {
	list, err := l.Dynamic.Resource(pods).Namespace(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &PodWatch{stop: cancel, done: make(chan struct{}), uids: map[string]string{}}
	events, err := l.Dynamic.Resource(pods).Namespace(namespace).Watch(ctx, metav1.ListOptions{ResourceVersion: list.GetResourceVersion()})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	go w.collect(ctx, events)
	return w, nil
}

func (w *PodWatch) collect(ctx context.Context, events watch.Interface) {
	defer close(w.done)
	defer events.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case event, open := <-events.ResultChan():
			w.mu.Lock()
			switch pod, ok := event.Object.(*unstructured.Unstructured); {
			case !open || event.Type == watch.Error:
				w.err = errors.New("the watch of pods ended early")
			case ok && event.Type == watch.Added:
				w.uids[string(pod.GetUID())] = pod.GetName()
			}
			failed := w.err != nil
			w.mu.Unlock()
			if failed {
				return
			}
		}
	}
}

// Stop ends the watch and returns the names of the pods of a run that were
// created during it. It fails if the watch missed a part of that time.
func (w *PodWatch) Stop(run *Run) ([]string, error) {
	w.stop()
	<-w.done
	w.mu.Lock()
	defer w.mu.Unlock()
	names := make([]string, 0, len(w.uids))
	for _, name := range w.uids {
		if strings.HasPrefix(name, run.Name+"-") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, w.err
}
