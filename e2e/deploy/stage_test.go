package deploy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	cfnsdk "github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/revision"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/workspace"
	"github.com/aphex-pipeline/aphex/tasks/deploy"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

// stage is the deploy-env stage with everything real but the checkout, the CDK
// app and the state of revisions.
type stage struct {
	t        *testing.T
	emulator *aws.Emulator
	prefix   string // of stack names, so that tests share an emulator

	config   string
	files    map[string]string // the assembly
	base     string            // account of the base credentials
	deployed revision.State
	written  int // by earlier runs
	phases   []string
	resets   []string
	dirs     []string
	synths   []deploy.SynthRequest
	// synth, if set, is what an app does besides, such as changing files.
	synth   func(deploy.SynthRequest)
	journal *memory
	kept    []record.Events
	images  deploy.ImageBuilder

	mu       sync.Mutex
	log      bytes.Buffer
	progress []string
}

func newStage(t *testing.T, e *aws.Emulator) *stage {
	t.Helper()
	s := &stage{t: t, emulator: e, prefix: strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()), base: account, journal: newMemory()}
	s.config = fmt.Sprintf("version: \"1.0\"\nbuild:\n  commands: [\"true\"]\nenvironments:\n- name: dev\n  region: %s\n  account: \"%s\"\n  stacks:\n  - {name: %s-data, path: infra}\n  - {name: %s-api, path: infra}\n",
		region, target, s.prefix, s.prefix)
	s.files = map[string]string{
		"manifest.json":      s.expand(manifest),
		"data.assets.json":   s.expand(dataAssets),
		"data.template.json": s.expand(dataTemplate),
		"api.template.json":  s.expand(apiTemplate),
		"api.assets.json":    s.expand(apiAssets),
		"asset.site/a.txt":   "hello",
	}
	return s
}

func (s *stage) expand(text string) string {
	return strings.NewReplacer("PREFIX", s.prefix, "KEY", "test/"+s.prefix).Replace(text)
}

func (s *stage) Prepare(context.Context, workspace.Source, io.Writer) error { return nil }

func (s *stage) File(_ context.Context, path string) ([]byte, error) {
	require.Equal(s.t, "aphex-config.yaml", path)
	return []byte(s.config), nil
}

func (s *stage) Reset(_ context.Context, key string, _ io.Writer) error {
	s.resets = append(s.resets, key)
	return nil
}

// IsAncestor orders commits by their digits.
func (s *stage) IsAncestor(_ context.Context, ancestor, descendant string) (bool, error) {
	return ancestor < descendant, nil
}

func (s *stage) FindApp(_ context.Context, path string) (string, error) { return path, nil }

func (s *stage) Synth(_ context.Context, req deploy.SynthRequest, _ io.Writer) (string, error) {
	s.synths = append(s.synths, req)
	if s.synth != nil {
		s.synth(req)
	}
	dir := s.t.TempDir()
	for name, content := range s.files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(s.t, os.MkdirAll(filepath.Dir(path), 0o750))
		require.NoError(s.t, os.WriteFile(path, []byte(content), 0o600))
	}
	s.dirs = append(s.dirs, dir)
	return dir, nil
}

func (s *stage) Check(ctx context.Context, git revision.Ancestry, environment, commit string, allowOlder bool) (revision.Decision, error) {
	require.Equal(s.t, "dev", environment)
	older, err := git.IsAncestor(ctx, commit, s.deployed.Commit)
	return revision.Decision{Superseded: older && !allowOlder, Previous: s.deployed}, err
}

func (s *stage) Enter(_ context.Context, _ string, expected, next revision.State) error {
	require.Equal(s.t, s.deployed.Commit, expected.Commit)
	if next.Phase == revision.Deploying {
		require.Len(s.t, s.writes(), s.written, "the revision is recorded before the first write")
	}
	s.deployed = next
	s.phases = append(s.phases, next.Phase)
	return nil
}

func (s *stage) PutEvents(_ context.Context, e record.Events) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, e)
	return nil
}

