package validate_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/tasks/validate"
)

func TestLabels_AreGivenToARunThatLacksThemAlone(t *testing.T) {
	t.Parallel()
	s := cluster(t, "")
	req := staleRun()
	req.Commit = strings.Repeat("0a", 20)
	label := validate.Labels(s.Client(t))
	require.NoError(t, label(t.Context(), req))
	meta, ok := s.Get("workflows", "shop", "shop-1")["metadata"].(map[string]any)
	require.True(t, ok)
	require.Equal(t, map[string]any{pipeline.LabelPipeline: "shop", pipeline.LabelCommit: req.Commit}, meta["labels"])
	require.Equal(t, 1, writes(s))

	require.NoError(t, label(t.Context(), req))
	require.Equal(t, 1, writes(s), "it has them")

	s = cluster(t, "")
	req.Run.UID, req.Commit = "another", "HEAD"
	require.NoError(t, validate.Labels(s.Client(t))(t.Context(), req))
	require.Zero(t, writes(s), "a run of the same name is another run")
	req.Run.UID = "uid-1"
	require.NoError(t, validate.Labels(s.Client(t))(t.Context(), req))
	meta, ok = s.Get("workflows", "shop", "shop-1")["metadata"].(map[string]any)
	require.True(t, ok)
	require.Equal(t, map[string]any{pipeline.LabelPipeline: "shop"}, meta["labels"], "what is no commit is no label")
}
