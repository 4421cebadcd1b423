// Package junit reads test reports in the XML that began with JUnit and that
// most test tools write, each in its own way.
//
// There is no schema that all of them keep to, so little is expected: suites
// may be nested or not, and their own figures, which some tools add up and
// others do not, are passed over. What counts are the test cases.
//
// A report is written by user code. It is read in one pass; entities are not
// expanded, and output of the tests is not kept.
package junit

import (
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What is kept of a report. Everything is counted.
const (
	// MaxSuites is how many suites are named.
	MaxSuites = 1000
	// MaxFailed is how many failed test cases are named.
	MaxFailed = 200
	// MaxName bounds the name of a suite, case or class, in bytes.
	MaxName = 256
	// MaxMessage bounds the message of a failed test case, in bytes.
	MaxMessage = 512
)

// Totals are how many test cases ended in which way.
type Totals struct {
	// Passed includes those that failed at first and passed when they were
	// tried again.
	Passed int
	// Failed includes those that ended with an error.
	Failed int
	// Skipped are those that did not run.
	Skipped int
}

// Total is how many test cases there are.
func (t Totals) Total() int { return t.Passed + t.Failed + t.Skipped }

// Plus is the sum of both.
func (t Totals) Plus(other Totals) Totals {
	return Totals{Passed: t.Passed + other.Passed, Failed: t.Failed + other.Failed, Skipped: t.Skipped + other.Skipped}
}

// Report is what a report says.
type Report struct {
	Totals

	// Suites are those with test cases of their own, in their order: at most
	// MaxSuites.
	Suites []Suite
	// Failed are the test cases that failed, in their order: at most MaxFailed.
	Failed []Case
}

// Suite is one suite. Its totals are those of its own test cases, without those
// of suites within it.
type Suite struct {
	Totals

	// Name is empty if the suite has none.
	Name string
}

// Case is one failed test case. Its texts are one line each, without control
// characters.
type Case struct {
	// Name is that of the test case, or of the suite that failed as a whole.
	Name string
	// Class is what the tool says instead of a class: a file, a module, a
	// suite, often empty.
	Class string
	// Message is the first line that says why it failed; it may be empty.
	Message string
}

// Title is how people call the case: its class, unless that is part of its
// name, and its name.
func (c Case) Title() string {
	if c.Class == "" || strings.Contains(c.Name, c.Class) {
		return c.Name
	}
	return c.Class + " " + c.Name
}

// Parse reads a report; hide replaces secrets in what is kept of a text, before
// anything is cut from it. Beside an error, the report has what was read until
// there: a tool that is stopped leaves a report that breaks off.
//
// Errors: those of r, and texts that say what is wrong and where.
func Parse(r io.Reader, hide func(string) string) (Report, error) {
	p := newParser(r, hide)
	err := p.run()
	return p.report, err
}

// Line is the first line of text that is not blank, without control characters
// and at most limit bytes.
func Line(text string, limit int) string {
	const cut = "…"
	for line := range strings.SplitSeq(strings.ToValidUTF8(text, "\uFFFD"), "\n") {
		line = strings.Join(strings.FieldsFunc(line, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsGraphic(r) }), " ")
		if len(line) > limit {
			end := limit - len(cut)
			for !utf8.RuneStart(line[end]) {
				end--
			}
			line = strings.TrimRight(line[:end], " ") + cut
		}
		if line != "" {
			return line
		}
	}
	return ""
}
