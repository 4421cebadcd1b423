package pipeline

import (
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
	name = replacementName(r)
	parameters := make([]any, 0, len(r.Arguments))
	for _, argument := range slices.Sorted(maps.Keys(r.Arguments)) {
		parameters = append(parameters, map[string]any{"name": argument, "value": r.Arguments[argument]})
	}
	return name, map[string]any{
		"apiVersion": "argoproj.io/v1alpha1",
		"kind":       "Workflow",
		"metadata": map[string]any{
			"name":      name,
			"namespace": r.Namespace,
			"labels": map[string]any{
				LabelPipeline: r.Pipeline,
				// What Argo's own submission sets, and its UI filters by.
				"workflows.argoproj.io/workflow-template": r.Pipeline,
			},
			"annotations": map[string]any{AnnotationReplaces: r.Name},
		},
		"spec": map[string]any{
			"workflowTemplateRef": map[string]any{"name": r.Pipeline},
			"arguments":           map[string]any{"parameters": parameters},
		},
	}
}

// replacementName is the run's name with a suffix made from its UID and the
// digest. A run that is a replacement itself loses its suffix first, so that
// names do not grow.
func replacementName(r Replaced) string {
	sum := sha256.Sum256([]byte(r.UID + "\x00" + r.Topology))
	suffix := "-r" + hex.EncodeToString(sum[:5])
	base := regexp.MustCompile(`-r[0-9a-f]{10}\z`).ReplaceAllString(r.Name, "")
	if len(base)+len(suffix) > maxRunName {
		base = base[:maxRunName-len(suffix)]
	}
	return strings.TrimRight(base, "-.") + suffix
}