// writes lists the calls that change something, of this stage's stacks and
// assets.
func (s *stage) writes() []string {
	var out []string
	for _, c := range s.emulator.Calls() {
		text := c.Path + c.Form.Get("StackName")
		changes := strings.HasPrefix(c.Operation, "Put") || strings.HasPrefix(c.Operation, "Create") || strings.HasPrefix(c.Operation, "Execute") ||
			strings.HasPrefix(c.Operation, "Delete") || strings.HasPrefix(c.Operation, "Update")
		if changes && strings.Contains(text, s.prefix) {
			out = append(out, c.Operation)
		}
	}
	return out
}

func (s *stage) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

func (s *stage) run(commit string, edit ...func(*task.Request)) (task.Result, error) {
	s.t.Helper()
	return s.runWith(s.t.Context(), commit, edit...)
}

func (s *stage) runWith(ctx context.Context, commit string, edit ...func(*task.Request)) (task.Result, error) {
	s.t.Helper()
	req := s.request(task.StageDeployEnv, "dev", commit)
	for _, f := range edit {
		f(&req)
	}
	return s.new(store.NewDir(s.t.TempDir())).Run(ctx, req, s.env())
}

// new is the stage in a fresh pod.
func (s *stage) new(bucket *store.Dir) *deploy.Stage {
	return deploy.New(deploy.Config{
		Workspace: s, Synth: s, Store: bucket, Guard: s, Private: s.t.TempDir(), Events: s,
		Base: func(context.Context) (awssdk.Config, error) { return config(s.emulator, s.base), nil }, Images: s.images,
	})
}

func (s *stage) request(stage, environment, commit string) task.Request {
	return task.Request{
		Run: task.Run{Namespace: "ns", Name: "shop-x", UID: "uid-" + s.prefix, Epoch: s.journal.execution}, Stage: stage, Node: "shop-x." + record.StageName(stage, environment),
		Pipeline: "shop", Environment: environment, ConfigPath: "aphex-config.yaml", Commit: strings.Repeat(commit, 40),
	}
}

// env is the surroundings of one call, with an empty log.
func (s *stage) env() task.Env {
	s.log.Reset()
	return task.Env{
		Output: s, Logger: slog.New(slog.DiscardHandler), Effects: s.journal,
		Progress: func(text string) { s.progress = append(s.progress, text) },
	}
}

// repeat runs the same execution again.
func (s *stage) repeat(commit string) (task.Result, error) {
	s.t.Helper()
	s.written = len(s.writes())
	return s.run(commit)
}

const manifest = `{"version": "55.0.0", "artifacts": {
  "data.assets": {"type": "cdk:asset-manifest", "properties": {"file": "data.assets.json", "requiresBootstrapStackVersion": 6, "bootstrapStackVersionSsmParameter": "/cdk-bootstrap/hnb659fds/version"}},
  "api.assets": {"type": "cdk:asset-manifest", "properties": {"file": "api.assets.json"}},
  "data": {"type": "aws:cloudformation:stack", "environment": "aws://unknown-account/unknown-region", "dependencies": ["data.assets"], "displayName": "PREFIX-data",
    "properties": {"templateFile": "data.template.json", "stackName": "PREFIX-data", "tags": {"team": "shop"},
      "assumeRoleArn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/cdk-hnb659fds-deploy-role-${AWS::AccountId}-${AWS::Region}",
      "cloudFormationExecutionRoleArn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/cdk-hnb659fds-cfn-exec-role-${AWS::AccountId}-${AWS::Region}",
      "stackTemplateAssetObjectUrl": "s3://cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}/KEY/data.json",
      "requiresBootstrapStackVersion": 6, "bootstrapStackVersionSsmParameter": "/cdk-bootstrap/hnb659fds/version"}},
  "api": {"type": "aws:cloudformation:stack", "environment": "aws://unknown-account/unknown-region", "dependencies": ["data", "api.assets"], "displayName": "PREFIX-api",
    "properties": {"templateFile": "api.template.json", "stackName": "PREFIX-api", "terminationProtection": true,
      "assumeRoleArn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/cdk-hnb659fds-deploy-role-${AWS::AccountId}-${AWS::Region}",
      "stackTemplateAssetObjectUrl": "s3://cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}/KEY/api.json"}}}}`

