package pipeline

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// maxRunName is the longest name Argo accepts for a Workflow.
const maxRunName = 63

// Replaced is a run that ended itself because the pipeline's template changed
// before it began.
type Replaced struct {
	// Name, Namespace and UID are the run's.
	Name, Namespace, UID string
	// Pipeline is the pipeline's name, which is its template's too.
	Pipeline string
	// Topology is the digest of the template now in the cluster.
	Topology string
	// Arguments are the run's arguments by name, passed on unchanged.
	Arguments map[string]string
}

// Replacement returns the run that takes the place of r: a Workflow made from
// the pipeline's template as it now stands, with the same arguments and a link
// to r in AnnotationReplaces. Its name depends on nothing but the run and the
// digest, so creating it twice makes one run.
//
// The manifest holds maps, slices and strings only.
func Replacement(r Replaced) (name string, manifest map[string]any) {
	name = derivedName(r.Name, "r", r.UID+"\x00"+r.Topology)
	return name, derived(name, r.Namespace, r.Pipeline, map[string]any{AnnotationReplaces: r.Name}, r.Arguments)
}

// HandedOver is a run that changed the pipeline's topology and leaves its
// environments to a successor.
type HandedOver struct {
	// Name, Namespace and UID are the run's.
	Name, Namespace, UID string
	// Pipeline is the pipeline's name, which is its template's too.
	Pipeline string
	// Arguments are the run's arguments by name.
	Arguments map[string]string
}

// Successor returns the run that h hands its environments over to: a Workflow
// made from the pipeline's template as it now stands, with the arguments of h,
// the UID of the run that built in ArgumentPredecessor (that of h, unless h
// took a build over itself) and a link to h in AnnotationSucceeds. Its name
// depends on nothing but the run, so a run has at most one.
//
// The manifest holds maps, slices and strings only.
func Successor(h HandedOver) (name string, manifest map[string]any) {
	name = derivedName(h.Name, "s", h.UID)
	arguments := maps.Clone(h.Arguments)
	if arguments == nil {
		arguments = map[string]string{}
	}
	arguments[ArgumentPredecessor] = cmp.Or(arguments[ArgumentPredecessor], h.UID)
	return name, derived(name, h.Namespace, h.Pipeline, map[string]any{AnnotationSucceeds: h.Name}, arguments)
}

// derived is a run of the pipeline's template with a link to the run it comes
// from.
func derived(name, namespace, pipeline string, link map[string]any, arguments map[string]string) map[string]any {
	parameters := make([]any, 0, len(arguments))
	for _, argument := range slices.Sorted(maps.Keys(arguments)) {
		parameters = append(parameters, map[string]any{"name": argument, "value": arguments[argument]})
	}
	return map[string]any{
		"apiVersion": "argoproj.io/v1alpha1",
		"kind":       "Workflow",
		"metadata": map[string]any{
			"name":      name,
			"namespace": namespace,
			"labels": map[string]any{
				LabelPipeline: pipeline,
				// What Argo's own submission sets, and its UI filters by.
				"workflows.argoproj.io/workflow-template": pipeline,
			},
			"annotations": link,
		},
		"spec": map[string]any{
			"workflowTemplateRef": map[string]any{"name": pipeline},
			"arguments":           map[string]any{"parameters": parameters},
		},
	}
}

// derivedName is a run's name with a suffix made from kind and identity. A run
// that is derived itself loses its suffix first, so that names do not grow.
func derivedName(run, kind, identity string) string {
	sum := sha256.Sum256([]byte(identity))
	suffix := "-" + kind + hex.EncodeToString(sum[:5])
	base := regexp.MustCompile(`-[rs][0-9a-f]{10}\z`).ReplaceAllString(run, "")
	if len(base)+len(suffix) > maxRunName {
		base = base[:maxRunName-len(suffix)]
	}
	return strings.TrimRight(base, "-.") + suffix
}
