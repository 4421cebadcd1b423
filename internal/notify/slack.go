package notify

import (
	"strings"
	"unicode/utf8"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

// The most characters that Slack takes in the text of a section, and in a field
// of one, escapes included; it refuses a message with more. A part is one of
// several in a text, and leaves the others room.
const (
	maxSection = 3000
	maxField   = 2000
	maxPart    = 500
	maxLink    = 1200
)

// slackMessage is the body of an incoming webhook: text for lists and phones,
// blocks for the channel.
func slackMessage(e Event) map[string]any {
	mark := map[string]string{pipeline.EventSucceeded: ":white_check_mark:", pipeline.EventFailed: ":x:", pipeline.EventDeferred: ":warning:"}[e.Event]
	title := slackText(e.title(), maxField)
	fields := []any{
		markdown("*Commit*\n`" + slackText(e.shortCommit(), maxPart) + "` on " + slackText(e.Branch, maxPart)),
		markdown("*Run*\n" + slackLink(e.RunURL, e.Run) + ", " + e.took()),
	}
	if len(e.Environments) > 0 {
		fields = append(fields, markdown(labelled("Environments", "\n", strings.Join(e.Environments, ", "), maxField)))
	}
	blocks := []any{
		section(mark + " *" + title + "*"),
		map[string]any{"type": "section", "fields": fields},
	}
	if e.Failed != nil {
		blocks = append(blocks, slackStage(e.Failed))
	}
	if e.Deferred != nil && (e.Failed == nil || e.Failed.Stage != e.Deferred.Stage) {
		blocks = append(blocks, slackStage(e.Deferred))
	}
	if e.RecordError != "" {
		blocks = append(blocks, section(labelled("The record could not be written", ": ", e.RecordError, maxSection)))
	}
	return map[string]any{"text": mark + " " + title, "blocks": blocks}
}

// slackStage is what a stage says, and where its log is.
func slackStage(stage *FailedStage) map[string]any {
	log := ""
	if stage.LogURL != "" {
		log = "\nLog: `" + slackText(stage.LogURL, maxLink) + "`"
	}
	return section(labelled(slackText(stage.Stage, maxPart), ": ", stage.Message, maxSection-utf8.RuneCountInString(log)) + log)
}

// labelled is a text of at most limit characters: a label, which Slack
// understands as it is, and what it is the label of.
func labelled(label, between, text string, limit int) string {
	head := "*" + label + "*" + between
	return head + slackText(text, limit-utf8.RuneCountInString(head))
}

// section is a block with a text.
func section(text string) map[string]any {
	return map[string]any{"type": "section", "text": markdown(text)}
}

func markdown(text string) map[string]string {
	return map[string]string{"type": "mrkdwn", "text": text}
}

// slackEscape is for what Slack takes for its own.
func slackEscape(r rune) string {
	switch r {
	case '&':
		return "&amp;"
	case '<':
		return "&lt;"
	case '>':
		return "&gt;"
	}
	return string(r)
}

// slackText is text as Slack shows it, of at most limit characters. Only whole
// escapes are cut off.
func slackText(text string, limit int) string {
	var out strings.Builder
	length, whole := 0, 0 // whole is what leaves room for the ellipsis
	for _, r := range text {
		escaped := slackEscape(r)
		if length += utf8.RuneCountInString(escaped); length > limit {
			return out.String()[:whole] + "…"
		}
		out.WriteString(escaped)
		if length < limit {
			whole = out.Len()
		}
	}
	return out.String()
}

// slackLink is a link, or the text alone where the address is too long for one:
// half an address leads nowhere.
func slackLink(url, text string) string {
	text = slackText(text, maxPart)
	address := strings.NewReplacer("&", "&amp;", "|", "%7C", ">", "%3E", "<", "%3C").Replace(url)
	if url == "" || utf8.RuneCountInString(address) > maxLink {
		return text
	}
	return "<" + address + "|" + text + ">"
}
