package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
)

// DefaultSettle is how long ago a run must have ended before its record is
// looked at: the last stage may still be writing.
const DefaultSettle = 30 * time.Second

// maxErrors bounds what one Pass reports; one cause usually meets every run.
const maxErrors = 5

// journalSelector fits the journals of runs, see plugin/journal.
const journalSelector = pipeline.LabelComponent + "=" + pipeline.ComponentJournal

// cluster is what reconciling needs of internal/kube.
type cluster interface {
	Workflow(ctx context.Context, namespace, name string) (*kube.Workflow, error)
	EachWorkflow(ctx context.Context, namespace, selector string, fn func(*kube.Workflow) error) error
	LabelWorkflow(ctx context.Context, namespace, name, uid string, labels map[string]string) (*kube.Workflow, error)
	podsAndMaps
}

// podsAndMaps is the rest of cluster.
type podsAndMaps interface {
	Pod(ctx context.Context, namespace, name string) (*kube.Pod, error)
	Pods(ctx context.Context, namespace, selector string) ([]*kube.Pod, error)
	DeletePod(ctx context.Context, pod *kube.Pod) error
	ConfigMap(ctx context.Context, namespace, name string) (*kube.ConfigMap, error)
	ConfigMaps(ctx context.Context, namespace, selector string) ([]*kube.ConfigMap, error)
	DeleteConfigMap(ctx context.Context, namespace, name string) error
}

var _ cluster = (*kube.Client)(nil)

