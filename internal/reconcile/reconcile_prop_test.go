package reconcile_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/record"
)

// Wherever a pass is killed, and however often, the passes after it end in the
// state that one pass without a kill ends in; then there is nothing to do.
func TestPass_KilledAnywhereEndsTheSame(t *testing.T) {
	t.Parallel()
	server := t
	rapid.Check(t, func(t *rapid.T) {
		type shape struct {
			phase, shutdown string
			nodes           map[string]string
			stages          []string
			pod             string
		}
		shapes := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) shape {
			return shape{
				phase:    rapid.SampledFrom([]string{"Succeeded", "Failed", "Error", "Running"}).Draw(t, "phase"),
				shutdown: rapid.SampledFrom([]string{"", "", "Stop", "Terminate"}).Draw(t, "shutdown"),
				nodes:    map[string]string{"build": rapid.SampledFrom([]string{lost, "Succeeded: built", "Failed: no [CommandFailed]"}).Draw(t, "node")},
				stages: rapid.SampledFrom([][]string{
					{},
					{"validate", "running"},
					{"validate", "succeeded", "build", "running"},
					{"build", "running", "deploy-pipeline", "running"},
					{"build", "failed Cancelled"},
				}).Draw(t, "stages"),
				pod: rapid.SampledFrom([]string{"", "Failed", "Running"}).Draw(t, "pod"),
			}
		}), 1, 3).Draw(t, "runs")
		build := func() *bench {
			b := newBench(server)
			for i, s := range shapes {
				name := fmt.Sprintf("shop-%d", i)
				b.run(name, s.phase, s.shutdown, s.nodes)
				b.begin(t, name, s.stages...)
				if s.pod != "" {
					b.pod(name, s.pod)
				}
			}
			return b
		}
		state := func(b *bench) map[string]any {
			found := map[string]any{}
			for i := range shapes {
				name := fmt.Sprintf("shop-%d", i)
				stages, err := b.records.Stages(t.Context(), "uid-"+name)
				require.NoError(t, err)
				found[name] = []any{b.record(t, name), stages, b.labels(name), b.api.Get("pods", "shop", name+"-1340600742-agent") != nil}
			}
			return found
		}
		wanted := build()
		_, err := wanted.pass(t)
		require.NoError(t, err)

		b := build()
		for range rapid.IntRange(1, 3).Draw(t, "kills") {
			b.kill(rapid.Int64Range(0, 8).Draw(t, "writes before the kill"))
			_, _ = b.pass(t)
		}
		b.revive()
		_, err = b.pass(t)
		require.NoError(t, err)
		require.Equal(t, states(state(wanted)), states(state(b)))
		said, err := b.pass(t)
		require.NoError(t, err)
		require.Empty(t, said)
	})
}

// states drops what two clusters differ in by their nature: nothing but the
// pointers of times.
func states(m map[string]any) string {
	var text strings.Builder
	for i := range len(m) {
		parts := m[fmt.Sprintf("shop-%d", i)].([]any)
		rec := parts[0].(record.Run)
		fmt.Fprintln(&text, rec.Status, rec.Reason, rec.CompletedAt, parts[2], parts[3])
		for _, list := range [][]record.Stage{rec.Stages, parts[1].([]record.Stage)} {
			for _, s := range list {
				fmt.Fprintln(&text, s.StageName, s.Status, s.Reason, s.CompletedAt, s.Message)
			}
		}
	}
	return text.String()
}
