package reconcile

import (
	"slices"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/kube"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
)

// WithNodes adds to the stages of a run whose records could be read those that
// its Workflow says have ended, for whoever tells of a run without its records.
// Of them it is known how they ended and what they said, not when.
func WithNodes(w *kube.Workflow, read []record.Stage) []record.Stage {
	all := slices.Clone(read)
	for _, node := range w.Nodes() {
		stage, ok := stageOf(w, node)
		if ok && !slices.ContainsFunc(read, func(s record.Stage) bool { return s.StageName == stage.StageName }) {
			all = append(all, stage)
		}
	}
	return all
}

// stageOf is the stage that a node belongs to, see pipeline.Node.Name. The run
// itself, its finish stage and the attempts at a stage are none.
func stageOf(w *kube.Workflow, node kube.Node) (record.Stage, bool) {
	name, ok := strings.CutPrefix(node.Name, w.Name+".")
	failed := node.Phase == kube.PhaseFailed || node.Phase == kube.PhaseError
	if !ok || node.Name == w.Name+onExit || strings.ContainsAny(name, "(.") || !failed && node.Phase != kube.PhaseSucceeded {
		return record.Stage{}, false
	}
	stage, environment := name, ""
	if rest, ok := strings.CutPrefix(name, "deploy-"); ok && name != pipeline.StageDeployPipeline {
		stage, environment = pipeline.StageDeployEnv, rest
	} else if rest, ok := strings.CutPrefix(name, "test-"); ok {
		stage, environment = "test", rest
	}
	s := record.Stage{StageName: record.StageName(stage, environment), Stage: stage, Environment: environment, Status: record.Succeeded, StartedAt: w.StartedAt}
	if code := reasonCode.FindStringSubmatch(node.Message); code != nil {
		s.Reason = code[1]
	}
	if failed {
		s.Status, s.ErrorMessage = record.Failed, &node.Message
	} else {
		s.Message = node.Message
	}
	return s, true
}
