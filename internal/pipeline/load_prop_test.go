package pipeline_test

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

func drawText(t *rapid.T, label string) string {
	return rapid.SampledFrom([]string{
		"npm ci", "make test", "echo 'a: b' # no comment", "cd app\nnpm run build\n", "yes", "true", "1.0", "- x", "&a *b", "äöü ✓", " leading", "\ttab", "{{x}}", "\"quoted\"",
	}).Draw(t, label)
}

func drawTimeout(t *rapid.T) time.Duration {
	if !rapid.Bool().Draw(t, "has timeout") {
		return 0
	}
	return time.Duration(rapid.IntRange(1, 24*3600).Draw(t, "seconds")) * time.Second
}

func drawContext(t *rapid.T) map[string]any {
	values := rapid.OneOf(
		rapid.Just[any](nil), rapid.Map(rapid.Bool(), func(b bool) any { return b }), rapid.Map(rapid.IntRange(-1000, 1000), func(i int) any { return i }),
		rapid.Just[any](2.5), rapid.Just[any]("2026-01-01"), rapid.Just[any]([]any{"a", 1, map[string]any{"b": "no"}}),
	)
	// Not of all letters: a key such as pat would make its value a secret.
	context := rapid.MapOfN(rapid.StringMatching(`[a-h@]{1,6}(:[a-h]{1,6})?`), values, 0, 4).Draw(t, "context")
	if len(context) == 0 {
		return nil
	}
	return context
}

func drawEnvironment(t *rapid.T, name string) pipeline.Environment {
	environment := pipeline.Environment{
		Name:    name,
		Region:  rapid.SampledFrom([]string{"eu-west-1", "us-gov-west-1", "ap-southeast-12", "eusc-de-east-1"}).Draw(t, "region"),
		Account: rapid.StringMatching(`[0-9]{12}`).Draw(t, "account"),
		Timeout: drawTimeout(t),
		Context: drawContext(t),
	}
	for i := range rapid.IntRange(1, 4).Draw(t, "stacks") {
		environment.Stacks = append(environment.Stacks, pipeline.Stack{
			Name: fmt.Sprintf("%s%d", rapid.StringMatching(`[A-Z][a-z]{0,8}(/[A-Z][a-z]{0,8})?`).Draw(t, "stack"), i),
			Path: rapid.SampledFrom([]string{".", "infra", "./infra/bin/app.ts", "a/../b", "with space"}).Draw(t, "path"),
		})
	}
	if rapid.Bool().Draw(t, "has tests") {
		environment.Tests = &pipeline.Tests{Timeout: drawTimeout(t)}
		for range rapid.IntRange(0, 3).Draw(t, "tests") {
			environment.Tests.Commands = append(environment.Tests.Commands, drawText(t, "test"))
		}
	}
	if rapid.Bool().Draw(t, "has role") {
		environment.RoleARN = "arn:aws:iam::" + environment.Account + ":role/" + rapid.StringMatching(`[a-z/]{1,10}[a-z]`).Draw(t, "role")
		environment.ExternalID = rapid.SampledFrom([]string{"", "shop-dev"}).Draw(t, "external id")
	}
	return environment
}

