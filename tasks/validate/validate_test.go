package validate_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
	"github.com/aphex-pipeline/aphex/internal/testkit/pod"
	"github.com/aphex-pipeline/aphex/internal/worker/commands"
	"github.com/aphex-pipeline/aphex/tasks/task"
	"github.com/aphex-pipeline/aphex/tasks/validate"
)

// bench is a validate stage among real parts; AWS is a function.
type bench struct {
	*pod.Pod
	git     *gitserver.Server
	request task.Request
	log     bytes.Buffer
	start   validate.Start
	// identity answers for an environment; nil is yes.
	identity func(pipeline.Environment) error
	// warning is what it warns of with each.
	warning  string
	patience time.Duration

	mu     sync.Mutex
	proven []string
}

// newBench commits a configuration and other files, and makes a pod.
func newBench(t *testing.T, config string, files map[string]string) *bench {
	t.Helper()
	b := &bench{Pod: pod.New(t, pod.Config{}), git: gitserver.New(t, gitserver.Config{Filter: true})}
	change := gitserver.Change{Write: map[string]string{"aphex-config.yaml": config}}
	maps.Copy(change.Write, files)
	commit, err := b.git.Commit(t.Context(), "shop", change)
	require.NoError(t, err)
	b.request = task.Request{
		Run:   task.Run{Namespace: "shop", Name: "shop-1", UID: "uid-1", Epoch: "2026-11-24T06:00:00Z"},
		Stage: task.StageValidate, Node: "shop-1.validate", Pipeline: "shop", ConfigPath: "aphex-config.yaml",
		RepoURL: b.git.URL("shop"), Commit: commit, Branch: "main", Topology: "sha256:old",
	}
	return b
}

func (b *bench) run(ctx context.Context) (task.Result, error) {
	stage := validate.New(validate.Config{
		Workspace: b.Workspace, Programs: b.Worker, FirstProgram: commands.FirstProgram, Start: b.start, Patience: b.patience,
		Identity: func(_ context.Context, _ task.Request, target pipeline.Environment) (string, error) {
			b.mu.Lock()
			b.proven = append(b.proven, fmt.Sprintf("%s %s %s", target.Name, target.Account, target.Region))
			b.mu.Unlock()
			if b.identity == nil {
				return b.warning, nil
			}
			return b.warning, b.identity(target)
		},
	})
	return stage.Run(ctx, b.request, task.Env{Output: &b.log, Logger: slog.New(slog.DiscardHandler), Progress: func(string) {}})
}

// config is a configuration of two environments; build and dev are further
// lines of the build section and of the first environment.
func config(build, dev string) string {
	return "version: \"1.0\"\nbuild:\n" + build + `
environments:
  - name: dev
    region: eu-west-1
    account: "111111111111"
    stacks:
      - {name: shop, path: app/bin/shop.ts}
` + dev + `
  - name: prod
    region: eu-central-1
    account: "222222222222"
    stacks:
      - {name: shop, path: app/bin/shop.ts}
`
}

const anyBuild = "  commands: [\"true\"]\n"

func TestRun_EverythingFine(t *testing.T) {
	t.Parallel()
	b := newBench(t, "tools: [git]\n"+config("  commands: [\"cd app && cat x\", \"./gradlew\", \"sed -n 1p x\"]\n", ""), nil)
	got, err := b.run(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]string{task.OutputProceed: "true"}, got.Outputs)
	require.Empty(t, got.Reason)
	require.Contains(t, got.Message, b.request.Commit[:12])
	require.Contains(t, got.Message, "dev, prod")
	require.ElementsMatch(t, []string{"dev 111111111111 eu-west-1", "prod 222222222222 eu-central-1"}, b.proven)
	require.Contains(t, b.log.String(), "prod: credentials reach account 222222222222 in eu-central-1\n")
	require.NotContains(t, b.log.String(), "warning")
}

