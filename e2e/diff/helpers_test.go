package diff_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/internal/diff"
	"github.com/aphex-pipeline/aphex/internal/testkit/need"
)

const (
	account = aws.AccountTools
	region  = "eu-west-1"
)

var (
	// built is the binary under test.
	built string
	// shared is the emulator of all tests: each has an account and a proxy of
	// its own. It is nil if the machine has none.
	shared *aws.Emulator
	// targets counts the accounts.
	targets atomic.Int64
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	if !need.Listed(need.Emulator) {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "aphex-diff-test-")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		built = filepath.Join(dir, "aphex")
		build := exec.Command("go", "build", "-o", built, "../../cmd/aphex")
		build.Stderr = os.Stderr
		err = build.Run()
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		shared, err = aws.Start(ctx, aws.Config{Log: os.Stderr})
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := shared.Stop(); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}()
	return m.Run()
}

// world is an account of the emulator behind a proxy, a checkout, and the
// binary.
type world struct {
	*proxy

	t      *testing.T
	target string // account
	dir    string // of the checkout
	tmp    string // for temporary files of the binary
}

func newWorld(t *testing.T) *world {
	t.Helper()
	need.Require(t, need.Emulator)
	w := &world{t: t, proxy: newProxy(t), target: fmt.Sprintf("9%011d", targets.Add(1)), dir: t.TempDir(), tmp: t.TempDir()}
	require.NoError(t, shared.QuickBootstrap(t.Context(), w.target, region, []string{account}))
	w.write("aphex-config.yaml", fmt.Sprintf("version: \"1.0\"\nbuild:\n  commands: [\"true\"]\nenvironments:\n- name: dev\n  region: %s\n  account: %q\n  stacks:\n  - {name: shop-data, path: infra}\n  - {name: shop-api, path: infra}\n", region, w.target))
	w.write("infra/cdk.json", `{"app": "sh app.sh"}`)
	// An app whose output is there already, which must have no credentials.
	w.write("infra/app.sh", "set -e\ntest -z \"$AWS_ACCESS_KEY_ID$AWS_SECRET_ACCESS_KEY$AWS_SESSION_TOKEN\"\ntest \"$CDK_DEFAULT_ACCOUNT\" = "+w.target+"\nmkdir -p \"$CDK_OUTDIR\"\ncp -r assembly/. \"$CDK_OUTDIR\"\n")
	w.write("infra/assembly/manifest.json", manifest)
	w.write("infra/assembly/data.template.json", dataTemplate)
	w.write("infra/assembly/api.template.json", apiTemplate)
	w.write("infra/assembly/data.assets.json", assetsOf("data.template.json", "diff/data.json"))
	require.NoError(t, os.Mkdir(filepath.Join(w.dir, ".git"), 0o750))
	return w
}

func (w *world) write(name, content string) {
	w.t.Helper()
	path := filepath.Join(w.dir, filepath.FromSlash(name))
	require.NoError(w.t, os.MkdirAll(filepath.Dir(path), 0o750))
	require.NoError(w.t, os.WriteFile(path, []byte(content), 0o600))
}

func (w *world) replace(name, old, replacement string) {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join(w.dir, filepath.FromSlash(name)))
	require.NoError(w.t, err)
	require.Contains(w.t, string(data), old)
	w.write(name, strings.ReplaceAll(string(data), old, replacement))
}

// command is `aphex diff` with arguments, as its user runs it.
func (w *world) command(args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	cmd = exec.CommandContext(w.t.Context(), built, append([]string{"diff"}, args...)...)
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Dir, cmd.Stdout, cmd.Stderr = w.dir, stdout, stderr
	cmd.Env = append(shared.Environment(w.url, account, region), "XDG_CACHE_HOME="+filepath.Join(w.dir, ".cache"),
		"TMPDIR="+w.tmp) // a killed process leaves its folder there
	return cmd, stdout, stderr
}

