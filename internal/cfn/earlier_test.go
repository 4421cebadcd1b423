package cfn_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/cfn"
	"github.com/aphex-pipeline/aphex/internal/testkit/effects"
)

// cutOff is a journal whose process dies before its nth write.
type cutOff struct {
	effects.Memory
	n int
}

func (c *cutOff) Put(ctx context.Context, name string, value []byte) error {
	if c.n--; c.n <= 0 {
		return errors.New("killed")
	}
	return c.Memory.Put(ctx, name, value)
}

// A retried run is a new execution, whose change set has another name.
func TestDeploy_RemovesTheChangeSetOfAnEarlierTry(t *testing.T) {
	t.Parallel()
	for what, status := range map[string]string{"new stack": "", "update": "CREATE_COMPLETE"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newScript(t)
			s.status, s.live = status, "{}"
			s.execute = complete("UPDATE_COMPLETE")
			first := &cutOff{n: 2}
			_, err := s.deploy(t, nil, func(c *cfn.Config) { c.Journal = first })
			require.ErrorContains(t, err, "killed")
			left := s.created.Get("ChangeSetName")
			require.Equal(t, []string{"CreateChangeSet"}, s.writes())

			_, err = s.deploy(t, func(in *cfn.Input) { in.Execution = "e, tried again" }, func(c *cfn.Config) { c.Journal = &effects.Memory{Before: first.Values()} })
			require.NoError(t, err)
			require.Equal(t, []string{"CreateChangeSet", "DeleteChangeSet", "CreateChangeSet", "ExecuteChangeSet"}, s.writes())
			require.Equal(t, []string{left}, s.deleted)
			require.NotEqual(t, left, s.created.Get("ChangeSetName"))
		})
	}
}

func TestDeploy_LeavesAloneWhatAnEarlierTryBroughtToItsEnd(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.execute = complete("CREATE_COMPLETE")
	first := &cutOff{n: 100}
	_, err := s.deploy(t, nil, func(c *cfn.Config) { c.Journal = first })
	require.NoError(t, err)
	s.live = "{}"
	_, err = s.deploy(t, func(in *cfn.Input) { in.Execution = "e, tried again" }, func(c *cfn.Config) { c.Journal = &effects.Memory{Before: first.Values()} })
	require.NoError(t, err)
	require.Empty(t, s.deleted)
}
