package pipeline

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// maxFindings is far above what a person can mend at once.
const maxFindings = 200

// Finding is one thing that is wrong with a configuration.
type Finding struct {
	// File is the name given to Load.
	File string `json:"file"`
	// Line and Column count from 1; columns count characters.
	Line   int `json:"line"`
	Column int `json:"column"`
	// Path is the place in the document, such as
	// "environments[0].stacks[1].name"; empty for the document as a whole and
	// for what is found outside of any value, such as in a comment.
	Path string `json:"path,omitempty"`
	// Message says what is wrong, with the offending value, and what is
	// allowed. It never holds a secret.
	Message string `json:"message"`
}

// String returns "file:line:column: path: message", the form editors and
// terminals turn into a link.
func (f Finding) String() string {
	place := fmt.Sprintf("%s:%d:%d: ", f.File, f.Line, f.Column)
	if f.Path != "" {
		place += f.Path + ": "
	}
	return place + f.Message
}

// InvalidError is a configuration with findings.
type InvalidError struct {
	// Findings holds everything that is wrong, sorted by position; never empty.
	Findings []Finding
}

// Error returns all findings in one paragraph.
func (e *InvalidError) Error() string {
	if len(e.Findings) == 1 {
		return e.Findings[0].String()
	}
	lines := make([]string, len(e.Findings))
	for i, finding := range e.Findings {
		lines[i] = finding.String()
	}
	return fmt.Sprintf("%d findings: %s", len(lines), strings.Join(lines, "; "))
}

// Render writes the findings for a terminal, one line each.
func (e *InvalidError) Render(w io.Writer) error {
	for _, finding := range e.Findings {
		if _, err := fmt.Fprintln(w, finding.String()); err != nil {
			return err
		}
	}
	return nil
}

// invalid sorts the findings, drops repetitions and returns them as an error,
// or nil if there are none.
func invalid(findings []Finding) error {
	if len(findings) == 0 {
		return nil
	}
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message))
	})
	// What an alias repeats has one place in the text, and one repair.
	findings = slices.CompactFunc(findings, func(a, b Finding) bool {
		return a.Line == b.Line && a.Column == b.Column && a.Message == b.Message
	})
	if len(findings) > maxFindings {
		last := findings[maxFindings]
		last.Path, last.Message = "", fmt.Sprintf("%d more findings from here on are left out", len(findings)-maxFindings)
		findings = append(findings[:maxFindings], last)
	}
	return &InvalidError{Findings: findings}
}
