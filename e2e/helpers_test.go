package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/lab"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
)

// runLimit is how long one run may take: npm ci on a cold cache, a pod for each
// stage and other runs beside it included.
const runLimit = 10 * time.Minute

// settings are the switches of testdata/app.
type settings map[string]any

// environment is one environment of a generated configuration.
type environment struct {
	name, region, account, stack string
	tests                        []string
	reports                      []string
}

// dev is the environment most scenarios use.
func dev(stack string, tests ...string) environment {
	return environment{name: "dev", region: "eu-west-1", account: "111111111111", stack: stack, tests: tests}
}

// config writes an aphex-config.yaml.
func config(build []string, environments ...environment) string {
	quote := func(s string) string {
		text, err := json.Marshal(s) // JSON strings are YAML strings
		if err != nil {
			panic(err)
		}
		return string(text)
	}
	var b strings.Builder
	b.WriteString("version: \"1.0\"\nbuild:\n  commands:\n")
	for _, c := range build {
		b.WriteString("    - " + quote(c) + "\n")
	}
	b.WriteString("environments:\n")
	for _, e := range environments {
		fmt.Fprintf(&b, "  - name: %s\n    region: %s\n    account: %q\n    stacks:\n      - name: %s\n        path: cdk.json\n", e.name, e.region, e.account, e.stack)
		if len(e.tests) > 0 {
			b.WriteString("    tests:\n      commands:\n")
			for _, c := range e.tests {
				b.WriteString("        - " + quote(c) + "\n")
			}
		}
		if len(e.reports) > 0 {
			b.WriteString("      reports:\n")
			for _, pattern := range e.reports {
				b.WriteString("        - " + quote(pattern) + "\n")
			}
		}
	}
	return b.String()
}

// npmCI is the build of testdata/app.
func npmCI() []string { return []string{"npm ci --no-audit --no-fund"} }

// newApp makes a pipeline with testdata/app, its first commit and its applied
// template, and returns the pipeline and the commit.
func newApp(t *testing.T, l *lab.Lab, name, cfg string, s settings, changes ...func(*pipeline.Installation)) (*lab.Pipeline, string) {
	t.Helper()
	p, err := l.NewPipeline(t.Context(), name, changes...)
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "app"))))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "aphex-config.yaml"), []byte(cfg), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "settings.json"), []byte(s.json(t)), 0o600))
	commit, err := p.Push(t.Context(), gitserver.Change{Dir: dir, Message: "first"})
	require.NoError(t, err)
	require.NoError(t, p.Apply(t.Context(), []byte(cfg)))
	return p, commit
}

func (s settings) json(t *testing.T) string {
	t.Helper()
	text, err := json.Marshal(s)
	require.NoError(t, err)
	return string(text)
}

// runner is one way to run stages. The names a scenario gives to things end in
// suffix, so that it can be driven with both beside each other.
type runner struct{ name, suffix string }

func pluginRunner() runner    { return runner{name: pipeline.RunnerPlugin} }
func containerRunner() runner { return runner{name: pipeline.RunnerContainer, suffix: "-container"} }

// use makes an installation use the runner.
func (r runner) use(i *pipeline.Installation) { i.Runner = r.name }

// finish submits a commit and waits for the end of the run.
func finish(t *testing.T, p *lab.Pipeline, commit string, parameters ...string) (*lab.Run, lab.Status) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	run, err := p.Submit(ctx, commit, parameters...)
	require.NoError(t, err)
	status, err := run.Wait(ctx)
	require.NoError(t, err)
	return run, status
}

// requirePhases compares the stages' phases, by display name.
func requirePhases(t *testing.T, s lab.Status, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for name := range want {
		got[name] = s.Node(name).Phase
	}
	text, err := json.MarshalIndent(s, "", "  ")
	require.NoError(t, err)
	require.Equal(t, want, got, "%s", text)
}