const destination = `"destinations": {"current": {"bucketName": "cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}", "objectKey": "%s",
  "assumeRoleArn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/cdk-hnb659fds-file-publishing-role-${AWS::AccountId}-${AWS::Region}"}}`

var dataAssets = `{"version": "55.0.0", "files": {
  "t": {"displayName": "data template", "source": {"path": "data.template.json", "packaging": "file"}, ` + fmt.Sprintf(destination, "KEY/data.json") + `},
  "site": {"displayName": "site", "source": {"path": "asset.site", "packaging": "zip"}, ` + fmt.Sprintf(destination, "KEY/site.zip") + `}}, "dockerImages": {}}`

var apiAssets = `{"version": "55.0.0", "files": {
  "t": {"displayName": "api template", "source": {"path": "api.template.json", "packaging": "file"}, ` + fmt.Sprintf(destination, "KEY/api.json") + `}}, "dockerImages": {}}`

const dataTemplate = `{"Resources": {"Param": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Name": "/PREFIX/greeting", "Value": "hello"}, "Metadata": {"aws:cdk:path": "PREFIX-data/Param/Resource"}}},
  "Outputs": {"Ref": {"Value": {"Ref": "Param"}, "Export": {"Name": "PREFIX-Ref"}}},
  "Parameters": {"BootstrapVersion": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/cdk-bootstrap/hnb659fds/version", "Description": "[cdk:skip]"}}}`

const apiTemplate = `{"Resources": {"Copy": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": {"Fn::ImportValue": "PREFIX-Ref"}}}},
  "Outputs": {"Greeting": {"Value": {"Fn::GetAtt": ["Copy", "Value"]}}}}`

// addUnconfigured gives the app a stack that the configuration does not name,
// between the others, with an asset of its own.
func (s *stage) addUnconfigured() {
	s.t.Helper()
	s.replace("manifest.json", `"api": {"type": "aws:cloudformation:stack"`, `"admin.assets": {"type": "cdk:asset-manifest", "properties": {"file": "admin.assets.json"}},
  "admin": {"type": "aws:cloudformation:stack", "environment": "aws://unknown-account/unknown-region", "dependencies": ["data", "admin.assets"], "displayName": "PREFIX-admin",
    "properties": {"templateFile": "admin.template.json", "stackName": "PREFIX-admin",
      "assumeRoleArn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/cdk-hnb659fds-deploy-role-${AWS::AccountId}-${AWS::Region}"}},
  "api": {"type": "aws:cloudformation:stack"`)
	s.files["admin.template.json"] = `{"Resources": {"Value": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "admin"}}}}`
	s.files["admin.assets.json"] = s.expand(`{"version": "55.0.0", "files": {
  "site": {"displayName": "admin site", "source": {"path": "asset.site", "packaging": "zip"}, ` + fmt.Sprintf(destination, "KEY/admin.zip") + `}}, "dockerImages": {}}`)
}

