package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/aphex-pipeline/aphex/internal/bytesize"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
)

// shownChecksum is how much of a checksum a table shows: sha256: and 12 digits.
const shownChecksum = 19

// shownMessage is how much of a message a table shows; JSON has all of it.
const shownMessage = 100

func writeJSON(w io.Writer, v any) error {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	return out.Encode(v)
}

// table writes rows of aligned columns.
func table(w io.Writer, rows ...[]string) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			row[i] = plain(cell)
		}
		if _, err := fmt.Fprintln(out, strings.TrimRight(strings.Join(row, "\t"), "\t")); err != nil {
			return err
		}
	}
	return out.Flush()
}

// figures says what came of the figures of a run's end.
func figures(m *record.Metrics) string {
	switch {
	case m == nil:
		return "none"
	case m.Sent:
		return "sent"
	}
	return "not sent: " + cut(m.Error)
}

// plain makes a cell one line without control characters: branches, messages
// and reasons are others' words, and this is a terminal.
func plain(cell string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(cell, "\uFFFD"), func(r rune) bool {
		return r < ' ' || r >= 0x7f && r < 0xa0
	}), " ")
}

func writeRuns(w io.Writer, runs []record.Run, now time.Time, wide bool) error {
	rows := [][]string{{"RUN", "COMMIT", "BRANCH", "STATUS", "REASON", "TRIGGERED", "DURATION"}}
	if wide {
		rows[0] = append(rows[0], "UID")
	}
	for _, r := range runs {
		row := []string{
			r.WorkflowName, short(r.CommitSHA), or(r.Branch), string(r.Status), or(r.Reason),
			r.TriggeredAt.UTC().Format(time.DateTime), took(r.TriggeredAt, r.CompletedAt, now),
		}
		if wide {
			row = append(row, r.WorkflowID)
		}
		rows = append(rows, row)
	}
	return table(w, rows...)
}

// warnUnread says of each run that is left out of the list why, in a line.
func warnUnread(w io.Writer, unread []record.Unread) {
	for _, run := range unread {
		text := fmt.Sprintf("warning: run %s (UID %s, triggered %s) is not listed: %s",
			or(run.Name), run.UID, run.TriggeredAt.UTC().Format(time.DateTime), fault.Message(run.Err))
		_, _ = fmt.Fprintln(w, plain(text)) // the list is what counts
	}
}

func writeRun(w io.Writer, r record.Run, now time.Time) error {
	status := string(r.Status)
	if r.Reason != "" {
		status += " (" + r.Reason + ")"
	}
	head := [][]string{
		{"Run", r.WorkflowName},
		{"UID", r.WorkflowID},
		{"Pipeline", r.Pipeline + " in namespace " + r.Namespace},
		{"Commit", r.CommitSHA},
		{"Branch", or(r.Branch)},
		{"Repository", or(r.RepoURL)},
		{"Status", status},
		{"Triggered", r.TriggeredAt.UTC().Format(time.DateTime)},
		{"Duration", took(r.TriggeredAt, r.CompletedAt, now)},
	}
	if r.Artifacts != nil {
		head = append(head, []string{"Artifacts", fmt.Sprintf("%d, %s", r.Artifacts.Count, bytesize.Format(r.Artifacts.SizeBytes))})
	}
	if r.CompletedAt != nil {
		head = append(head, []string{"Metrics", figures(r.Metrics)})
	}
	head = append(head, []string{""})
	if err := table(w, head...); err != nil {
		return err
	}
	rows := [][]string{{"STAGE", "STATUS", "STARTED", "DURATION", "REASON", "MESSAGE"}}
	for _, s := range r.Stages {
		message := s.Message
		if s.ErrorMessage != nil {
			message = *s.ErrorMessage
		}
		rows = append(rows, []string{
			s.StageName, string(s.Status), s.StartedAt.UTC().Format(time.TimeOnly), took(s.StartedAt, s.CompletedAt, now), or(s.Reason), cut(message),
		})
	}
	if err := table(w, rows...); err != nil {
		return err
	}
	if err := writeFailures(w, r.Stages); err != nil {
		return err
	}
	rows = testRows(r.Stages)
	if len(r.Notifications) > 0 {
		rows = append(rows, []string{""}, []string{"CHANNEL", "STATUS", "TARGET", "ERROR"})
		for _, n := range r.Notifications {
			rows = append(rows, []string{n.Type, string(n.Status), n.Target, cut(n.Error)})
		}
	}
	return table(w, rows...)
}

// writeFailures writes the messages of failed stages that the table has cut:
// the cause, and what to do, are often at the end.
func writeFailures(w io.Writer, stages []record.Stage) error {
	for _, s := range stages {
		if s.ErrorMessage == nil || cut(*s.ErrorMessage) == *s.ErrorMessage {
			continue
		}
		if _, err := fmt.Fprintf(w, "\n%s:\n  %s\n", plain(s.StageName), strings.Join(wrapped(plain(*s.ErrorMessage)), "\n  ")); err != nil {
			return err
		}
	}
	return nil
}