func TestRun_Arguments(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*task.Request)
		reason fault.Reason
		texts  []string
	}{
		"a commit nobody pushed":  {func(r *task.Request) { r.Commit = strings.Repeat("ab", 20) }, fault.CommitUnknown, []string{"abababababab"}},
		"a tag nobody filled in":  {func(r *task.Request) { r.Commit = "{{body.after}}" }, fault.CommitInvalid, []string{`"{{body.after}}"`, "dataKey: body.after"}},
		"a short commit":          {func(r *task.Request) { r.Commit = r.Commit[:12] }, fault.CommitInvalid, []string{"40 hexadecimal digits"}},
		"a branch for a commit":   {func(r *task.Request) { r.Commit = "main" }, fault.CommitInvalid, []string{`"main" is not a commit id`}},
		"a commit in capitals":    {func(r *task.Request) { r.Commit = strings.Repeat("AB", 20) }, fault.CommitInvalid, []string{"lower case"}},
		"a commit that is option": {func(r *task.Request) { r.Commit = "--upload-pack=x" }, fault.CommitInvalid, []string{"--upload-pack=x"}},
		"a deleted branch":        {func(r *task.Request) { r.Commit = strings.Repeat("0", 40) }, fault.CommitInvalid, []string{"when a branch is deleted"}},
		"no repository":           {func(r *task.Request) { r.RepoURL = strings.Replace(r.RepoURL, "shop", "nope", 1) }, fault.RepositoryDenied, []string{"does not exist"}},
		"a password in the URL":   {func(r *task.Request) { r.RepoURL = "https://u:hunter2@git.example.com/x.git" }, fault.RepositoryInvalid, []string{"contains credentials"}},
		"no configuration":        {func(r *task.Request) { r.ConfigPath = "deploy/aphex.yaml" }, fault.ConfigMissing, []string{"deploy/aphex.yaml", "configPath"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, config(anyBuild, ""), nil)
			tt.change(&b.request)
			got, err := b.run(t.Context())
			require.Empty(t, got)
			require.ErrorIs(t, err, &fault.Fault{Reason: tt.reason})
			require.Equal(t, fault.User, fault.From(err).Class)
			message := fault.Message(err)
			for _, text := range tt.texts {
				require.Contains(t, message, text)
			}
			require.NotContains(t, message+b.log.String(), "hunter2")
			require.Empty(t, b.proven, "nobody asks for credentials before the arguments are right")
		})
	}
}

func TestRun_PrivateRepositoryWithoutCredentials(t *testing.T) {
	t.Parallel()
	b := newBench(t, config(anyBuild, ""), nil)
	private := gitserver.New(t, gitserver.Config{Username: "ada", Password: "secret"})
	require.NoError(t, private.Create(t.Context(), "shop"))
	b.request.RepoURL = private.URL("shop")
	_, err := b.run(t.Context())
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.RepositoryDenied})
	require.Contains(t, fault.Message(err), "username and password")
}

// Feature: aphex-pipeline, Property 19: Configuration schema validation
func TestRun_InvalidConfigurationNamesEveryFinding(t *testing.T) {
	t.Parallel()
	text := strings.NewReplacer("eu-central-1", "mars-1", `"111111111111"`, "111", "region: eu-west-1", "regoin: eu-west-1").Replace(config(anyBuild, ""))
	b := newBench(t, text, nil)
	_, err := b.run(t.Context())
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.ConfigInvalid})
	invalid, ok := errors.AsType[*pipeline.InvalidError](err)
	require.True(t, ok)
	require.Greater(t, len(invalid.Findings), 2)
	message := fault.Message(err)
	for _, finding := range invalid.Findings {
		require.Contains(t, message, finding.String())
	}
	for _, text := range []string{"mars-1", "111", "regoin"} {
		require.Contains(t, message, text)
	}
	require.Empty(t, b.proven)
}