// Feature: aphex-pipeline, Property 9: Stack deployment ordering
// Feature: aphex-pipeline, Property 10: CDK stack synthesis completeness
func TestStage_DeploysExactlyTheConfiguredStacks(t *testing.T) {
	t.Parallel()
	s := newStage(t, emulator(t))
	s.addUnconfigured()
	got, err := s.run("b")
	require.NoError(t, err, s.log.String())
	require.Regexp(t, `^dev: 2 stacks in \d+ s: PREFIX-data created, PREFIX-api created; \d+ AWS calls$`, strings.ReplaceAll(got.Message, s.prefix, "PREFIX"))
	require.Empty(t, got.Reason)
	require.Equal(t, "true", got.Outputs[task.OutputDeployed])
	require.Contains(t, got.Outputs[task.OutputStacksURL], "runs/uid-"+s.prefix+"/environments/dev/outputs.json")
	require.JSONEq(t, s.expand(`{"PREFIX-data": {"Ref": "/PREFIX/greeting"}, "PREFIX-api": {"Greeting": "/PREFIX/greeting"}}`), got.Outputs[task.OutputStacks])
	require.Len(t, got.Outputs, 3)
	require.Equal(t, []string{"deploying", "deployed"}, s.phases)
	require.Equal(t, []string{"runs/uid-" + s.prefix + "/snapshot.tar.zst"}, s.resets)
	require.Regexp(t, s.expand(`(?m)^\d\d:\d\d:\d\d dev PREFIX-data CREATE_COMPLETE AWS::SSM::Parameter Param \(PREFIX-data/Param/Resource\)$`), s.log.String())
	require.Contains(t, s.progress, s.expand("dev: deploying PREFIX-api (2/2)"))
	require.Equal(t, "dev", s.synths[0].Environment.Name)
	require.NoDirExists(t, s.dirs[0], "the assembly is removed")

	client := cfnsdk.NewFromConfig(config(s.emulator, target))
	out, err := client.DescribeStacks(t.Context(), &cfnsdk.DescribeStacksInput{StackName: awssdk.String(s.prefix + "-data")})
	require.NoError(t, err)
	require.Equal(t, "team", *out.Stacks[0].Tags[0].Key)
	_, err = client.DescribeStacks(t.Context(), &cfnsdk.DescribeStacksInput{StackName: awssdk.String(s.prefix + "-admin")})
	require.ErrorContains(t, err, "does not exist")
	for _, c := range s.emulator.Calls() {
		require.NotContains(t, c.Path, "/test/"+s.prefix+"/admin.zip", "nor are assets published for it")
		if c.Operation == "CreateChangeSet" && c.Form.Get("StackName") == s.prefix+"-data" {
			require.Equal(t, "arn:aws:iam::222222222222:role/cdk-hnb659fds-cfn-exec-role-222222222222-eu-west-1", c.Form.Get("RoleARN"))
			require.Equal(t, s.emulator.Endpoint()+"/cdk-hnb659fds-assets-222222222222-eu-west-1/test/"+s.prefix+"/data.json", c.Form.Get("TemplateURL"))
		}
	}
	object, err := s3.NewFromConfig(config(s.emulator, target), func(o *s3.Options) { o.UsePathStyle = true }).HeadObject(t.Context(), &s3.HeadObjectInput{
		Bucket: awssdk.String("cdk-hnb659fds-assets-222222222222-eu-west-1"), Key: awssdk.String("test/" + s.prefix + "/site.zip"),
	})
	require.NoError(t, err)
	require.Equal(t, "application/zip", awssdk.ToString(object.ContentType))

	writes := s.writes()
	require.Equal(t, slices.Repeat([]string{"PutObject"}, 3), writes[:3], "assets come before the first stack: %v", writes)

	again, err := s.repeat("b")
	require.NoError(t, err)
	require.Equal(t, got.Outputs[task.OutputStacks], again.Outputs[task.OutputStacks])
	require.Contains(t, again.Message, s.prefix+"-data created, "+s.prefix+"-api created", "the same execution has the same result")
	require.Len(t, s.writes(), len(writes), "and does nothing again")

	s.journal = newMemory()
	s.written = len(writes)
	s.files["api.template.json"] = strings.Replace(s.files["api.template.json"], `"Type": "String"`, `"Type": "String", "Description": "new"`, 1)
	s.files["api.assets.json"] = strings.Replace(s.files["api.assets.json"], "api.json\"", "api2.json\"", 1)
	s.files["manifest.json"] = strings.Replace(s.files["manifest.json"], "/api.json", "/api2.json", 1)
	got, err = s.run("c")
	require.NoError(t, err, s.log.String())
	require.Contains(t, got.Message, s.prefix+"-data no change, "+s.prefix+"-api updated")
	require.Equal(t, strings.Repeat("c", 40), s.deployed.Commit)
}

