package commands_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/worker/commands"
)

// handler is bash's word for a program that is not in PATH. It says which one
// and ends as the first argument of the script says.
const handler = "status=$1; command_not_found_handle() { echo \"$1\" >&2; return \"$status\"; }\n"

// genCommand draws a command of builtins, of programs that no machine has, and
// of what joins them. None of its builtins fails by mistake.
func genCommand(depth int) *rapid.Generator[string] {
	atom := rapid.SampledFrom([]string{
		"p1", "p2 x", "p3 >/dev/null", ":", "true", "false", "cd .", "[ -f /none ]", "[ -d . ]", "test -d .", "[[ -n $HOME ]]",
		"((0))", "command -v p1", "export A=b", "A=b", "A=$(false)", "echo >/dev/null", "set -u", "read -r x </dev/null", "command p2", "f() { p1; }", "shopt -q globstar",
	})
	if depth == 0 {
		return atom
	}
	part := genCommand(depth - 1)
	return rapid.OneOf(atom, rapid.Custom(func(t *rapid.T) string {
		joint := rapid.SampledFrom([]string{" && ", " && ", " || ", "; ", " | "}).Draw(t, "joint")
		return part.Draw(t, "left") + joint + part.Draw(t, "right")
	}), rapid.Custom(func(t *rapid.T) string {
		around := rapid.SampledFrom([][2]string{{"( ", " )"}, {"{ ", "; }"}, {"! { ", "; }"}, {"if ", "; then p2; fi"}, {"time ", ""}}).Draw(t, "around")
		return around[0] + part.Draw(t, "inner") + around[1]
	}))
}

// What is named is looked up, or the command fails, whatever the program
// answers. Bash is asked.
//
// Feature: aphex-pipeline, Property 22: Build tool validation
func TestFirstProgram_IsLookedUp(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	require.NoError(t, err)
	named := 0
	rapid.Check(t, func(t *rapid.T) {
		command := genCommand(3).Draw(t, "command")
		name, ok := commands.FirstProgram(command)
		if !ok {
			return
		}
		named++
		for _, status := range []string{"0", "127"} {
			run := exec.CommandContext(t.Context(), bash, "-eo", "pipefail", "-c", handler+command, "bash", status)
			run.Env = []string{"PATH=/none", "HOME=/none"}
			var said strings.Builder
			run.Stderr = &said
			failed := run.Run() != nil
			require.True(t, failed || slices.Contains(strings.Split(said.String(), "\n"), name), "%s, status %s: %s", command, status, said.String())
		}
	})
	require.Positive(t, named)
}
