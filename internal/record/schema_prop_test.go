package record

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/store"
)

// published compiles the schema, which checks it too.
func published(tb testing.TB) *jsonschema.Schema {
	tb.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	require.NoError(tb, err)
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	require.NoError(tb, compiler.AddResource("run.json", doc))
	compiled, err := compiler.Compile("run.json")
	require.NoError(tb, err)
	return compiled
}

// drawText is what people, git and CloudFormation write.
func drawText(label string) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		return rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "0123", "a b", `"'\`, "<script>&", "$(rm)", "ü€😀", "null", "\u2028", strings.Repeat("x", 2000)})).Draw(t, label)
	})
}

func drawTime(t *rapid.T, label string) time.Time {
	return time.Unix(rapid.Int64Range(0, 4e9).Draw(t, label), rapid.Int64Range(0, 999_999_999).Draw(t, label+" ns")).UTC()
}

func drawStage(t *rapid.T) Stage {
	s := Stage{
		StageName: drawText("stage name").Draw(t, "stage name"), Stage: drawText("stage").Draw(t, "stage"), Environment: drawText("environment").Draw(t, "environment"),
		Attempt: rapid.IntRange(0, 9).Draw(t, "attempt"), Epoch: drawText("epoch").Draw(t, "epoch"), StartedAt: drawTime(t, "started"),
		Status: rapid.SampledFrom([]Status{Running, Succeeded, Failed}).Draw(t, "status"), Reason: drawText("reason").Draw(t, "reason"), Message: drawText("message").Draw(t, "message"),
	}
	if rapid.Bool().Draw(t, "complete") {
		s.CompletedAt = new(drawTime(t, "completed"))
	}
	if rapid.Bool().Draw(t, "error") {
		s.ErrorMessage = new(drawText("error").Draw(t, "error"))
	}
	s.LogURL = drawText("log").Draw(t, "log")
	if rapid.Bool().Draw(t, "events") {
		s.EventURLs = rapid.SliceOfN(drawText("events"), 1, 3).Draw(t, "events of stacks")
	}
	if rapid.Bool().Draw(t, "tests") {
		s.Tests = new(drawTests(t))
	}
	return s
}

func drawTests(t *rapid.T) Tests {
	count := rapid.IntRange(0, 1e6)
	tests := Tests{Passed: count.Draw(t, "passed"), Failed: count.Draw(t, "failed"), Skipped: count.Draw(t, "skipped")}
	tests.Total = tests.Passed + tests.Failed + tests.Skipped
	for range rapid.IntRange(0, 3).Draw(t, "failed tests") {
		tests.FailedTests = append(tests.FailedTests, FailedTest{
			Name: drawText("test").Draw(t, "test"), Class: drawText("class").Draw(t, "class"), Message: drawText("why").Draw(t, "why"), Report: drawText("report").Draw(t, "report"),
		})
	}
	return tests
}

func drawRun(t *rapid.T) Run {
	run := Run{
		WorkflowID: rapid.StringMatching(`[0-9a-f-]{8,36}`).Draw(t, "uid"), WorkflowName: drawText("name").Draw(t, "name"), Namespace: drawText("namespace").Draw(t, "namespace"),
		Pipeline: drawText("pipeline").Draw(t, "pipeline"), CommitSHA: drawText("commit").Draw(t, "commit"), Branch: drawText("branch").Draw(t, "branch"),
		RepoURL: drawText("repo").Draw(t, "repo"), TriggeredAt: drawTime(t, "triggered"), Status: rapid.SampledFrom([]Status{Running, Succeeded, Failed}).Draw(t, "status"),
		Reason: drawText("reason").Draw(t, "reason"), Stages: rapid.SliceOfN(rapid.Custom(drawStage), 0, 5).Draw(t, "stages"), SchemaVersion: SchemaVersion,
	}
	if rapid.Bool().Draw(t, "complete") {
		run.CompletedAt = new(drawTime(t, "completed"))
	}
	if rapid.Bool().Draw(t, "published") {
		run.Artifacts = &ArtifactTotal{Count: rapid.IntRange(0, 1e6).Draw(t, "artifacts"), SizeBytes: rapid.Int64Range(0, 1<<50).Draw(t, "size")}
	}
	if rapid.Bool().Draw(t, "measured") {
		run.Metrics = &Metrics{Sent: rapid.Bool().Draw(t, "sent"), Error: drawText("not sent").Draw(t, "not sent")}
		if rapid.Bool().Draw(t, "before") {
			run.Metrics.Until = new(drawTime(t, "until"))
		}
	}
	return run
}

// Feature: aphex-pipeline, Property 16: Workflow metadata recording
//
// Whatever stands in a record, what is stored follows the published schema and
// reads back as it was.
func TestRecord_RoundTripsAndFollowsTheSchema(t *testing.T) {
	t.Parallel()
	compiled, dir := published(t), t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		bucket := store.NewDir(dir)
		r, run := New(bucket), drawRun(t)
		require.NoError(t, r.putRun(t.Context(), run))
		read, err := r.Run(t.Context(), run.WorkflowID)
		require.NoError(t, err)
		require.Equal(t, run, read)

		body, _, err := bucket.Get(t.Context(), RunKey(run.WorkflowID))
		require.NoError(t, err)
		doc, err := jsonschema.UnmarshalJSON(body)
		require.NoError(t, err)
		require.NoError(t, body.Close())
		require.NoError(t, compiled.Validate(doc))
	})
}

// TestSchema_HasExactlyTheFields keeps schema and types together, and every
// field explained.
func TestSchema_HasExactlyTheFields(t *testing.T) {
	t.Parallel()
	type object struct {
		Required   []string                  `json:"required"`
		Properties map[string]map[string]any `json:"properties"`
	}
	var doc struct {
		object

		Definitions map[string]object `json:"definitions"`
	}
	require.NoError(t, json.Unmarshal(Schema(), &doc))
	for _, c := range []struct {
		name   string
		fields reflect.Type
		schema object
	}{
		{"run", reflect.TypeFor[Run](), doc.object},
		{"stage", reflect.TypeFor[Stage](), doc.Definitions["stage"]},
		{"metrics", reflect.TypeFor[Metrics](), doc.Definitions["metrics"]},
		{"tests", reflect.TypeFor[Tests](), doc.Definitions["tests"]},
		{"failed_test", reflect.TypeFor[FailedTest](), doc.Definitions["failed_test"]},
	} {
		var all, required []string
		for field := range c.fields.Fields() {
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			all = append(all, name)
			if options == "" {
				required = append(required, name)
			}
		}
		require.ElementsMatch(t, all, slices.Collect(maps.Keys(c.schema.Properties)), c.name)
		require.ElementsMatch(t, required, c.schema.Required, c.name)
		for name, property := range c.schema.Properties {
			require.True(t, property["description"] != nil || property["$ref"] != nil, "%s.%s is not explained", c.name, name)
		}
	}
}

func TestSchema_RefusesWhatIsNoRecord(t *testing.T) {
	t.Parallel()
	compiled := published(t)
	good := Run{SchemaVersion: SchemaVersion, Status: Running, Stages: []Stage{}, TriggeredAt: time.Unix(0, 0).UTC()}
	for name, ruin := range map[string]func(map[string]any){
		"another version": func(m map[string]any) { m["schema_version"] = "2.0" },
		"another status":  func(m map[string]any) { m["status"] = "stopped" },
		"no stages":       func(m map[string]any) { delete(m, "stages") },
		"an unknown key":  func(m map[string]any) { m["color"] = "red" },
		"no time":         func(m map[string]any) { m["triggered_at"] = "yesterday" },
	} {
		raw, err := json.Marshal(good)
		require.NoError(t, err)
		var m map[string]any
		require.NoError(t, json.Unmarshal(raw, &m))
		require.NoError(t, compiled.Validate(m))
		ruin(m)
		require.Error(t, compiled.Validate(m), name)
	}
}