// Feature: aphex-pipeline, Property 22: Build tool validation
func TestRun_Tools(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		build, tools, tests string
		missing, warned     []string
	}{
		"program of the first command":    {build: `["cd app && aphex-no-such-tool build", "true"]`, missing: []string{"aphex-no-such-tool"}},
		"program of a later command":      {build: `["true", "aphex-later-tool build"]`, warned: []string{"aphex-later-tool"}},
		"program of a test":               {build: `["true"]`, tests: "    tests: {commands: [aphex-test-tool]}\n", warned: []string{"aphex-test-tool"}},
		"program of a test, no build":     {build: `[]`, tests: "    tests: {commands: [aphex-test-tool]}\n", warned: []string{"aphex-test-tool"}},
		"a tool that is asked for":        {build: `["true"]`, tools: "tools: [git, aphex-b-tool, aphex-a-tool]\n", missing: []string{"aphex-a-tool, aphex-b-tool"}},
		"one tool needed twice":           {build: `["aphex-x x", "aphex-x y"]`, tools: "tools: [aphex-x]\n", missing: []string{"no aphex-x"}, warned: []string{"no aphex-x;"}},
		"a first command from the commit": {build: `["./gradlew build", "aphex-later-tool"]`, warned: []string{"aphex-later-tool"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, tt.tools+config("  commands: "+tt.build+"\n", tt.tests), nil)
			_, err := b.run(t.Context())
			for _, text := range tt.warned {
				require.Contains(t, b.log.String(), "warning: the worker image has ")
				require.Contains(t, b.log.String(), text)
			}
			if len(tt.missing) == 0 {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, &fault.Fault{Reason: fault.ToolMissing})
			require.Equal(t, fault.User, fault.From(err).Class)
			for _, text := range tt.missing {
				require.ErrorContains(t, err, text)
			}
			require.Len(t, b.proven, 2, "the other checks are done all the same")
		})
	}
}

func TestRun_ToolsAreSoughtWhereTheBuildFindsThem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "aphex-own-tool"), []byte("#!/bin/sh\n"), 0o700))
	b := newBench(t, config("  commands: [aphex-own-tool]\n  env: {PATH: \"/usr/bin:"+dir+"\"}\n", ""), nil)
	_, err := b.run(t.Context())
	require.NoError(t, err)
}

// Feature: aphex-pipeline, Property 21: CDK context validation
func TestRun_RequiredContext(t *testing.T) {
	t.Parallel()
	const required = "    requiredContext: [vpcId, domain]\n"
	empty := map[string]string{"app/cdk.json": "{}"}
	tests := map[string]struct {
		dev     string
		files   map[string]string
		missing string // empty: fine
		reason  fault.Reason
	}{
		"nowhere":                    {dev: required, files: empty, missing: "required context vpcId, domain has no value for the app in app"},
		"no app in the commit":       {dev: required},
		"in the environment":         {dev: required + "    context: {vpcId: vpc-1, domain: [a]}\n", files: empty},
		"one of two":                 {dev: required + "    context: {vpcId: vpc-1}\n", files: empty, missing: "required context domain has no value"},
		"null":                       {dev: required + "    context: {vpcId: null, domain: false}\n", files: empty, missing: "required context vpcId has no value"},
		"in cdk.json above the path": {dev: required, files: map[string]string{"cdk.json": `{"app": "x", "context": {"vpcId": "v", "domain": "d"}}`}},
		"in both files of the app": {dev: required, files: map[string]string{
			"app/cdk.json": "\uFEFF" + `{"context": {"vpcId": "v"}}`, "app/cdk.context.json": "\uFEFF" + `{"domain": {"a": 1}}`,
		}},
		"in another app's file": {dev: required, missing: "vpcId, domain", files: map[string]string{
			"cdk.json": `{"context": {"vpcId": "v", "domain": "d"}}`, "app/cdk.json": `{"app": "x"}`, "cdk.context.json": `{"domain": "d"}`,
		}},
		"null in the app, given in the environment": {
			dev:   required + "    context: {vpcId: vpc-1, domain: d}\n",
			files: map[string]string{"cdk.json": `{"context": {"vpcId": null}}`, "cdk.context.json": `{"domain": null}`},
		},
		"in the app, null in the environment": {
			dev: required + "    context: {vpcId: null}\n", missing: "required context vpcId has no value for the app in the root of the repository",
			files: map[string]string{"cdk.json": `{"context": {"vpcId": "v", "domain": "d"}}`},
		},
		"in cdk.context.json, null in cdk.json": {
			dev: required, missing: "required context domain has no value",
			files: map[string]string{"cdk.json": `{"context": {"vpcId": "v", "domain": null}}`, "cdk.context.json": `{"domain": "d"}`},
		},
		"context that is no object": {
			dev: required, missing: "required context vpcId has no value",
			files: map[string]string{"cdk.json": `{"context": "x"}`, "cdk.context.json": `{"domain": "d"}`},
		},
		"in a file that is no JSON": {
			dev: required + "    context: {vpcId: vpc-1, domain: d}\n", files: map[string]string{"app/cdk.json": "{,}"},
			missing: "app/cdk.json: it is not valid JSON", reason: fault.ConfigInvalid,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, config(anyBuild, tt.dev), tt.files)
			_, err := b.run(t.Context())
			if tt.missing == "" {
				require.NoError(t, err)
				return
			}
			if tt.reason == "" {
				tt.reason = fault.ContextMissing
				require.ErrorContains(t, err, "check the context of dev")
			}
			require.ErrorIs(t, err, &fault.Fault{Reason: tt.reason})
			require.ErrorContains(t, err, tt.missing)
		})
	}
}

