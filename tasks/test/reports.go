package test

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/junit"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/internal/workspace"
)

// What is read of test reports.
const (
	// maxReports is above the test classes of a large project, each of which
	// has a report of its own with some tools.
	maxReports = 1000
	// maxReport bounds one report in bytes: some tools put all output there.
	maxReport = 16 << 20
	// maxReportBytes bounds all of them.
	maxReportBytes = 64 << 20
	// readTimeout is for all of them.
	readTimeout = 2 * time.Minute
	// hurriedTimeout is for all of them where the stage is being ended.
	hurriedTimeout = 5 * time.Second
	// maxWarnings is how many warnings are kept.
	maxWarnings = 20
)

// How much of a message the reports may take, in bytes. A failed command needs
// room behind it: a node's message has 1 KiB.
const (
	maxTitle    = 140
	maxReason   = 140
	maxSentence = 400
)

// reports is what the test reports of the stage say.
type reports struct {
	hide func(string) string
	// before are the files that fitted before the commands began, by path.
	before map[string]worker.Entry
	// read are the paths of the reports that were read.
	read     []string
	totals   junit.Totals
	suites   []record.TestSuite
	failed   []record.FailedTest
	warnings []string
	// unsaid is how many warnings more there are.
	unsaid int
}

// candidates lists the files that fit one of patterns.
func (s *Stage) candidates(ctx context.Context, patterns []string) ([]worker.Entry, error) {
	if len(patterns) == 0 {
		return nil, nil
	}
	all, err := s.cfg.Trees.List(ctx, worker.SourceDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var fit []worker.Entry
	for _, entry := range all {
		if entry.Mode.IsRegular() && !strings.HasPrefix(entry.Path, ".git/") && fitsOne(patterns, entry.Path) {
			fit = append(fit, entry)
		}
	}
	return fit, nil
}

func fitsOne(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if workspace.Fits(pattern, name) {
			return true
		}
	}
	return false
}

// look remembers what is there before the commands begin.
func (s *Stage) look(ctx context.Context, patterns []string) (*reports, error) {
	entries, err := s.candidates(ctx, patterns)
	if err != nil {
		return nil, fmt.Errorf("look for test reports: %w", err)
	}
	r := &reports{hide: s.cfg.Redact, before: make(map[string]worker.Entry, len(entries))}
	for _, entry := range entries {
		r.before[entry.Path] = entry
	}
	return r, nil
}

// written reports whether the commands have written the file. Attributes alone,
// such as a mode, do not make a report new.
func (r *reports) written(entry worker.Entry) bool {
	was, known := r.before[entry.Path]
	return !known || !was.ModTime.Equal(entry.ModTime) || was.Size != entry.Size || was.Inode != entry.Inode
}