func drawConfig(t *rapid.T) *pipeline.Config {
	config := &pipeline.Config{
		Version: pipeline.Version,
		Build: pipeline.Build{
			Timeout: drawTimeout(t), Artifacts: rapid.SampledFrom([]string{"artifacts/", "dist", "a/b"}).Draw(t, "artifacts"), Credentials: rapid.Bool().Draw(t, "credentials"),
		},
		Worker:           pipeline.Worker{Image: rapid.SampledFrom([]string{"", "node:24.1", "r.example.com:5000/a/b_c@sha256:" + strings.Repeat("0a", 32)}).Draw(t, "image")},
		SelfModification: pipeline.SelfModificationNextRun,
	}
	for range rapid.IntRange(0, 4).Draw(t, "commands") {
		config.Build.Commands = append(config.Build.Commands, drawText(t, "command"))
	}
	if env := rapid.MapOfN(rapid.StringMatching(`[A-Z_][A-Z0-9_]{0,8}`), rapid.SampledFrom([]string{"", "on", "1", "x y", "~"}), 0, 3).Draw(t, "env"); len(env) > 0 {
		maps.DeleteFunc(env, func(name, _ string) bool { return strings.HasPrefix(name, "APHEX_") })
		if len(env) > 0 {
			config.Build.Env = env
		}
	}
	if rapid.Bool().Draw(t, "limits") {
		config.Worker.Resources.Requests = map[string]string{"cpu": "500m"}
		config.Worker.Resources.Limits = map[string]string{"cpu": "0.5", "memory": "1Gi"}
	}
	names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?`).Filter(func(s string) bool { return s != "pipeline" }), 1, 6, rapid.ID).Draw(t, "names")
	for _, name := range names {
		config.Environments = append(config.Environments, drawEnvironment(t, name))
	}
	return config
}

// Whatever fits the types loads, comes out as it went in, and keeps the order
// and the number of its environments.
func TestLoad_RoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		config := drawConfig(t)
		text, err := yaml.Marshal(config)
		require.NoError(t, err)
		loaded, err := pipeline.Load("c", text)
		require.NoError(t, err, "%s", text)
		require.Equal(t, config, loaded, "%s", text)
		again, err := yaml.Marshal(loaded)
		require.NoError(t, err)
		require.Equal(t, string(text), string(again))
	})
}

// Each environment needs a region, an account and at least one stack.
//
// Feature: aphex-pipeline, Property 8: Environment configuration schema compliance
func TestLoad_EnvironmentNeedsItsKeys(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		config := drawConfig(t)
		var document map[string]any
		text, err := yaml.Marshal(config)
		require.NoError(t, err)
		require.NoError(t, yaml.Unmarshal(text, &document))
		index := rapid.IntRange(0, len(config.Environments)-1).Draw(t, "index")
		key := rapid.SampledFrom([]string{"name", "region", "account", "stacks"}).Draw(t, "key")
		environment := document["environments"].([]any)[index].(map[string]any)
		path := fmt.Sprintf("environments[%d]", index)
		if key == "stacks" && rapid.Bool().Draw(t, "empty") {
			environment[key] = []any{}
			path += ".stacks"
		} else {
			delete(environment, key)
		}
		text, err = yaml.Marshal(document)
		require.NoError(t, err)
		_, err = pipeline.Load("c", text)
		invalid, ok := errors.AsType[*pipeline.InvalidError](err)
		require.True(t, ok, "%v", err)
		require.True(t, slices.ContainsFunc(invalid.Findings, func(f pipeline.Finding) bool { return f.Path == path }), "%v", invalid.Findings)
	})
}

// Any number of bytes changed at random never panics, and either loads or
// gives findings inside of the text.
//
// Feature: aphex-pipeline, Property 19: Configuration schema validation
func TestLoad_Mutations(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(complete)
		for range rapid.IntRange(1, 12).Draw(t, "changes") {
			at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				text[at] = rapid.Byte().Draw(t, "byte")
			case 1:
				text = slices.Delete(text, at, min(len(text), at+rapid.IntRange(1, 20).Draw(t, "count")))
			default:
				text = slices.Insert(text, at, []byte(rapid.SampledFrom([]string{"\n", ": ", "- ", "{", "}", "[", "&a ", "*dev", "'", "\"", "\t", "|\n", "!!", "<<: ", "x-"}).Draw(t, "insert"))...)
			}
			if len(text) == 0 {
				break
			}
		}
		checkOutcome(t, text)
	})
}

type reporter interface {
	require.TestingT
	Helper()
}

// checkOutcome holds for every input.
func checkOutcome(t reporter, text []byte) {
	t.Helper()
	config, err := pipeline.Load("c", text)
	if err == nil {
		require.NotEmpty(t, config.Environments)
		for _, environment := range config.Environments {
			require.Regexp(t, `^[0-9]{12}$`, environment.Account)
			require.Regexp(t, `^[a-z]{2,4}-[a-z-]+-[0-9]+$`, environment.Region)
			require.Regexp(t, `^[a-z0-9-]{1,40}$`, environment.Name)
			require.NotEmpty(t, environment.Stacks)
			for _, stack := range environment.Stacks {
				require.NotEmpty(t, stack.Name)
				require.True(t, filepath.IsLocal(stack.Path), stack.Path)
			}
		}
		return
	}
	require.Nil(t, config)
	invalid, ok := errors.AsType[*pipeline.InvalidError](err)
	require.True(t, ok, "%T: %v", err, err)
	require.NotEmpty(t, invalid.Findings)
	lines := 1 // by YAML's count, to which a carriage return and some other characters are breaks
	for _, lineBreak := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} {
		lines += strings.Count(string(text), lineBreak)
	}
	previous := pipeline.Finding{}
	for _, finding := range invalid.Findings {
		require.Positive(t, finding.Line)
		require.Positive(t, finding.Column)
		require.LessOrEqual(t, finding.Line, lines)
		require.NotEmpty(t, finding.Message)
		require.NotContains(t, finding.String(), "\n")
		require.True(t, finding.Line > previous.Line || finding.Line == previous.Line && finding.Column >= previous.Column, "%v after %v", finding, previous)
		previous = finding
	}
}
