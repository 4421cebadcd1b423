package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// The stages of a run as they stand in a topology. They equal the constants
// of tasks/task, which this package must not import; a test of tasks/workflow
// holds the two together.
const (
	stageValidate       = "validate"
	stageBuild          = "build"
	StageDeployPipeline = "deploy-pipeline" // may fail without its run
	StageDeployEnv      = "deploy-env"
	stageTest           = "test"
	stageFinish         = "finish"
)

// Node is one stage of a run.
type Node struct {
	// Stage is the stage's name, such as "deploy-env".
	Stage string
	// Environment is the environment's name for deploy-env and test, else
	// empty.
	Environment string
}

// Name returns the node's display name, unique in a run: the stage's name, or
// "deploy-<environment>" and "test-<environment>".
func (n Node) Name() string {
	switch n.Stage {
	case StageDeployEnv:
		return "deploy-" + n.Environment
	case stageTest:
		return "test-" + n.Environment
	}
	return n.Stage
}

// Topology returns the nodes of a run of c in the order they run: validate,
// build, deploy-pipeline, each environment's deploy-env with its test if it
// has test commands, and finish, which runs at the end whatever happened.
func Topology(c *Config) []Node {
	nodes := []Node{{Stage: stageValidate}, {Stage: stageBuild}, {Stage: StageDeployPipeline}}
	for _, env := range c.Environments {
		nodes = append(nodes, Node{Stage: StageDeployEnv, Environment: env.Name})
		if env.Tests != nil && len(env.Tests.Commands) > 0 {
			nodes = append(nodes, Node{Stage: stageTest, Environment: env.Name})
		}
	}
	return append(nodes, Node{Stage: stageFinish})
}

// TopologyDigest returns "sha256:<64 hex digits>" over the nodes of a run of c
// and their order. Nothing else of the configuration changes it.
func TopologyDigest(c *Config) string {
	return digest(Topology(c))
}

func digest(nodes []Node) string {
	pairs := make([][2]string, len(nodes))
	for i, n := range nodes {
		pairs[i] = [2]string{n.Stage, n.Environment}
	}
	b, err := json.Marshal(pairs)
	if err != nil { // pairs of strings always marshal
		panic(fmt.Sprintf("marshal topology: %v", err))
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}
