package diff

import (
	"fmt"
	"io"
	"strings"
)

// Marker is the first line of a report in Markdown, which is not shown: a
// comment that begins with it can be found and replaced by the next one.
const Marker = "<!-- aphex diff -->"

// maxMarkdown is how large a report in Markdown may become, in bytes. A comment
// on GitHub holds 65,536 characters.
const maxMarkdown = 60_000

// WriteMarkdown writes a report for a comment on a pull request. What does not
// fit into one is left out, which is said.
func WriteMarkdown(w io.Writer, r Report) error {
	var out strings.Builder
	out.WriteString(Marker + "\n")
	left := 0
	for _, s := range r.Stacks {
		var section strings.Builder
		s.markdown(&section)
		if out.Len()+section.Len() > maxMarkdown {
			section.Reset()
			s.markdownHead(&section)
			section.WriteString("\nIts changes are too many for a comment.\n")
		}
		if out.Len()+section.Len() > maxMarkdown {
			left++
			continue
		}
		out.WriteString(section.String())
	}
	if left > 0 {
		fmt.Fprintf(&out, "\n%d more stacks do not fit into a comment.\n", left)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func (s Stack) markdownHead(out *strings.Builder) {
	summary := "no differences"
	if s.Differs() {
		summary = s.count()
	}
	fmt.Fprintf(out, "\n### %s\n\n%s — %s\n", code(s.title()), code(s.state()), summary)
}

func (s Stack) markdown(out *strings.Builder) {
	s.markdownHead(out)
	if len(s.Security) > 0 {
		out.WriteString("\n**Security**\n\n| | access | resource | what |\n| --- | --- | --- | --- |\n")
		for _, entry := range s.Security {
			fmt.Fprintf(out, "| %s | %s | %s | %s |\n", code(sign(entry.Action)), entry.Reach, code(clean(entry.ID)), code(entry.text()))
		}
	}
	if len(s.Changes) > 0 {
		out.WriteString("\n| | what | which | type | |\n| --- | --- | --- | --- | --- |\n")
		for _, c := range s.Changes {
			fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n", code(sign(c.Action)), c.Kind, code(c.title()), code(clean(c.Type)), c.fate())
		}
		s.markdownDetails(out)
	}
	for _, note := range s.remarks() {
		fmt.Fprintf(out, "\n%s\n", code(note))
	}
}

func (s Stack) markdownDetails(out *strings.Builder) {
	var lines []string
	for _, c := range s.Changes {
		inside := c.lines()
		if len(inside) == 0 {
			continue
		}
		lines = append(lines, sign(c.Action)+" "+c.title())
		for _, line := range inside {
			lines = append(lines, "    "+line)
		}
	}
	if len(lines) == 0 {
		return
	}
	text := strings.Join(lines, "\n")
	fence := strings.Repeat("`", max(3, longestRun(text, '`')+1))
	fmt.Fprintf(out, "\n<details><summary>Details</summary>\n\n%s\n%s\n%s\n\n</details>\n", fence, text, fence)
}

// code makes a code span of others' words: nothing in it is a link, a mention
// or the end of a cell. Nothing becomes nothing.
func code(text string) string {
	if text == "" {
		return ""
	}
	fence := strings.Repeat("`", longestRun(text, '`')+1)
	if strings.HasPrefix(text, "`") || strings.HasSuffix(text, "`") {
		text = " " + text + " "
	}
	return fence + strings.ReplaceAll(text, "|", `\|`) + fence
}

// longestRun is the length of the longest run of a character.
func longestRun(text string, of rune) int {
	longest, run := 0, 0
	for _, r := range text {
		if r != of {
			run = 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	return longest
}
