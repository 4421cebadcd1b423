package diff

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// WriteTable writes a report for people at a terminal.
func WriteTable(w io.Writer, r Report) error {
	var out strings.Builder
	for i, s := range r.Stacks {
		if i > 0 {
			out.WriteByte('\n')
		}
		s.table(&out)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func (s Stack) table(out *strings.Builder) {
	fmt.Fprintf(out, "%s   %s\n", s.title(), s.state())
	if !s.Differs() {
		out.WriteString("  no differences\n")
	} else {
		fmt.Fprintf(out, "  %s\n", s.count())
	}
	rows := make([][]string, 0, len(s.Changes))
	for _, c := range s.Changes {
		rows = append(rows, []string{sign(c.Action), string(c.Kind), c.title(), clean(c.Type), c.fate()})
	}
	heads := align(rows)
	for i, c := range s.Changes {
		fmt.Fprintf(out, "  %s\n", heads[i])
		for _, line := range c.lines() {
			fmt.Fprintf(out, "      %s\n", line)
		}
	}
	if len(s.Security) > 0 {
		out.WriteString("  security\n")
		rows := make([][]string, 0, len(s.Security))
		for _, entry := range s.Security {
			rows = append(rows, []string{sign(entry.Action), "access " + string(entry.Reach), clean(entry.ID), entry.text()})
		}
		for _, line := range align(rows) {
			fmt.Fprintf(out, "  %s\n", line)
		}
	}
	for _, note := range s.remarks() {
		fmt.Fprintf(out, "  note: %s\n", note)
	}
}

// remarks are the sentences below a stack.
func (s Stack) remarks() []string {
	var out []string
	for _, note := range s.Notes {
		out = append(out, clean(note))
	}
	if asked := s.asked(); asked != "" {
		out = append(out, asked)
	}
	if s.leavesOpen() {
		out = append(out, unknownReplacements)
	}
	return out
}

// align makes lines of rows with columns of equal width; the last is as long as
// it is.
func align(rows [][]string) []string {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	lines := make([]string, 0, len(rows))
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		lines = append(lines, strings.TrimRight(line.String(), " "))
	}
	return lines
}
