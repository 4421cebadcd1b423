package e2e

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// TestRun_FailsWithAReason drives one mistake at a time through a real
// Workflow: the stage that meets it must fail with its reason, and nothing
// after it may start.
func TestRun_FailsWithAReason(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	tests := []struct {
		name      string
		config    string
		settings  settings
		commit    string // replaces the pushed commit
		stage     string
		reason    fault.Reason
		message   []string
		untouched []string
	}{
		{
			name: "failing-build", config: config([]string{"echo before", "echo doomed >&2; exit 3", "echo never"}, dev("failing-build")),
			stage: "build", reason: fault.CommandFailed, message: []string{"exit", "3", "doomed"},
			untouched: []string{"deploy-pipeline", "deploy-dev"},
		},
		{
			name: "throwing-app", config: config(npmCI(), dev("throwing-app")),
			settings: settings{"stack": "throwing-app", "throw": "boom from the app"},
			stage:    "deploy-dev", reason: fault.SynthFailed, message: []string{"boom from the app"},
		},
		{
			name: "failing-stack", config: config(npmCI(), dev("failing-stack"), environment{name: "later", region: "eu-central-1", account: "222222222222", stack: "failing-stack"}),
			settings: settings{"stack": "failing-stack", "type": "Bogus"},
			stage:    "deploy-dev", reason: fault.StackFailed, message: []string{"failing-stack", "Value", "Bogus"},
			untouched: []string{"deploy-later"},
		},
		{
			name: "wrong-account", config: config(npmCI(), dev("wrong-account")),
			settings: settings{"stack": "wrong-account", "env": map[string]any{"account": "222222222222", "region": "eu-west-1"}},
			stage:    "deploy-dev", reason: fault.EnvironmentMismatch, message: []string{"222222222222", "111111111111"},
		},
		{
			name: "unknown-commit", config: config(npmCI(), dev("unknown-commit")), commit: strings.Repeat("0123456789", 4),
			stage: "validate", reason: fault.CommitUnknown, message: []string{"0123456789"},
			untouched: []string{"build", "deploy-dev"},
		},
		{
			name: "literal-tag", config: config(npmCI(), dev("literal-tag")), commit: "not-a-commit",
			stage: "validate", reason: fault.CommitInvalid, message: []string{"40", "not-a-commit"},
			untouched: []string{"build", "deploy-dev"},
		},
		{
			name: "unknown-stack", config: config(npmCI(), dev("nonesuch")), settings: settings{"stack": "unknown-stack"},
			stage: "deploy-dev", reason: fault.StackUnknown, message: []string{"nonesuch", "unknown-stack"},
		},
		{
			name: "missing-tool", config: config([]string{"nonesuch-tool build"}, dev("missing-tool")),
			stage: "validate", reason: fault.ToolMissing, message: []string{"nonesuch-tool"},
			untouched: []string{"build"},
		},
		{
			name: "failing-test", config: config(npmCI(), dev("failing-test", "test -n \"$APHEX_OUTPUT_FAILING_TEST_PARAMETER\"", "echo smoke; exit 9"), environment{name: "later", region: "eu-central-1", account: "222222222222", stack: "failing-test"}),
			settings: settings{"stack": "failing-test"},
			stage:    "test-dev", reason: fault.CommandFailed, message: []string{"9", "smoke"},
			untouched: []string{"deploy-later"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, commit := newApp(t, l, tt.name, tt.config, tt.settings)
			if tt.commit != "" {
				commit = tt.commit
			}
			_, status := finish(t, p, commit)
			require.Equal(t, "Failed", status.Phase)
			node := status.Node(tt.stage)
			require.Equal(t, "Failed", node.Phase, "%s: %s", tt.stage, node.Message)
			require.Contains(t, node.Message, "["+string(tt.reason)+"]")
			for _, part := range tt.message {
				require.Contains(t, node.Message, part)
			}
			for _, name := range tt.untouched {
				require.Contains(t, []string{"Omitted", ""}, status.Node(name).Phase, name)
			}
			require.Empty(t, stackOutputs(t, l, "222222222222", "eu-central-1", tt.name), "a later environment was touched")
		})
	}
}