// By force everything is sent once more; CloudFormation finds nothing to
// change, and no change set stays behind.
func TestStage_ByForce(t *testing.T) {
	t.Parallel()
	s := newStage(t, emulator(t))
	_, err := s.run("b")
	require.NoError(t, err, s.log.String())
	for force, want := range map[bool][]string{
		false: nil,
		true:  {"PutObject", "PutObject", "PutObject", "CreateChangeSet", "DeleteChangeSet", "CreateChangeSet", "DeleteChangeSet"},
	} {
		s.journal, s.written = newMemory(), len(s.writes())
		got, err := s.run("b", func(r *task.Request) { r.Force = force })
		require.NoError(t, err, s.log.String())
		require.Contains(t, got.Message, s.prefix+"-data no change, "+s.prefix+"-api no change")
		require.ElementsMatch(t, want, s.writes()[s.written:])
	}
}

func TestStage_PassesOver(t *testing.T) {
	t.Parallel()
	s := newStage(t, emulator(t))
	s.deployed = revision.State{Commit: strings.Repeat("c", 40), Run: "shop-newer"}
	got, err := s.run("b")
	require.NoError(t, err)
	require.Equal(t, string(fault.Superseded), got.Reason)
	require.Equal(t, "false", got.Outputs[task.OutputDeployed])
	require.Len(t, got.Outputs, 3)
	require.Contains(t, got.Message, "bbbbbbbbbbbb")
	require.Contains(t, got.Message, "cccccccccccc")
	require.Contains(t, got.Message, "shop-newer")
	require.Empty(t, s.writes())
	require.Empty(t, s.resets, "not even a checkout")

	got, err = s.run("b", func(r *task.Request) { r.Environment = "gone" })
	require.NoError(t, err)
	require.Equal(t, string(fault.TopologyChanged), got.Reason)
	require.Equal(t, "false", got.Outputs[task.OutputDeployed])

	got, err = s.run("b", func(r *task.Request) { r.AllowOlder = true })
	require.NoError(t, err, s.log.String())
	require.Equal(t, "true", got.Outputs[task.OutputDeployed])
	require.Equal(t, strings.Repeat("b", 40), s.deployed.Commit)
}

func TestStage_RefusesBeforeAnyWrite(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		edit   func(s *stage)
		reason fault.Reason
		text   string
	}{
		{"unknown stack", func(s *stage) { s.config = strings.Replace(s.config, "-api,", "-web,", 1) }, fault.StackUnknown, "the app has: PREFIX-data, PREFIX-api"},
		{"unlisted dependency", func(s *stage) {
			s.config = strings.Replace(s.config, s.expand("  - {name: PREFIX-data, path: infra}\n"), "", 1)
		}, fault.StackUnlisted, "PREFIX-data"},
		{"other account", func(s *stage) { s.replace("manifest.json", "aws://unknown-account/", "aws://333333333333/") }, fault.EnvironmentMismatch, "333333333333"},
		{"other region", func(s *stage) { s.replace("manifest.json", "/unknown-region", "/us-east-1") }, fault.EnvironmentMismatch, "us-east-1"},
		{"image asset", func(s *stage) {
			scriptedECR(s.t)
			s.replace("data.assets.json", `"dockerImages": {}`, `"dockerImages": {"i": {"displayName": "api", "source": {"directory": "asset.site"}, "destinations": {"d": {"repositoryName": "assets", "imageTag": "t", `+imageRole+`}}}}`)
		}, fault.ImageAssetUnsupported, "api"},
		{"annotated error", func(s *stage) {
			s.replace("manifest.json", `"displayName": "PREFIX-api"`, `"displayName": "PREFIX-api", "metadata": {"/PREFIX-api": [{"type": "aws:cdk:error", "data": "quota"}]}`)
		}, fault.SynthAnnotation, "quota"},
		{"missing context", func(s *stage) {
			s.replace("manifest.json", `"version": "55.0.0",`, `"version": "55.0.0", "missing": [{"key": "vpc-1", "provider": "vpc-provider", "props": {}}],`)
		}, fault.ContextMissing, "vpc-1"},
		{"executable asset", func(s *stage) {
			s.replace("data.assets.json", `{"path": "asset.site", "packaging": "zip"}`, `{"executable": ["make-it"]}`)
		}, fault.AssetFailed, "make-it"},
		{"bootstrap too old", func(s *stage) {
			s.replace("manifest.json", `"requiresBootstrapStackVersion": 6`, `"requiresBootstrapStackVersion": 999`)
		}, fault.NotBootstrapped, "999"},
		{"not bootstrapped", func(s *stage) { s.config = strings.Replace(s.config, target, "444444444444", 1) }, fault.NotBootstrapped, "cdk bootstrap aws://444444444444/eu-west-1"},
		{"wrong account without role", func(s *stage) {
			s.replace("manifest.json", `"assumeRoleArn"`, `"lookupRole": {"arn": "arn:aws:iam::1:role/x"}, "validateOnSynth": false, "ignored"`)
		}, fault.AccountMismatch, target},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, emulator(t))
			tt.edit(s)
			_, err := s.run("b")
			require.ErrorIs(t, err, &fault.Fault{Reason: tt.reason, Err: errors.New(string(tt.reason))})
			require.Contains(t, fault.Message(err), s.expand(tt.text))
			require.Empty(t, s.writes())
			require.Empty(t, s.phases)
		})
	}
}