// Config is what a Reconciler is made of. Cluster, Namespace, Records and
// Output are required.
type Config struct {
	Cluster   cluster
	Namespace string
	// Records opens the records of a pipeline. It is called at most once for
	// each pipeline in a Pass.
	Records func(ctx context.Context, inst pipeline.Installation) (*record.Recorder, error)
	// News tells channels of the end of a run; nil for nobody. It is called at
	// most once for each pipeline in a Pass.
	News func(ctx context.Context, inst pipeline.Installation) (Announcer, error)
	// Figures sends the figures of the end of a run, but for those of stages that
	// had ended by since; nil for nowhere.
	Figures func(ctx context.Context, inst pipeline.Installation) (Figures, error)
	// Output receives one line for each thing done.
	Output io.Writer
	// DryRun says what would be done and does nothing.
	DryRun bool
	// Settle is how long ago a run must have ended; zero means at once.
	Settle time.Duration
	// Answer is how long a bucket may take for one call; zero means
	// DefaultAnswer.
	Answer time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Announcer is what reconciling needs of internal/notify.
type Announcer interface {
	Announce(ctx context.Context, channels []pipeline.Notification, e notify.Event, skip func(n int) bool, sent func(n int)) []record.Notification
}

var _ Announcer = (*notify.Sender)(nil)

// Figures is what reconciling needs of internal/cloudwatch.
type Figures func(ctx context.Context, run record.Run, since time.Time) error

// opened is what a pipeline's runs are closed with.
type opened struct {
	records *records
	news    Announcer
	figures Figures
}

// Reconciler closes what runs of one namespace left open.
type Reconciler struct {
	cfg     Config
	opened  map[string]*opened
	errs    []error
	dropped int
}

// New returns a Reconciler for one Pass after the other; it is not safe for
// concurrent use, several of them are.
func New(cfg Config) *Reconciler {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Answer == 0 {
		cfg.Answer = DefaultAnswer
	}
	return &Reconciler{cfg: cfg}
}

// Pass looks at every pod, run and journal once. What goes wrong with one does
// not keep it from the next; the errors come together at the end.
//
// Errors: KubernetesRejected, StoreFailed, AWSUnavailable, CredentialsMissing,
// ConfigInvalid for a pipeline's installation; Cancelled.
func (r *Reconciler) Pass(ctx context.Context) error {
	r.opened, r.errs, r.dropped = map[string]*opened{}, nil, 0
	for _, part := range []func(context.Context) error{r.pods, r.runs, r.journals} {
		if err := part(ctx); err != nil {
			r.fail(rejected(err))
		}
		if ctx.Err() != nil {
			r.fail(fault.Wrap(fault.Transient, fault.Cancellation, "reconcile "+r.cfg.Namespace,
				"The next pass goes on where this one stopped; raise --timeout if none comes to an end", context.Cause(ctx)))
			break
		}
	}
	if r.dropped > 0 {
		r.errs = append(r.errs, fmt.Errorf("and %d more", r.dropped))
	}
	return errors.Join(r.errs...)
}

func (r *Reconciler) fail(err error) {
	if len(r.errs) == maxErrors {
		r.dropped++
		return
	}
	r.errs = append(r.errs, err)
}

// say reports a thing done, or to be done.
func (r *Reconciler) say(done, would, format string, args ...any) {
	verb := done
	if r.cfg.DryRun {
		verb = "would " + would
	}
	_, _ = fmt.Fprintf(r.cfg.Output, "%s %s\n", verb, fmt.Sprintf(format, args...)) // what is done is done, said or not
}

// pods deletes failed agent pods. Argo does not replace such a pod while it is
// there, and fails every stage of its run at once. Nothing of it runs any
// more, and what it knew is in the journal, the bucket and the task set.
func (r *Reconciler) pods(ctx context.Context) error {
	pods, err := r.cfg.Cluster.Pods(ctx, r.cfg.Namespace, kube.SelectAgentPods+","+pipeline.LabelPipeline)
	if err != nil {
		return err
	}
	for _, pod := range pods {
		if pod.Phase != "Failed" || pod.Deleting {
			continue
		}
		if !r.cfg.DryRun {
			err := r.cfg.Cluster.DeletePod(ctx, pod)
			if errors.Is(err, kube.ErrNotFound) || errors.Is(err, kube.ErrConflict) {
				continue // somebody else was here; the next pass looks again
			}
			if err != nil {
				r.fail(rejected(err))
				continue
			}
		}
		cause := pod.Cause
		if cause == "" {
			cause = "its status says no cause"
		}
		r.say("removed", "remove", "agent pod %s of run %s: it had failed (%s)", pod.Name, pod.Workflow, cause)
	}
	return nil
}

// runs looks at the runs that are over, but for those that are marked.
func (r *Reconciler) runs(ctx context.Context) error {
	selector := pipeline.LabelPipeline + "," + pipeline.LabelRecorded + "!=true"
	return r.cfg.Cluster.EachWorkflow(ctx, r.cfg.Namespace, selector, func(w *kube.Workflow) error {
		if !w.Finished() || w.FinishedAt.IsZero() || r.cfg.Now().Sub(w.FinishedAt) < r.cfg.Settle {
			return nil
		}
		if err := r.run(ctx, w); err != nil {
			r.fail(err)
		}
		return ctx.Err()
	})
}

// journals deletes those of runs that are gone. Kubernetes does so itself as
// long as the owner is named; `kubectl delete --cascade=orphan` removes that.
func (r *Reconciler) journals(ctx context.Context) error {
	journals, err := r.cfg.Cluster.ConfigMaps(ctx, r.cfg.Namespace, journalSelector)
	if err != nil {
		return err
	}
	for _, journal := range journals {
		name := journal.Annotations[pipeline.AnnotationWorkflow]
		if journal.Owner != nil || name == "" {
			continue
		}
		_, err := r.cfg.Cluster.Workflow(ctx, r.cfg.Namespace, name)
		if err == nil {
			continue
		}
		if errors.Is(err, kube.ErrNotFound) && !r.cfg.DryRun {
			err = r.cfg.Cluster.DeleteConfigMap(ctx, r.cfg.Namespace, journal.Name)
		}
		if err != nil && !errors.Is(err, kube.ErrNotFound) {
			r.fail(rejected(err))
			continue
		}
		r.say("removed", "remove", "journal %s: run %s is gone", journal.Name, name)
	}
	return nil
}

// rejected gives what the API server refused a reason; other faults stay.
func rejected(err error) error {
	if _, ok := errors.AsType[*fault.Fault](err); ok {
		return err
	}
	return kube.Fault("reconcile", err, "Apply manifests/reconcile of this version: its role has what is needed", "The next pass tries again")
}
