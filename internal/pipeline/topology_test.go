package pipeline_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

func environments(names ...string) *pipeline.Config {
	cfg := &pipeline.Config{}
	for _, name := range names {
		cfg.Environments = append(cfg.Environments, pipeline.Environment{Name: name})
	}
	return cfg
}

func TestTopology_OrderOfNodes(t *testing.T) {
	t.Parallel()
	cfg := environments("dev", "stage", "prod")
	cfg.Environments[0].Tests = &pipeline.Tests{Commands: []string{"make test"}}
	cfg.Environments[1].Tests = &pipeline.Tests{}
	var names []string
	for _, node := range pipeline.Topology(cfg) {
		names = append(names, node.Name())
	}
	require.Equal(t, []string{"validate", "build", "deploy-pipeline", "deploy-dev", "test-dev", "deploy-stage", "deploy-prod", "finish"}, names)
}

// The digest stands in running templates: it must not change with a version
// of aphex unless the nodes do.
func TestTopologyDigest_IsStable(t *testing.T) {
	t.Parallel()
	require.Equal(t, "sha256:30f6ab818dd80af4aa983b0d6e256ad23a1d70b147895d8b94ea6da62aee1f3d", pipeline.TopologyDigest(environments("dev", "prod")))
}

func TestTopologyDigest_ChangesWithNodesAlone(t *testing.T) {
	t.Parallel()
	base := pipeline.TopologyDigest(environments("dev", "prod"))
	same := environments("dev", "prod")
	same.Build.Commands = []string{"make"}
	same.Environments[0].Region = "eu-west-1"
	same.Environments[0].Stacks = []pipeline.Stack{{Name: "a", Path: "b"}}
	same.Environments[1].Tests = &pipeline.Tests{}
	same.Worker.Image = "other"
	require.Equal(t, base, pipeline.TopologyDigest(same))

	tested := environments("dev", "prod")
	tested.Environments[0].Tests = &pipeline.Tests{Commands: []string{"x"}}
	for name, other := range map[string]*pipeline.Config{
		"order": environments("prod", "dev"), "fewer": environments("dev"), "more": environments("dev", "prod", "x"), "tests": tested,
	} {
		require.NotEqual(t, base, pipeline.TopologyDigest(other), name)
	}
}

// Feature: aphex-pipeline, Property 7: Self-modification visibility
func TestTopologyDigest_IsInjective(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfN(rapid.StringMatching(`[a-z0-9-]{1,4}`), 1, 4)
		a, b := names.Draw(t, "a"), names.Draw(t, "b")
		equal := fmt.Sprint(a) == fmt.Sprint(b)
		require.Equal(t, equal, pipeline.TopologyDigest(environments(a...)) == pipeline.TopologyDigest(environments(b...)))
	})
}