// replace edits a file of the assembly and makes sure that it had any effect.
func (s *stage) replace(file, old, replacement string) {
	s.t.Helper()
	old, replacement = s.expand(old), s.expand(replacement)
	require.Contains(s.t, s.files[file], old)
	s.files[file] = strings.ReplaceAll(s.files[file], old, replacement)
}

func TestStage_FailureLeavesLaterStacksUntouched(t *testing.T) {
	t.Parallel()
	s := newStage(t, emulator(t))
	s.replace("data.template.json", `"Type": "String", "Name"`, `"Type": "Bogus", "Name"`)
	s.replace("manifest.json", `"displayName": "PREFIX-data",`, `"displayName": "PREFIX-data", "metadata": {"/PREFIX-data/Param/Resource": [
	  {"type": "aws:cdk:creationStack", "data": ["new Parameter (/workspace/source/node_modules/aws-cdk-lib/x.js:1:1)", "<anonymous> (/workspace/source/bin/shop.ts:5:15)"]}]},`)
	_, err := s.run("b")
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StackFailed, Err: errors.New("stack")})
	require.Contains(t, fault.Message(err), s.expand("resource PREFIX-data/Param/Resource [Param] (AWS::SSM::Parameter, made at bin/shop.ts:5:15)"))
	_, err = cfnsdk.NewFromConfig(config(s.emulator, target)).DescribeStacks(t.Context(), &cfnsdk.DescribeStacksInput{StackName: awssdk.String(s.prefix + "-api")})
	require.ErrorContains(t, err, "does not exist")
	require.Equal(t, []string{"deploying"}, s.phases, "an older commit cannot overwrite what began")
}

// Feature: aphex-pipeline, Property 14: Cross-account role assumption
func TestStage_ConfiguredRoleDeploysAndPublishes(t *testing.T) {
	t.Parallel()
	s := newStage(t, emulator(t))
	s.config = strings.Replace(s.config, "  stacks:", "  roleArn: arn:aws:iam::222222222222:role/deployer\n  externalId: ext-"+s.prefix[:10]+"\n  stacks:", 1)
	_, err := s.run("b")
	require.NoError(t, err, s.log.String())
	var roles []string
	for _, c := range s.emulator.Calls() {
		if c.Operation == "AssumeRole" && c.Form.Get("ExternalId") == "ext-"+s.prefix[:10] {
			roles = append(roles, c.Form.Get("RoleArn"))
			require.Equal(t, "aphex-shop-shop-x-deploy-env", c.Form.Get("RoleSessionName"))
		}
	}
	require.Equal(t, []string{"arn:aws:iam::222222222222:role/deployer"}, roles)
}

