package worker

import "strings"

// LastLines returns the end of the command's output for a message: "its last
// output: …", or a sentence that there is none to show.
func (e Exit) LastLines() string {
	const lines, size = 12, 1200
	text := strings.TrimSpace(strings.ToValidUTF8(string(e.Tail), "�"))
	if text == "" {
		return "it printed nothing"
	}
	all := strings.Split(text, "\n")
	text = strings.Join(all[max(0, len(all)-lines):], "\n")
	if len(text) > size {
		// Whole lines only: a secret that is cut is no longer known as one.
		_, whole, ok := strings.Cut(text[len(text)-size:], "\n")
		if !ok {
			return "its last line is too long to be shown here"
		}
		text = "…\n" + whole
	}
	return "its last output: " + text
}
