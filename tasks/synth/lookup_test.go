package synth_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/tasks/synth"
)

const foundContext = `{"kept": 1,
  "availability-zones:account=111111111111:region=eu-west-1": ["eu-west-1x", "eu-west-1y"],
  "ssm:account=111111111111:parameterName=/shop/image:region=eu-west-1": "image-7"}`

// commandLine puts a stand-in for the CDK command line beside the app: a shell
// script.
func (w *workspace) commandLine(t *testing.T, app, script string) {
	t.Helper()
	w.put(t, app+"/node_modules/aws-cdk/package.json", "{}")
	w.put(t, app+"/node_modules/.bin/cdk", "#!/bin/sh\n"+script)
	require.NoError(t, os.Chmod(filepath.Join(w.root, worker.SourceDir, app, "node_modules/.bin/cdk"), 0o700))
}

// lookUp synthesizes the app that misses context, with a role for look-ups.
func (w *workspace) lookUp(t *testing.T) (dir, log, role string, err error) {
	t.Helper()
	var out bytes.Buffer
	lookups := func(_ context.Context, _ pipeline.Environment, asked string) (map[string]string, error) {
		role = asked
		return map[string]string{"AWS_ACCESS_KEY_ID": "lookup-key"}, nil
	}
	dir, err = synth.New(synth.Config{Worker: w.client, Private: w.private, Timeout: 2 * time.Minute, Lookups: lookups}).Synth(t.Context(),
		synth.Request{Environment: environment(), App: "lookup", Stacks: []string{"Zones"}, Outputs: worker.OutDir + "/deploy-dev", ID: t.Name()}, &out)
	return dir, out.String(), role, err
}

func TestSynth_MissingContextIsLookedUpOnce(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	w.put(t, "lookup/cdk.context.json", `{"kept": 1}`)
	w.commandLine(t, "lookup", `echo "$@" $AWS_ACCESS_KEY_ID $CDK_DEFAULT_ACCOUNT ${APHEX_OUTPUTS_DIR##*/out} >> called; cat > cdk.context.json <<'END'
`+foundContext+`
END
exit 1`)
	dir, log, role, err := w.lookUp(t)
	require.NoError(t, err, log)
	require.Equal(t, "arn:${AWS::Partition}:iam::111111111111:role/cdk-hnb659fds-lookup-role-111111111111-eu-west-1", role)
	template, err := os.ReadFile(filepath.Join(dir, "Zones.template.json"))
	require.NoError(t, err)
	require.Contains(t, string(template), "eu-west-1x,eu-west-1y")
	require.Contains(t, string(template), "image-7")
	source := filepath.Join(w.root, worker.SourceDir, "lookup")
	called, err := os.ReadFile(filepath.Join(source, "called"))
	require.NoError(t, err)
	require.Regexp(t, `^--no-notices --no-color synth --quiet --output \S+/lookup Zones lookup-key /deploy-dev\n$`, string(called), "once, without the account of anybody else")
	left, err := os.ReadFile(filepath.Join(source, "cdk.context.json"))
	require.NoError(t, err)
	require.JSONEq(t, `{"kept": 1}`, string(left), "the checkout stays what the commit says")
	loaded, err := assembly.Load(dir)
	require.NoError(t, err)
	require.Empty(t, loaded.Missing)
}

func TestSynth_ContextThatCannotBeLookedUpIsNeverDeployed(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	w.commandLine(t, "lookup", `echo "no permission for DescribeAvailabilityZones" >&2; exit 0`)
	_, log, _, err := w.lookUp(t)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.ContextMissing}, log)
	require.Contains(t, log, "no permission")
	require.NoFileExists(t, filepath.Join(w.root, worker.SourceDir, "lookup", "cdk.context.json"))

	w.commandLine(t, "lookup", `echo "boom"; exit 3`)
	_, _, _, err = w.lookUp(t)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.ContextMissing})
	require.ErrorContains(t, err, "could not look it up: it ended with exit code 3")
}

func TestSynth_ProgramMakesAnAsset(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	dir, log, err := w.run(t, "program", func(r *synth.Request) { r.Stacks = []string{"Program"} })
	require.NoError(t, err, log)
	loaded, err := assembly.Load(dir)
	require.NoError(t, err)
	stack, ok := loaded.Stack("Program")
	require.True(t, ok)
	found := 0
	for _, f := range stack.Files() {
		if f.Packaging != assembly.PackagingExecutable {
			continue
		}
		found++
		made, err := os.ReadFile(filepath.Join(dir, f.ProducedPath()))
		require.NoError(t, err)
		require.Equal(t, "for Program: two words", string(made))
	}
	require.Equal(t, 1, found)

	_, _, err = w.run(t, "program", func(r *synth.Request) { r.Stacks = []string{"Other"} })
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.AssetFailed})
	require.ErrorContains(t, err, "exit code 4; its last output: nothing to make")
}

func TestSynth_FailureNamesTheLibrarysCode(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	w.put(t, "coded/cdk.json", `{"app": "mkdir -p $CDK_OUTDIR; printf 'DuplicateConstruct\nmore' > $CDK_ERROR_FILE; exit 1"}`)
	_, _, err := w.run(t, "coded", nil)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.SynthFailed})
	require.ErrorContains(t, err, "(the library's code: DuplicateConstruct)")
}
