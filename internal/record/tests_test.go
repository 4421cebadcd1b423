package record

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/store"
)

func TestWithTests_TakesTheResultOfTheSameExecution(t *testing.T) {
	t.Parallel()
	bucket := store.NewDir(t.TempDir())
	r := New(bucket)
	put := func(result any) {
		body, err := json.Marshal(result)
		require.NoError(t, err)
		_, err = bucket.Put(t.Context(), TestKey("u", "dev"), strings.NewReader(string(body)), store.PutOptions{})
		require.NoError(t, err)
	}
	stage := Stage{StageName: "test-dev", Stage: "test", Environment: "dev", Attempt: 1, Epoch: "e2", Status: Failed}
	got, err := r.WithTests(t.Context(), "u", stage)
	require.NoError(t, err)
	require.Equal(t, stage, got, "the stage did not get as far as its commands")

	result := TestResult{Environment: "dev", Attempt: 1, Epoch: "e2", Status: ResultFailed, Tests: &Tests{Total: 40, Passed: 5, Failed: 35}}
	for n := range 35 {
		result.Tests.FailedTests = append(result.Tests.FailedTests, FailedTest{Name: "t" + strconv.Itoa(n), Message: "no"})
	}
	put(result)
	got, err = r.WithTests(t.Context(), "u", stage)
	require.NoError(t, err)
	want := stage
	want.Tests = &Tests{Total: 40, Passed: 5, Failed: 35, FailedTests: result.Tests.FailedTests[:MaxFailedTests]}
	require.Equal(t, want, got)

	for name, other := range map[string]TestResult{
		"of an earlier attempt": {Attempt: 0, Epoch: "e2", Tests: &Tests{Total: 1}},
		"of an earlier try":     {Attempt: 1, Epoch: "e1", Tests: &Tests{Total: 1}},
		"without reports":       {Attempt: 1, Epoch: "e2"},
	} {
		put(other)
		got, err = r.WithTests(t.Context(), "u", stage)
		require.NoError(t, err, name)
		require.Equal(t, stage, got, name)
	}

	put("no result")
	got, err = r.WithTests(t.Context(), "u", stage)
	require.Equal(t, fault.StoreFailed, fault.From(err).Reason)
	require.Equal(t, stage, got)
}
