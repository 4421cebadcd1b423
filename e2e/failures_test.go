package e2e

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// failure is one mistake and what must come of it.
type failure struct {
	name      string
	config    string
	settings  settings
	commit    string // replaces the pushed commit
	stage     string
	reason    fault.Reason
	message   []string
	untouched []string
	// both drives it with both runners, also where time is short.
	both bool
}

// with returns the failure with names of the runner's own.
func (f failure) with(r runner) failure {
	variable := func(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }
	name := f.name + r.suffix
	rename := strings.NewReplacer(f.name, name, variable(f.name), variable(name))
	f.name, f.config, f.settings, f.message = name, rename.Replace(f.config), maps.Clone(f.settings), slices.Clone(f.message)
	for i := range f.message {
		f.message[i] = rename.Replace(f.message[i])
	}
	if stack, ok := f.settings["stack"].(string); ok {
		f.settings["stack"] = rename.Replace(stack)
	}
	return f
}

// TestRun_FailsWithAReason drives one mistake at a time through a real
// Workflow: the stage that meets it must fail with its reason, and nothing
// after it may start. A pod per stage takes its time, so that runner is driven
// through all of them only with APHEX_RUNNERS=all.
func TestRun_FailsWithAReason(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	for _, f := range failures() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			failsWithAReason(t, l, f.with(pluginRunner()), pluginRunner())
		})
		if f.both || os.Getenv("APHEX_RUNNERS") == "all" {
			t.Run(f.name+"-container", func(t *testing.T) {
				t.Parallel()
				failsWithAReason(t, l, f.with(containerRunner()), containerRunner())
			})
		}
	}
}

func failures() []failure {
	return []failure{
		{
			name: "failing-build", config: config([]string{"echo before", "echo doomed >&2; exit 3", "echo never"}, dev("failing-build")),
			stage: "build", reason: fault.CommandFailed, message: []string{"exit", "3", "doomed"},
			untouched: []string{"deploy-pipeline", "deploy-dev"}, both: true,
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
			untouched: []string{"deploy-later"}, both: true,
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
}

func failsWithAReason(t *testing.T, l *lab.Lab, f failure, r runner) {
	t.Helper()
	p, commit := newApp(t, l, f.name, f.config, f.settings, r.use)
	if f.commit != "" {
		commit = f.commit
	}
	_, status := finish(t, p, commit)
	require.Equal(t, "Failed", status.Phase)
	node := status.Node(f.stage)
	require.Equal(t, "Failed", node.Phase, "%s: %s", f.stage, node.Message)
	require.Contains(t, node.Message, "["+string(f.reason)+"]")
	for _, part := range f.message {
		require.Contains(t, node.Message, part)
	}
	for _, name := range f.untouched {
		require.Contains(t, []string{"Omitted", ""}, status.Node(name).Phase, name)
	}
	require.Empty(t, stackOutputs(t, l, "222222222222", "eu-central-1", f.name), "a later environment was touched")
}