// run runs `aphex diff` and returns what it printed and its exit code.
func (w *world) run(args ...string) (stdout, stderr string, code int) {
	w.t.Helper()
	cmd, out, log := w.command(args...)
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), log.String(), exit.ExitCode()
	}
	require.NoError(w.t, err)
	return out.String(), log.String(), 0
}

// report runs `aphex diff -o json`, which must end with code.
func (w *world) report(code int, args ...string) diff.Report {
	w.t.Helper()
	out, log, got := w.run(append(args, "-o", "json")...)
	require.Equal(w.t, code, got, log)
	var report diff.Report
	require.NoError(w.t, json.Unmarshal([]byte(out), &report))
	return report
}

func (w *world) client() *cfnsdk.Client {
	return cfnsdk.NewFromConfig(shared.DirectConfig(w.target, region))
}

// deploy creates a stack beside the recorder.
func (w *world) deploy(name, template string, edit ...func(*cfnsdk.CreateStackInput)) {
	w.t.Helper()
	in := &cfnsdk.CreateStackInput{
		StackName: awssdk.String(name), TemplateBody: awssdk.String(template),
		Capabilities: []cfntypes.Capability{cfntypes.CapabilityCapabilityNamedIam, cfntypes.CapabilityCapabilityAutoExpand},
	}
	for _, f := range edit {
		f(in)
	}
	_, err := w.client().CreateStack(w.t.Context(), in)
	require.NoError(w.t, err)
	waiter := cfnsdk.NewStackCreateCompleteWaiter(w.client(), func(o *cfnsdk.StackCreateCompleteWaiterOptions) {
		o.MinDelay, o.MaxDelay = 50*time.Millisecond, time.Second
	})
	require.NoError(w.t, waiter.Wait(w.t.Context(), &cfnsdk.DescribeStacksInput{StackName: in.StackName}, time.Minute))
}

// status is that of a stack; empty if there is none.
func (w *world) status(name string) string {
	w.t.Helper()
	out, err := w.client().DescribeStacks(w.t.Context(), &cfnsdk.DescribeStacksInput{StackName: awssdk.String(name)})
	if err != nil {
		require.ErrorContains(w.t, err, "does not exist")
		return ""
	}
	return string(out.Stacks[0].StackStatus)
}

// changeSets are the names of those of a stack that exists: they go with it.
// The emulator keeps some of a stack that was in review.
func (w *world) changeSets(name string) []string {
	w.t.Helper()
	if w.status(name) == "" {
		return nil
	}
	out, err := w.client().ListChangeSets(w.t.Context(), &cfnsdk.ListChangeSetsInput{StackName: awssdk.String(name)})
	if err != nil {
		require.ErrorContains(w.t, err, "does not exist")
		return nil
	}
	var names []string
	for _, s := range out.Summaries {
		names = append(names, *s.ChangeSetName)
	}
	return names
}

// clean requires that previews left nothing.
func (w *world) clean(liveStacks ...string) {
	w.t.Helper()
	for _, name := range []string{"shop-data", "shop-api"} {
		require.Empty(w.t, w.changeSets(name), name)
		live := false
		for _, s := range liveStacks {
			live = live || s == name
		}
		if live {
			require.Equal(w.t, "CREATE_COMPLETE", w.status(name))
			continue
		}
		require.Empty(w.t, w.status(name), name)
	}
	require.Empty(w.t, w.calls("ExecuteChangeSet"), "nothing is executed")
}

// roles are those that were asked for.
func (w *world) roles() map[string]bool {
	out := map[string]bool{}
	for _, c := range w.calls("AssumeRole") {
		out[c.Form.Get("RoleArn")] = true
	}
	return out
}

func (w *world) roleARN(kind string) string {
	return fmt.Sprintf("arn:aws:iam::%s:role/cdk-hnb659fds-%s-role-%s-%s", w.target, kind, w.target, region)
}