// Each app is looked at for itself, once, as its synthesis will.
func TestRun_RequiredContextAppByApp(t *testing.T) {
	t.Parallel()
	const text = `version: "1.0"
build: {commands: ["true"]}
environments:
  - name: dev
    region: eu-west-1
    account: "111111111111"
    requiredContext: [vpcId]
    stacks: [{name: net, path: net}, {name: api, path: api/bin/api.ts}, {name: jobs, path: api}, {name: made, path: generated/app}]
  - name: prod
    region: eu-west-1
    account: "111111111111"
    requiredContext: [vpcId]
    context: {vpcId: vpc-1}
    stacks: [{name: net, path: net}, {name: api, path: api}]
`
	files := map[string]string{"net/cdk.json": `{"context": {"vpcId": "v"}}`, "api/cdk.json": "{}"}
	_, err := newBench(t, text, files).run(t.Context())
	require.Equal(t, "check the context of dev: required context vpcId has no value for the app in api. "+
		"Set it under context of environment dev, or in api/cdk.json or api/cdk.context.json [ContextMissing]", fault.Message(err))

	files = map[string]string{"net/cdk.json": "{,}", "api/cdk.json": "[]", "api/cdk.context.json": "{,}"}
	_, err = newBench(t, text, files).run(t.Context())
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.ConfigInvalid})
	require.ErrorContains(t, err, "validate the run: 3 findings: (1) read net/cdk.json: ")
	for _, file := range []string{"net/cdk.json", "api/cdk.json", "api/cdk.context.json"} {
		require.Equal(t, 1, strings.Count(err.Error(), file), "%s: %s", file, err)
	}
}

func denied(target pipeline.Environment) error {
	return fault.Newf(fault.User, fault.RoleDenied, "assume the role of "+target.Name, "Let account "+target.Account+" trust the pipeline", "access denied")
}

