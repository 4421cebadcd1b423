package lab

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
)

const (
	// stagePods are the pods of runs, but for agent pods, whose plugin nudges
	// the controller itself.
	stagePods = labelRun + ",workflows.argoproj.io/component!=agent"
	labelRun  = "workflows.argoproj.io/workflow"
	// hurryAgain is when the controller is told a second time, in case it had
	// not heard of the pod's end at the first.
	hurryAgain = time.Second
)

// HurryStagePods makes the controller look at a run as soon as one of its stage
// pods has ended, until ctx ends. Left alone, the stock controller looks up to
// ten seconds later: several minutes for a suite with a pod for each stage.
func (l *Lab) HurryStagePods(ctx context.Context) error {
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(l.Dynamic, 0, l.Cluster.Namespace(),
		func(o *metav1.ListOptions) { o.LabelSelector = stagePods })
	_, err := factory.ForResource(pods).Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(before, after any) {
			if pod, ok := after.(*unstructured.Unstructured); ok && ended(after) && !ended(before) {
				go l.hurry(ctx, pod)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("watch the pods of stages: %w", err)
	}
	factory.Start(ctx.Done())
	return nil
}

// ended reports whether the pod has come to its end.
func ended(pod any) bool {
	obj, ok := pod.(*unstructured.Unstructured)
	if !ok {
		return false
	}
	is, err := podOf(obj)
	return err == nil && !is.AtWork()
}

// hurry writes the pod's Workflow.
func (l *Lab) hurry(ctx context.Context, pod *unstructured.Unstructured) {
	for _, what := range []string{"ended", "ended-again"} {
		patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"lab/%s":%q}}}`, what, pod.GetName())
		_, err := l.Dynamic.Resource(workflows).Namespace(pod.GetNamespace()).Patch(ctx, pod.GetLabels()[labelRun], types.MergePatchType, patch, metav1.PatchOptions{})
		if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) {
			_, _ = fmt.Fprintf(l.cfg.Log, "hurry the controller: %v\n", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(hurryAgain):
		}
	}
}
