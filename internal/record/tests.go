package record

import (
	"context"
	"errors"
	"time"

	"github.com/aphex-pipeline/aphex/internal/junit"
	"github.com/aphex-pipeline/aphex/internal/store"
)

// MaxFailedTests is how many failed tests a stage's record names.
const MaxFailedTests = 20

// Tests is what the test reports of a stage say.
type Tests struct {
	Total   int `json:"total"`
	Passed  int `json:"passed"`
	Failed  int `json:"failed"`
	Skipped int `json:"skipped"`
	// FailedTests are the first of those that failed.
	FailedTests []FailedTest `json:"failed_tests,omitempty"`
}

// FailedTest is one test case that failed. Its texts are single lines.
type FailedTest struct {
	Name    string `json:"name"`
	Class   string `json:"class,omitempty"`
	Message string `json:"message,omitempty"`
	// Report is the path of the report in the checkout.
	Report string `json:"report,omitempty"`
}

// Title is how people call the test, see junit.Case.
func (f FailedTest) Title() string { return junit.Case{Name: f.Name, Class: f.Class}.Title() }

// TestSuite is one suite of a report: its own test cases, without those of
// suites within it.
type TestSuite struct {
	Name    string `json:"name"`
	Report  string `json:"report"`
	Passed  int    `json:"passed"`
	Failed  int    `json:"failed"`
	Skipped int    `json:"skipped"`
}

// TestCommand is one test command that was started.
type TestCommand struct {
	Command  string  `json:"command"`
	ExitCode int     `json:"exit_code"`
	Seconds  float64 `json:"seconds"`
	Passed   bool    `json:"passed"`
}

// The values of TestResult.Status.
const (
	ResultPassed = "passed"
	ResultFailed = "failed"
)

// TestResult is the result of an environment's tests, stored at its Keys.
type TestResult struct {
	SchemaVersion string `json:"schema_version"`
	// WorkflowID is the Workflow's UID; with Attempt and Epoch it says which
	// execution of the stage this is the result of.
	WorkflowID  string        `json:"workflow_id"`
	Environment string        `json:"environment"`
	CommitSHA   string        `json:"commit_sha"`
	Attempt     int           `json:"attempt"`
	Epoch       string        `json:"epoch"`
	Status      string        `json:"status"`
	CompletedAt time.Time     `json:"completed_at"`
	Commands    []TestCommand `json:"commands"`
	// Tests is nil if no report was read. It names more failed tests than the
	// stage's record does.
	Tests *Tests `json:"tests,omitempty"`
	// Suites are those with test cases of their own, not all if they are very
	// many.
	Suites []TestSuite `json:"suites,omitempty"`
	// Reports are the paths of the reports that were read.
	Reports []string `json:"reports,omitempty"`
	// Warnings say which reports are missing, could not be read or are broken.
	Warnings []string `json:"warnings,omitempty"`
}

// Keys are the object keys of the result: as that of its try, which no other
// try replaces, and as the latest.
func (t TestResult) Keys() []string {
	return []string{triedKey(t.WorkflowID, t.Epoch, t.Attempt, "tests/"+t.Environment+".json"), TestKey(t.WorkflowID, t.Environment)}
}

// WithTests returns the record of a test stage with what the test reports of
// the same execution say. It is unchanged if there were none.
//
// Errors: those of the bucket, and StoreFailed for what is no result.
func (r *Recorder) WithTests(ctx context.Context, uid string, s Stage) (Stage, error) {
	var result TestResult
	err := r.get(ctx, TestKey(uid, s.Environment), &result)
	if errors.Is(err, store.ErrNotFound) {
		return s, nil
	}
	if err != nil || result.Tests == nil || result.Attempt != s.Attempt || result.Epoch != s.Epoch {
		return s, err
	}
	s.Tests = result.Tests
	s.Tests.FailedTests = s.Tests.FailedTests[:min(len(s.Tests.FailedTests), MaxFailedTests)]
	return s, nil
}