// Feature: aphex-pipeline, Property 20: AWS credential validation
func TestRun_CredentialsOfEveryEnvironmentAreReported(t *testing.T) {
	t.Parallel()
	b := newBench(t, config(anyBuild, ""), nil)
	b.identity = denied
	_, err := b.run(t.Context())
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.RoleDenied})
	require.Equal(t, fault.User, fault.From(err).Class)
	message := fault.Message(err)
	for _, text := range []string{
		"2 findings", "(1) assume the role of dev: access denied. Let account 111111111111 trust the pipeline [RoleDenied]",
		"(2) assume the role of prod: access denied. Let account 222222222222 trust the pipeline [RoleDenied]",
	} {
		require.Contains(t, message, text)
	}

	b.identity = func(target pipeline.Environment) error {
		if target.Name == "dev" {
			return nil
		}
		return denied(target)
	}
	_, err = b.run(t.Context())
	require.Equal(t, "assume the role of prod: access denied. Let account 222222222222 trust the pipeline [RoleDenied]", fault.Message(err))
	require.Contains(t, b.log.String(), "dev: credentials reach account 111111111111")
}

// What is wrong with the pipeline's own identity is wrong for all.
func TestRun_TheSameOfSeveralEnvironmentsIsToldOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, config(anyBuild, ""), nil)
	var asked atomic.Int32
	b.identity = func(pipeline.Environment) error {
		return fault.Newf(fault.User, fault.CredentialsMissing, "find out the AWS account", "Give it an identity", "AWS says no (request r-%d)", asked.Add(1))
	}
	_, err := b.run(t.Context())
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.CredentialsMissing})
	require.Regexp(t, `^prove the credentials of dev, prod: find out the AWS account: AWS says no \(request r-[12]\)\. Give it an identity \[CredentialsMissing\]$`, fault.Message(err))
}

// The accounts are asked together: ten take no longer than the slowest.
func TestRun_AccountsAreAskedTogether(t *testing.T) {
	t.Parallel()
	b := newBench(t, config(anyBuild, ""), nil)
	var asked atomic.Int32
	both := make(chan struct{})
	b.identity = func(target pipeline.Environment) error {
		if asked.Add(1) == 2 {
			close(both)
		}
		select {
		case <-both:
		case <-time.After(30 * time.Second):
			t.Errorf("%s is asked alone", target.Name)
		}
		return denied(target)
	}
	_, err := b.run(t.Context())
	require.Regexp(t, "(?s)of dev: .* of prod: ", fault.Message(err), "in the order they are configured")
}

func TestRun_EveryKindOfFindingInOneMessage(t *testing.T) {
	t.Parallel()
	b := newBench(t, config("  commands: [aphex-no-such-tool]\n", "    requiredContext: [vpcId]\n"), map[string]string{"app/cdk.json": "{}"})
	b.identity = denied
	_, err := b.run(t.Context())
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.ToolMissing}, "the reason is the first finding's")
	for _, text := range []string{"4 findings", "aphex-no-such-tool", "[ToolMissing]", "vpcId", "[ContextMissing]", "of dev", "of prod"} {
		require.Contains(t, fault.Message(err), text)
	}
}

func TestRun_CancelledIsNoFinding(t *testing.T) {
	t.Parallel()
	b := newBench(t, config("  commands: [aphex-no-such-tool]\n", ""), nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	b.identity = func(pipeline.Environment) error {
		cancel(errors.New("the run was stopped"))
		return context.Canceled
	}
	_, err := b.run(ctx)
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.Cancellation})
	require.ErrorContains(t, err, "the run was stopped")
}

func TestRun_LogSaysWhatIsPassedOver(t *testing.T) {
	t.Parallel()
	text := config("  commands: [\"true\"]\n  env:\n    DB_PASSWORD: postgres # aphex:allow-secret of a database that lives as long as the tests\n", "")
	b := newBench(t, text, nil)
	b.warning = "role cdk-deploy could not be assumed; going on as base"
	_, err := b.run(t.Context())
	require.NoError(t, err)
	require.Contains(t, b.log.String(), "dev: credentials reach account 111111111111 in eu-west-1\nwarning: dev: role cdk-deploy could not be assumed; going on as base\n")
	require.Regexp(t, `(?m)^aphex-config.yaml:\d+:\d+: build.env.DB_PASSWORD: secret allowed: of a database that lives as long as the tests$`, b.log.String())
}
