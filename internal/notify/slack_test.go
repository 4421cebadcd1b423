package notify

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

// Slack refuses a message with a text beyond its limits, and shows escapes that
// were cut in two as they are.
func TestSlackMessage_FitsWhateverTheRunSays(t *testing.T) {
	t.Parallel()
	torn := regexp.MustCompile(`&(amp;|lt;|gt;)?`)
	text := rapid.Custom(func(t *rapid.T) string {
		return strings.Repeat(rapid.SampledFrom([]string{"", "a", "&", "<", ">", "ä", "&amp;", "\n", "`"}).Draw(t, "part"), rapid.IntRange(0, 4000).Draw(t, "times")) +
			rapid.String().Draw(t, "end")
	})
	stage := func(t *rapid.T, label string) *FailedStage {
		if !rapid.Bool().Draw(t, "has "+label) {
			return nil
		}
		return &FailedStage{Stage: text.Draw(t, label), Message: text.Draw(t, "message"), LogURL: text.Draw(t, "log")}
	}
	rapid.Check(t, func(t *rapid.T) {
		e := Event{
			Event: rapid.SampledFrom([]string{pipeline.EventSucceeded, pipeline.EventFailed}).Draw(t, "event"), Pipeline: "shop", Reason: text.Draw(t, "reason"),
			Branch: text.Draw(t, "branch"), Run: text.Draw(t, "run"), RunURL: text.Draw(t, "url"), Environments: rapid.SliceOfN(text, 0, 5).Draw(t, "environments"),
			Failed: stage(t, "failed"), Deferred: stage(t, "deferred"), RecordError: text.Draw(t, "record"),
		}
		for _, block := range slackMessage(e)["blocks"].([]any) {
			section := block.(map[string]any)
			var fields []any
			limit := 2000
			if one, ok := section["text"]; ok {
				fields, limit = []any{one}, 3000
			} else {
				fields = section["fields"].([]any)
			}
			for _, field := range fields {
				shown := field.(map[string]string)["text"]
				require.LessOrEqual(t, utf8.RuneCountInString(shown), limit, "%.40q", shown)
				require.NotContains(t, torn.FindAllString(shown, -1), "&")
			}
		}
	})
}

func TestSlackMessage_CutsWhatIsTooLong(t *testing.T) {
	t.Parallel()
	message := slackMessage(Event{
		Event: pipeline.EventFailed, Pipeline: "shop", Run: "shop-x1", RunURL: "https://argo.example.com/" + strings.Repeat("x", 2000),
		Failed: &FailedStage{Stage: "build", Message: strings.Repeat("&", 1000), LogURL: "s3://bucket/build.log"},
	})
	blocks := message["blocks"].([]any)
	fields := blocks[1].(map[string]any)["fields"].([]any)
	require.Equal(t, "*Run*\nshop-x1, 0s", fields[1].(map[string]string)["text"], "half a link leads nowhere")
	shown := blocks[2].(map[string]any)["text"].(map[string]string)["text"]
	require.True(t, strings.HasPrefix(shown, "*build*: &amp;&amp;"), shown)
	require.True(t, strings.HasSuffix(shown, "&amp;…\nLog: `s3://bucket/build.log`"), shown)
	require.Greater(t, utf8.RuneCountInString(shown), 2900, "no more is cut than must be")
}