// collect reads the reports that the commands have written. With hurry there is
// little time, and reports that are missing are not worth a word.
//
// Errors: those of a worker that is away, and of ctx. What is wrong with a
// report is a warning.
func (s *Stage) collect(ctx context.Context, patterns []string, r *reports, hurry bool) error {
	limit := readTimeout
	if hurry {
		ctx, limit = context.WithoutCancel(ctx), hurriedTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	entries, err := s.candidates(ctx, patterns)
	if err != nil {
		return r.trouble("the test reports cannot be looked for", err)
	}
	var written []worker.Entry
	for _, entry := range entries {
		if r.written(entry) {
			written = append(written, entry)
		}
	}
	if !hurry {
		r.missing(patterns, entries, written)
	}
	left := int64(maxReportBytes)
	for i, entry := range written {
		switch {
		case entry.Size > maxReport:
			r.warn("test report %s has %d bytes and is not read: at most %d MiB are", r.shown(entry.Path), entry.Size, maxReport>>20)
			continue
		case i == maxReports || entry.Size > left:
			r.warn("%d test reports from %s on are not read: at most %d with %d MiB in all are", len(written)-i, r.shown(entry.Path), maxReports, maxReportBytes>>20)
			return nil
		}
		left -= entry.Size
		if err := s.read(ctx, r, entry.Path); err != nil {
			return err
		}
	}
	return nil
}

// missing warns of patterns that no new report fits.
func (r *reports) missing(patterns []string, there, written []worker.Entry) {
	for _, pattern := range patterns {
		fit := func(entries []worker.Entry) (n int) {
			for _, entry := range entries {
				if workspace.Fits(pattern, entry.Path) {
					n++
				}
			}
			return n
		}
		switch old := fit(there); {
		case fit(written) > 0:
		case old > 0:
			r.warn("no test report that the commands wrote matches %s (%d from before them)", pattern, old)
		default:
			r.warn("no test report matches %s", pattern)
		}
	}
}

// read adds what one report says.
func (s *Stage) read(ctx context.Context, r *reports, name string) error {
	stream, err := s.cfg.Trees.ReadTree(ctx, worker.SourceDir, []string{name})
	if err != nil {
		return r.trouble("test report "+r.shown(name)+" cannot be read", err)
	}
	defer func() { _ = stream.Close() }()
	content := tar.NewReader(stream)
	entry, err := content.Next()
	if err == nil && (entry.Typeflag != tar.TypeReg || entry.Size > maxReport) {
		err = errors.New("it changes while it is read")
	}
	if err != nil {
		return r.trouble("test report "+r.shown(name)+" cannot be read", err)
	}
	report, err := junit.Parse(io.LimitReader(content, maxReport), s.cfg.Redact)
	if err == nil || report.Total() > 0 {
		r.add(report, r.shown(name))
	}
	switch {
	case err == nil:
		return nil
	case report.Total() > 0:
		return r.trouble(fmt.Sprintf("test report %s breaks off; the %d test cases before count", r.shown(name), report.Total()), err)
	}
	return r.trouble("test report "+r.shown(name)+" cannot be understood", err)
}

// add adds a report.
func (r *reports) add(report junit.Report, name string) {
	r.read = append(r.read, name)
	r.totals = r.totals.Plus(report.Totals)
	for _, suite := range report.Suites[:min(len(report.Suites), junit.MaxSuites-len(r.suites))] {
		r.suites = append(r.suites, record.TestSuite{Name: suite.Name, Report: name, Passed: suite.Passed, Failed: suite.Failed, Skipped: suite.Skipped})
	}
	for _, c := range report.Failed[:min(len(report.Failed), junit.MaxFailed-len(r.failed))] {
		r.failed = append(r.failed, record.FailedTest{Name: c.Name, Class: c.Class, Message: c.Message, Report: name})
	}
}

// trouble makes err a warning, unless it is the worker's or the stage's end: it
// is then returned.
func (r *reports) trouble(what string, err error) error {
	if f, ok := errors.AsType[*fault.Fault](err); ok && (f.Class == fault.Transient || f.Class == fault.Cancelled) {
		return fmt.Errorf("read the test reports: %w", err)
	}
	r.warn("%s: %s", what, err)
	return nil
}

func (r *reports) warn(format string, args ...any) {
	if len(r.warnings) == maxWarnings {
		r.unsaid++
		return
	}
	r.warnings = append(r.warnings, r.shown(fmt.Sprintf(format, args...)))
}

// shown is a text or path of others as one line without secrets.
func (r *reports) shown(text string) string {
	return junit.Line(strings.ReplaceAll(r.hide(text), "\n", " "), junit.MaxMessage)
}

// verdict is the failure of tests whose commands succeeded.
func (r *reports) verdict() error {
	if r.totals.Failed == 0 {
		return nil
	}
	return fault.Newf(fault.User, fault.TestsFailed, "judge the tests by their reports", "Mend the tests that failed; the log of the stage names them",
		"the commands exited 0, but tests failed")
}

// sentence is what the reports say, for the message of the stage; empty if
// there is nothing to say.
func (r *reports) sentence() string {
	var parts []string
	if len(r.read) > 0 {
		text := fmt.Sprintf("%d passed, %d failed, %d skipped", r.totals.Passed, r.totals.Failed, r.totals.Skipped)
		if len(r.failed) > 0 {
			first := r.failed[0]
			text += ": " + junit.Line(first.Title(), maxTitle)
			if first.Message != "" {
				text += " (" + junit.Line(first.Message, maxReason) + ")"
			}
		}
		parts = append(parts, text)
	}
	if len(r.warnings) > 0 {
		parts = append(parts, r.warnings[0])
	}
	if more := len(r.warnings) - 1 + r.unsaid; more > 0 {
		parts = append(parts, fmt.Sprintf("%d more warnings in the log", more))
	}
	return junit.Line(strings.Join(parts, "; "), maxSentence)
}

// log writes what the reports say, in full, for the reader of the log.
func (r *reports) log(out io.Writer) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(out, "tests: "+format+"\n", args...) }
	if len(r.read) > 0 {
		say("%d passed, %d failed, %d skipped by %d test reports", r.totals.Passed, r.totals.Failed, r.totals.Skipped, len(r.read))
	}
	for _, c := range r.failed {
		say("failed: %s: %s", c.Title(), c.Message)
	}
	if unnamed := r.totals.Failed - len(r.failed); unnamed > 0 {
		say("failed: %d more", unnamed)
	}
	for _, text := range r.warnings {
		say("warning: %s", text)
	}
	if r.unsaid > 0 {
		say("warning: and %d more", r.unsaid)
	}
}

// tests is what the reports say, for the result; nil if none was read.
func (r *reports) tests() *record.Tests {
	if len(r.read) == 0 {
		return nil
	}
	return &record.Tests{
		Total: r.totals.Total(), Passed: r.totals.Passed, Failed: r.totals.Failed, Skipped: r.totals.Skipped, FailedTests: r.failed,
	}
}
