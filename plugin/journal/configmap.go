package journal

import (
	"context"
	"errors"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// maxConfigMap is what the document may weigh. The API server refuses
// ConfigMaps whose data exceed 1 MiB.
const maxConfigMap = 900 << 10

const grantRemedy = "Grant the service account aphex-executor-plugin get, create and update on config maps"

// configMaps is what a book needs of the cluster.
type configMaps interface {
	ConfigMap(ctx context.Context, namespace, name string) (*kube.ConfigMap, error)
	CreateConfigMap(ctx context.Context, cm *kube.ConfigMap) (*kube.ConfigMap, error)
	UpdateConfigMap(ctx context.Context, cm *kube.ConfigMap) (*kube.ConfigMap, error)
}

var _ configMaps = (*kube.Client)(nil)

// Kube is a Journal in ConfigMaps, one per run, in the run's namespace and
// owned by its Workflow. It needs get, create and update on them.
type Kube struct {
	client   configMaps
	podUID   string
	pipeline string
	overflow Overflow
	now      func() time.Time
}

// NewKube returns a Kube journal for the process in the pod podUID that serves
// pipeline, which becomes a label.
func NewKube(client configMaps, podUID, pipeline string) *Kube {
	return &Kube{client: client, podUID: podUID, pipeline: pipeline, now: time.Now}
}

// WithOverflow makes k keep in overflow what does not fit into a ConfigMap.
// Without it, what earlier tries have left is dropped then, and when that is
// not enough the journal is full.
func (k *Kube) WithOverflow(overflow Overflow) *Kube {
	k.overflow = overflow
	return k
}

// Open implements Journal.
func (k *Kube) Open(ctx context.Context, run task.Run) (Book, error) { //nolint:ireturn // as Journal asks
	return open(ctx, &configMapBackend{kube: k, run: run, shelf: newShelf(k.overflow, run.UID)}, k.podUID, k.now)
}

type configMapBackend struct {
	kube  *Kube
	run   task.Run
	shelf *shelf
}

func (b *configMapBackend) load(ctx context.Context) (*document, string, error) {
	cm, err := b.kube.client.ConfigMap(ctx, b.run.Namespace, Name(b.run.UID))
	if errors.Is(err, kube.ErrNotFound) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", rejected(err)
	}
	if o := cm.Owner; o == nil || o.UID != b.run.UID {
		return nil, "", corrupt("config map %s/%s is not owned by workflow %s", cm.Namespace, cm.Name, b.run.UID)
	}
	d, err := decode(ctx, cm.Data, b.shelf)
	if err != nil {
		return nil, "", err
	}
	return d, cm.ResourceVersion, nil
}

func (b *configMapBackend) save(ctx context.Context, d *document, version string) (string, error) {
	data, err := d.encode(ctx, maxConfigMap, b.shelf)
	if err != nil {
		return "", err
	}
	cm := &kube.ConfigMap{
		Namespace: b.run.Namespace, Name: Name(b.run.UID), ResourceVersion: version,
		Labels: map[string]string{
			"app.kubernetes.io/managed-by": "aphex",
			pipeline.LabelComponent:        pipeline.ComponentJournal,
		},
		Annotations: map[string]string{pipeline.AnnotationWorkflow: b.run.Name},
		Data:        data,
		Owner:       kube.WorkflowOwner(b.run.Name, b.run.UID),
	}
	if b.kube.pipeline != "" {
		cm.Labels[pipeline.LabelPipeline] = b.kube.pipeline
	}
	write := b.kube.client.UpdateConfigMap
	if version == "" {
		write = b.kube.client.CreateConfigMap
	}
	stored, err := write(ctx, cm)
	switch {
	case err == nil:
		return stored.ResourceVersion, nil
	case errors.Is(err, kube.ErrConflict), errors.Is(err, kube.ErrExists), errors.Is(err, kube.ErrNotFound):
		return "", errors.Join(errStale, err)
	}
	return "", rejected(err)
}

// hopeless: a refusal stays one, and so does a document that cannot be read.
func (b *configMapBackend) hopeless(err error) bool {
	if errors.Is(err, kube.ErrForbidden) {
		return true
	}
	f, ok := errors.AsType[*fault.Fault](err)
	return ok && f.Class != fault.Transient
}

func rejected(err error) error {
	return kube.Fault("keep the run's journal", err, grantRemedy,
		"Check that the Kubernetes API server answers, then retry the run")
}