// TestStage_NestedStack deploys a nested stack as the CDK makes it, and finds
// the cause of its failure by construct path.
func TestStage_NestedStack(t *testing.T) {
	t.Parallel()
	s := newStage(t, emulator(t))
	s.config = strings.Replace(s.config, s.expand("  - {name: PREFIX-api, path: infra}\n"), "", 1)
	s.replace("data.template.json", `{"Resources": {`, `{"Resources": {"Nest": {"Type": "AWS::CloudFormation::Stack",
		"Properties": {"TemplateURL": {"Fn::Join": ["", ["https://s3.eu-west-1.", {"Ref": "AWS::URLSuffix"}, "/cdk-hnb659fds-assets-222222222222-eu-west-1/KEY/nested1.json"]]}},
		"Metadata": {"aws:cdk:path": "PREFIX-data/Nest.NestedStack/Nest.NestedStackResource", "aws:asset:path": "nested.template.json"}},`)
	s.replace("data.assets.json", `"files": {`, `"files": {"n": {"displayName": "nested template", "source": {"path": "nested.template.json", "packaging": "file"}, `+fmt.Sprintf(destination, "KEY/nested1.json")+`},`)
	s.files["nested.template.json"] = s.expand(`{"Resources": {"Inner": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "x"}, "Metadata": {"aws:cdk:path": "PREFIX-data/Nest/Inner/Resource"}}}}`)
	_, err := s.run("b")
	require.NoError(t, err, s.log.String())
	require.Regexp(t, s.expand(`(?m) dev PREFIX-data CREATE_COMPLETE AWS::SSM::Parameter Nest/Inner \(PREFIX-data/Nest/Inner/Resource\)$`), s.log.String())

	s.journal, s.written = newMemory(), len(s.writes())
	for _, file := range []string{"data.template.json", "data.assets.json"} {
		s.replace(file, "nested1.json", "nested2.json")
	}
	s.replace("data.assets.json", "KEY/data.json", "KEY/data2.json")
	s.replace("manifest.json", "KEY/data.json", "KEY/data2.json")
	s.replace("nested.template.json", `"Type": "String"`, `"Type": "Bogus"`)
	_, err = s.run("c")
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StackFailed, Err: errors.New("stack")})
	require.Contains(t, fault.Message(err), s.expand("resource PREFIX-data/Nest/Inner/Resource [Nest/Inner] (AWS::SSM::Parameter)"))
	require.Contains(t, fault.Message(err), "Bogus")
	require.Len(t, s.kept, 2)
	s.requireAllEventsKept(s.prefix + "-data")
}

// A template that is no asset and too large for a request goes to the bucket
// of the bootstrap.
func TestStage_LargeTemplateIsUploaded(t *testing.T) {
	t.Parallel()
	s := newStage(t, emulator(t))
	s.config = strings.Replace(s.config, s.expand("  - {name: PREFIX-api, path: infra}\n"), "", 1)
	s.replace("manifest.json", `"stackTemplateAssetObjectUrl": "s3://cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}/KEY/data.json",`, "")
	s.replace("data.template.json", `{"Resources": {`, `{"Metadata": {"Long": "`+strings.Repeat("x", 52_000)+`", "Stack": "PREFIX"}, "Resources": {`)
	_, err := s.run("b")
	require.NoError(t, err, s.log.String())
	var uploaded, used string
	for _, c := range s.emulator.Calls() {
		if c.Operation == "CreateChangeSet" && c.Form.Get("StackName") == s.prefix+"-data" {
			used = c.Form.Get("TemplateURL")
		}
	}
	require.Regexp(t, `/cdk-hnb659fds-assets-222222222222-eu-west-1/cdk/data/[0-9a-f]{64}\.json$`, used)
	for _, c := range s.emulator.Calls() {
		if c.Operation == "PutObject" && strings.HasSuffix(used, strings.SplitN(c.Path, "?", 2)[0]) {
			uploaded = c.Path
		}
	}
	require.NotEmpty(t, uploaded, "uploaded to %s", used)
	s.journal, s.written = newMemory(), len(s.writes())
	_, err = s.run("c")
	require.NoError(t, err)
	require.Contains(t, s.log.String(), "no change")
}
