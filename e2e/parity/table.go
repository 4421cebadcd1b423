package parity

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Verdict is the result in a word or two.
func (r Result) Verdict() string {
	unexpected := r.Unexpected()
	switch {
	case r.Err != nil:
		return "NOT COMPARED"
	case len(unexpected) > 0:
		return fmt.Sprintf("%d DIFFERENT", len(unexpected))
	default:
		return "equal"
	}
}

func (r Result) line() string {
	cdk := "recorded"
	if !r.Recorded {
		cdk = fmt.Sprintf("%5.1f s %3d calls", r.CDKTime.Seconds(), r.CDKCalls)
	}
	return fmt.Sprintf("%-14s %-16s %-13s cdk %-18s aphex %5.1f s %3d calls", r.App, r.State, r.Verdict(), cdk, r.AphexTime.Seconds(), r.AphexCalls)
}

// write prints the result and every difference that nobody allowed. What
// cannot be written is lost: the report has it.
func (r Result) write(out io.Writer) {
	_, _ = fmt.Fprintln(out, r.line())
	if r.Err != nil {
		_, _ = fmt.Fprintf(out, "    %v\n", r.Err)
	}
	for _, d := range r.Unexpected() {
		_, _ = fmt.Fprintf(out, "    %s\n      cdk:   %s\n      aphex: %s\n", d.Path, d.CDK, d.Aphex)
	}
	if len(r.Unexpected()) > 0 && r.Log != "" {
		_, _ = fmt.Fprintf(out, "    aphex: %s\n", strings.ReplaceAll(r.Log, "\n", "\n    "))
	}
}

// Write prints the table, every difference that nobody allowed, and the
// closing line.
func (r *Report) Write(out io.Writer) error {
	slices.SortFunc(r.Results, func(a, b Result) int {
		return cmp.Or(strings.Compare(a.App, b.App), cmp.Compare(slices.Index(States(), a.State), slices.Index(States(), b.State)))
	})
	var text strings.Builder
	different := 0
	for _, result := range r.Results {
		if result.Verdict() != "equal" {
			different++
		}
		result.write(&text)
	}
	fmt.Fprintf(&text, "%d compared, %d different\n", len(r.Results), different)
	_, err := io.WriteString(out, text.String())
	return err
}

// Markdown prints the verdicts as a table of apps and prior states; "–" is a
// cell that was not compared.
func (r *Report) Markdown(out io.Writer) error {
	verdicts := map[Cell]string{}
	apps := map[string]bool{}
	count := map[State]int{}
	for _, result := range r.Results {
		apps[result.App] = true
		count[result.State]++
		verdicts[result.Cell] = strings.ToLower(result.Verdict())
	}
	var text strings.Builder
	text.WriteString("| app |")
	for _, state := range States() {
		fmt.Fprintf(&text, " %s |", state)
	}
	text.WriteString("\n| --- |" + strings.Repeat(" --- |", len(States())) + "\n")
	for _, app := range slices.Sorted(maps.Keys(apps)) {
		fmt.Fprintf(&text, "| %s |", app)
		for _, state := range States() {
			fmt.Fprintf(&text, " %s |", cmp.Or(verdicts[Cell{app, state}], "–"))
		}
		text.WriteString("\n")
	}
	text.WriteString("| compared |")
	for _, state := range States() {
		fmt.Fprintf(&text, " %d |", count[state])
	}
	fmt.Fprintf(&text, "\n\n%d apps: %d compared, %d different\n", len(apps), len(r.Results), r.Different())
	_, err := io.WriteString(out, text.String())
	return err
}

// Different says how many cells are not equal.
func (r *Report) Different() int {
	n := 0
	for _, result := range r.Results {
		if result.Verdict() != "equal" {
			n++
		}
	}
	return n
}

// Time is how long each side took in all, in the cells where both ran.
func (r *Report) Time() (cdk, aphex time.Duration) {
	for _, result := range r.Results {
		if !result.Recorded {
			cdk += result.CDKTime
			aphex += result.AphexTime
		}
	}
	return cdk, aphex
}
