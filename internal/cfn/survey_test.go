package cfn_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/cfn"
)

// A stack without a change costs two round trips: the template is read while
// the change set of an earlier process is looked for.
func TestDeploy_ReadsTheTemplateBesideTheChangeSet(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s := newScript(t)
	s.status, s.live = "CREATE_COMPLETE", template
	s.together = map[string]bool{"GetTemplate": true, "DescribeChangeSet": true}
	got, err := s.deployWithin(ctx, nil)
	require.NoError(t, err)
	require.Equal(t, cfn.NoChange, got.Outcome)
	require.Len(t, s.requests, 3, "%v", s.requests)
}

// Where the template decides nothing it is not read.
func TestDeploy_ReadsNoTemplateThatDecidesNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status string
		edit   func(*cfn.Input)
	}{
		"absent":     {"", nil},
		"unusable":   {"ROLLBACK_COMPLETE", nil},
		"other tags": {"CREATE_COMPLETE", func(in *cfn.Input) { in.Tags = map[string]string{"stage": "two"} }},
		"forced":     {"CREATE_COMPLETE", func(in *cfn.Input) { in.Force = true }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScript(t)
			s.status, s.live, s.execute = c.status, template, complete("UPDATE_COMPLETE")
			_, err := s.deploy(t, c.edit)
			require.NoError(t, err)
			require.False(t, slices.Contains(s.requests, "GetTemplate"), "%v", s.requests)
		})
	}
}

// A template that was read before somebody else's operation ended says nothing.
func TestDeploy_ReadsTheTemplateAfterAnotherOperation(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.status, s.live, s.execute = "UPDATE_IN_PROGRESS", template, complete("UPDATE_COMPLETE")
	looks := 0
	s.describe = func() {
		if looks++; looks == 3 {
			s.status, s.live = "UPDATE_COMPLETE", `{"Resources": {"Other": {"Type": "AWS::SSM::Parameter"}}}`
		}
	}
	got, err := s.deploy(t, nil)
	require.NoError(t, err)
	require.Equal(t, cfn.Updated, got.Outcome)
}