// wrapped breaks a text between words into lines of at most shownMessage
// characters; a longer word has a line of its own.
func wrapped(text string) []string {
	var lines []string
	line, length := "", 0
	for word := range strings.FieldsSeq(text) {
		size := utf8.RuneCountInString(word)
		if line != "" && length+1+size > shownMessage {
			lines, line, length = append(lines, line), "", 0
		}
		if line != "" {
			line, length = line+" ", length+1
		}
		line, length = line+word, length+size
	}
	return append(lines, line)
}

// testRows are what the test reports of the stages say, after an empty line.
func testRows(stages []record.Stage) [][]string {
	var rows [][]string
	for _, s := range stages {
		if s.Tests == nil {
			continue
		}
		row := []string{s.StageName, strconv.Itoa(s.Tests.Passed), strconv.Itoa(s.Tests.Failed), strconv.Itoa(s.Tests.Skipped)}
		for _, failed := range s.Tests.FailedTests {
			rows = append(rows, append(row, cut(failed.Title()), cut(failed.Message)))
			row = []string{"", "", "", ""}
		}
		switch more := s.Tests.Failed - len(s.Tests.FailedTests); {
		case more > 0:
			rows = append(rows, append(row, fmt.Sprintf("and %d more", more)))
		case len(s.Tests.FailedTests) == 0:
			rows = append(rows, append(row, "-"))
		}
	}
	if len(rows) == 0 {
		return nil
	}
	return append([][]string{{""}, {"TESTS", "PASSED", "FAILED", "SKIPPED", "FAILED TEST", "WHY"}}, rows...)
}

func writeEvents(w io.Writer, all []record.Events) error {
	for i, stack := range all {
		head := fmt.Sprintf("%s in %s (account %s, %s)", stack.Stack, stack.Environment, stack.Account, stack.Region)
		if stack.Epoch != "" {
			head += fmt.Sprintf(", try of %s, attempt %d", stack.Epoch, stack.Attempt)
		}
		if i > 0 {
			head = "\n" + head
		}
		if _, err := fmt.Fprintln(w, head); err != nil {
			return err
		}
		rows := [][]string{{"TIME", "STATUS", "TYPE", "LOGICAL ID", "REASON"}}
		for n, e := range stack.Events {
			if stack.Omitted > 0 && n == stack.OmittedAfter {
				rows = append(rows, []string{"…", "…", "…", "…", fmt.Sprintf("%d were left out", stack.Omitted)})
			}
			id := e.LogicalID
			if e.Path != "" {
				id += " (" + e.Path + ")"
			}
			rows = append(rows, []string{e.Time.UTC().Format(time.DateTime), e.Status, e.Type, id, e.Reason})
		}
		if stack.Truncated && stack.Omitted == 0 { // of an earlier version
			rows = append(rows, []string{"…", "later ones were left out"})
		}
		if err := table(w, rows...); err != nil {
			return err
		}
	}
	return nil
}

func writeArtifacts(w io.Writer, artifacts []record.Artifact) error {
	rows := [][]string{{"PATH", "TYPE", "SIZE", "CHECKSUM", "STORED", "RUN", "NOTE"}}
	for _, a := range artifacts {
		note := ""
		if a.DiffersFrom != "" {
			note = "unlike the first build's"
		}
		rows = append(rows, []string{
			a.Path, string(a.ArtifactType), bytesize.Format(a.SizeBytes), a.Checksum[:min(len(a.Checksum), shownChecksum)],
			a.Timestamp.UTC().Format(time.DateTime), or(a.WorkflowName), or(note),
		})
	}
	return table(w, rows...)
}

func joined(names []string) string { return strings.Join(names, ", ") }

// shownNames is how many of many names a message has.
const shownNames = 10

// someOf joins the first names, and says how many more there are.
func someOf(names []string) string {
	text := joined(names[:min(len(names), shownNames)])
	if more := len(names) - shownNames; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func short(commit string) string {
	return commit[:min(len(commit), 12)]
}

// or is the cell of a value that may be empty.
func or(value string) string {
	if value == "" {
		return "-"
	}
	return value
}

func cut(message string) string {
	if runes := []rune(message); len(runes) > shownMessage {
		return string(runes[:shownMessage]) + "…"
	}
	return message
}

// took is how long something took, or has taken until now.
func took(began time.Time, ended *time.Time, now time.Time) string {
	if ended == nil {
		return max(now.Sub(began), 0).Round(time.Second).String() + " so far"
	}
	return max(ended.Sub(began), 0).Round(time.Second).String()
}
