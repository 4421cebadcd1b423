package pipeline_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/testkit/bounded"
)

// FuzzLoad: whatever text stands where a configuration or an installation
// should, it is accepted for what it is or every finding says where it stands.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		minimal, complete, "", "a: &a [*a]\n", "version: 1.0\n", "- - - -\n", "? [a]\n: b\n", "a: 1\n---\nb: 2\n", "%YAML 1.1\n---\na: yes\n",
		"<<: {a: 1}\n", "a: \"\\x00\"\n", "\xff\xfe", "\ufeffversion: \"1.0\"\n", "environments: [{account: 012}]\n", "password: x\n", "a: !!binary aGk=\n", "a: |\n \tb\n", "!!map {a: !!set {b}}\n",
		minimalInstallation, "aws: &a {roleArn: *a}", "? [a, b] : c", minimalInstallation + "workerEnv: {A: \"{{x}}\", on: off}\n", minimalInstallation + "ttlDays: 1e3\nimages: &i {plugin: *i}\n",
		"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n",
		strings.Repeat("{a: ", 200),
		minimal + "x-a: {password: hunter2} # aphex:allow-secret an example\n", minimal + "# aphex:allow-secret an example\nx-a: &a !!str |-\n  A_PASSWORD=hunter2\n  # aphex:allow-secret no comment\n",
		minimal + "x-a: \"a\n  A_PASSWORD=hunter2\" # aphex:allow-secret\nx-b: b # aphex:allow-secret for nothing\r\nx-c: 'A_PASSWORD=\n hunter2'\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		bounded.Here(t)
		checkOutcome(t, text)
		checkConfig(t, text)
		checkInstallation(t, text)
	})
}

// checkConfig: an accepted configuration is one that the rest can work with.
func checkConfig(t *testing.T, text []byte) {
	t.Helper()
	config, err := pipeline.Load("c", text)
	if err != nil {
		return
	}
	again, err := pipeline.Load("c", text)
	require.NoError(t, err)
	require.Equal(t, config, again)
	require.NotEmpty(t, config.Build.Commands)
	for _, allowed := range config.AllowedSecrets {
		require.Contains(t, string(text), "aphex:allow-secret")
		require.Positive(t, allowed.Line)
		require.Positive(t, allowed.Column)
		require.NotEmpty(t, allowed.Reason)
		require.NotContains(t, allowed.String(), "\n")
	}
	names := map[string]bool{}
	for _, node := range pipeline.Topology(config) {
		require.False(t, names[node.Name()], "two nodes are called %s", node.Name())
		names[node.Name()] = true
	}
	require.Equal(t, pipeline.TopologyDigest(config), pipeline.TopologyDigest(again))
	for _, environment := range config.Environments {
		require.NotEmpty(t, environment.Stacks)
		require.Len(t, environment.Account, 12)
		found, ok := config.Environment(environment.Name)
		require.True(t, ok)
		require.Equal(t, environment, found)
	}
}

func checkInstallation(t *testing.T, text []byte) {
	t.Helper()
	inst, err := pipeline.LoadInstallation("f", text)
	if err != nil {
		invalid, ok := errors.AsType[*pipeline.InvalidError](err)
		require.True(t, ok, "%v", err)
		for _, finding := range invalid.Findings {
			require.NotEmpty(t, finding.Message)
			require.Positive(t, finding.Line)
		}
		return
	}
	require.NoError(t, inst.Validate())
	written, err := pipeline.MarshalInstallation(inst)
	require.NoError(t, err)
	again, err := pipeline.LoadInstallation("f", written)
	require.NoError(t, err)
	require.Equal(t, inst, again)
}
