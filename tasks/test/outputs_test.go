package test_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// Outputs that would have the same variable have none, and the log says so;
// the file has them.
func TestRun_OutputsOfOneVariableHaveNone(t *testing.T) {
	t.Parallel()
	b := newBench(t, tests(`env | grep ^APHEX_OUTPUT_ > $HOME/seen; cp "$APHEX_OUTPUTS_FILE" $HOME/file`))
	const colliding = `{"a-b": {"C": "3", "c": "4", "D": "5"}, "a": {"b_C": "1", "b_c": "2"}}`
	b.put(t, record.OutputsKey("uid-1", "dev"), colliding)
	_, err := b.run(t.Context())
	require.NoError(t, err)
	require.Contains(t, b.log.String(), "warning: no variable for outputs a.b_C, a.b_c, a-b.C and a-b.c: they would have the same, APHEX_OUTPUT_A_B_C; see the file in $APHEX_OUTPUTS_FILE\n")
	for file, want := range map[string]string{"seen": "APHEX_OUTPUT_A_B_D=5\n", "file": colliding} {
		seen, err := os.ReadFile(b.Path(worker.HomeDir, file))
		require.NoError(t, err)
		require.Equal(t, want, string(seen))
	}
}

// More outputs than the system takes variables for reach the commands all the
// same, in the file.
func TestRun_MoreOutputsThanVariables(t *testing.T) {
	t.Parallel()
	b := newBench(t, tests(`cp "$APHEX_OUTPUTS_FILE" $HOME/file; export MORE=1`, `env | grep -c ^APHEX_OUTPUT_ > $HOME/count`))
	many := map[string]map[string]string{"shop": {"Huge": strings.Repeat("x", 200<<10)}}
	for i := range 3000 {
		many["shop"][fmt.Sprintf("Output%04d", i)] = strings.Repeat("x", 1<<10)
	}
	document, err := json.Marshal(many)
	require.NoError(t, err)
	b.put(t, record.OutputsKey("uid-1", "dev"), string(document))
	_, err = b.run(t.Context())
	require.NoError(t, err)
	require.Contains(t, b.log.String(), "warning: no variable for output shop.Huge: its value has 204800 bytes; see the file in $APHEX_OUTPUTS_FILE\n")
	seen, err := os.ReadFile(b.Path(worker.HomeDir, "file"))
	require.NoError(t, err)
	require.JSONEq(t, string(document), string(seen))
	count, err := os.ReadFile(b.Path(worker.HomeDir, "count"))
	require.NoError(t, err)
	require.Regexp(t, `^9\d\d\n$`, string(count))
}

// The tests of an environment see the outputs of what the run has deployed
// before, the pipeline's own app included, and nothing of what comes after or
// of other runs.
//
// Feature: aphex-pipeline, Property 24: Stage output propagation
func TestRun_TestsSeeOutputsOfEarlierEnvironments(t *testing.T) {
	t.Parallel()
	show := `    tests: {commands: ['rm -rf $HOME/seen; cp -r "$APHEX_OUTPUTS_DIR" $HOME/seen; cmp "$APHEX_OUTPUTS_FILE" "$APHEX_OUTPUTS_DIR/$APHEX_ENVIRONMENT.json"']}
`
	b := newBench(t, show+`  - name: passed-over
    region: eu-central-1
    account: "222222222222"
    stacks:
      - {name: shop, path: bin/shop.ts}
  - name: stage
    region: eu-central-1
    account: "222222222222"
    stacks:
      - {name: shop, path: bin/shop.ts}
`+show)
	for environment, document := range map[string]string{"pipeline": `{"own": {}}`, "stage": `{"shop": {"Is": "stage"}}`, "prod": `{"shop": {"Is": "prod"}}`} {
		b.put(t, record.OutputsKey("uid-1", environment), document)
	}
	b.put(t, record.OutputsKey("uid-0", "passed-over"), `{"shop": {"Is": "of another run"}}`)
	for environment, want := range map[string]map[string]string{
		"dev":   {"pipeline.json": `{"own": {}}`, "dev.json": outputs},
		"stage": {"pipeline.json": `{"own": {}}`, "dev.json": outputs, "stage.json": `{"shop": {"Is": "stage"}}`},
	} {
		b.request.Environment = environment
		_, err := b.run(t.Context())
		require.NoError(t, err, b.log.String())
		entries, err := os.ReadDir(b.Path(worker.HomeDir, "seen"))
		require.NoError(t, err)
		got := map[string]string{}
		for _, entry := range entries {
			content, err := os.ReadFile(b.Path(worker.HomeDir, "seen", entry.Name()))
			require.NoError(t, err)
			got[entry.Name()] = string(content)
		}
		require.Equal(t, want, got, environment)
	}
}
