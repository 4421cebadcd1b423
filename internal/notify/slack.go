package notify

import (
	"fmt"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

// slackMessage is the body of an incoming webhook: text for lists and phones,
// blocks for the channel.
func slackMessage(e Event) map[string]any {
	mark := map[string]string{pipeline.EventSucceeded: ":white_check_mark:", pipeline.EventFailed: ":x:", pipeline.EventDeferred: ":warning:"}[e.Event]
	facts := []string{
		"*Commit*\n`" + slackText(e.shortCommit()) + "` on " + slackText(e.Branch),
		"*Run*\n" + slackLink(e.RunURL, e.Run) + ", " + e.took(),
	}
	if len(e.Environments) > 0 {
		facts = append(facts, "*Environments*\n"+slackText(strings.Join(e.Environments, ", ")))
	}
	fields := make([]any, len(facts))
	for i, fact := range facts {
		fields[i] = markdown(fact)
	}
	blocks := []any{
		map[string]any{"type": "section", "text": markdown(mark + " *" + slackText(e.title()) + "*")},
		map[string]any{"type": "section", "fields": fields},
	}
	if e.Failed != nil {
		blocks = append(blocks, slackStage(e.Failed))
	}
	if e.Deferred != nil && (e.Failed == nil || e.Failed.Stage != e.Deferred.Stage) {
		blocks = append(blocks, slackStage(e.Deferred))
	}
	if e.RecordError != "" {
		blocks = append(blocks, map[string]any{"type": "section", "text": markdown("*The record could not be written*: " + slackText(e.RecordError))})
	}
	return map[string]any{"text": mark + " " + slackText(e.title()), "blocks": blocks}
}

// slackStage is what a stage says, and where its log is.
func slackStage(stage *FailedStage) map[string]any {
	text := fmt.Sprintf("*%s*: %s", slackText(stage.Stage), slackText(stage.Message))
	if stage.LogURL != "" {
		text += "\nLog: `" + slackText(stage.LogURL) + "`"
	}
	return map[string]any{"type": "section", "text": markdown(text)}
}

func markdown(text string) map[string]any { return map[string]any{"type": "mrkdwn", "text": text} }

// slackText escapes what Slack takes for its own.
func slackText(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
}

func slackLink(url, text string) string {
	if url == "" {
		return slackText(text)
	}
	return "<" + strings.NewReplacer("|", "%7C", ">", "%3E", "<", "%3C").Replace(url) + "|" + slackText(text) + ">"
}
