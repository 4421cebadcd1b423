package assembly_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

func load(t *testing.T) *assembly.Assembly {
	t.Helper()
	a, err := assembly.Load("testdata/shop")
	require.NoError(t, err)
	return a
}

func stack(t *testing.T, id string) *assembly.Stack {
	t.Helper()
	s, ok := load(t).Stack(id)
	require.True(t, ok)
	return s
}

// write makes an assembly of the given files and returns its folder.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o750))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	return dir
}

func TestLoad_DecodesEveryStackProperty(t *testing.T) {
	t.Parallel()
	s := stack(t, "shop-data")
	require.Equal(t, "shop-data", s.Name)
	require.Empty(t, s.Account)
	require.Empty(t, s.Region)
	require.True(t, s.TerminationProtection)
	require.Equal(t, map[string]string{"team": "shop"}, s.Tags)
	require.NotNil(t, s.NotificationARNs)
	require.Empty(t, s.NotificationARNs)
	require.Equal(t, assembly.Bootstrap{Version: 6, Parameter: "/cdk-bootstrap/hnb659fds/version"}, s.Bootstrap)
	require.Equal(t, 8, s.LookupRole.Bootstrap.Version)
	require.Equal(t, []string{"Prod/Db", "Prod/Web", "shop-data", "shop-api"}, ids(load(t).Stacks))

	p := assembly.Placeholders{Partition: "aws-cn", Account: "333333333333", Region: "cn-north-1"}
	role := p.Role(s.DeployRole)
	require.Equal(t, "arn:aws-cn:iam::333333333333:role/deploy-cn-north-1", role.ARN)
	require.Equal(t, "ext", role.ExternalID)
	require.Equal(t, map[string]any{"Tags": []any{map[string]any{"Key": "region", "Value": "cn-north-1"}}}, role.Options)
	require.Equal(t, "s3://assets-333333333333-cn-north-1/t1.json", p.Replace(s.TemplateAssetURL))
	require.Nil(t, p.Role(nil))
}

func TestLoad_AbsentNotificationsDifferFromEmptyOnes(t *testing.T) {
	t.Parallel()
	require.Nil(t, stack(t, "shop-api").NotificationARNs)
}

func TestLoad_MetadataComesFromManifestAndFile(t *testing.T) {
	t.Parallel()
	s := stack(t, "shop-data")
	require.Equal(t, []assembly.Message{{Level: assembly.LevelError, Path: "shop-data", Text: "quota is used up"}}, s.Errors())
	require.Equal(t, []assembly.Message{{Level: assembly.LevelWarning, Path: "shop-data/Bucket", Text: "no encryption"}}, s.AnnotatedWarnings())
}

func TestLoad_NestedAssembliesAndAssets(t *testing.T) {
	t.Parallel()
	web := stack(t, "Prod/Web")
	require.Equal(t, "Prod-Web", web.Name)
	require.Equal(t, "Prod/Web (Prod-Web)", web.String())
	require.Equal(t, "222222222222", web.Account)
	require.Equal(t, "eu-central-1", web.Region)
	require.Equal(t, "assembly-Prod/ProdWeb.template.json", web.TemplateFile)
	require.Equal(t, []string{"Prod/Db"}, ids(web.Dependencies))
	require.Len(t, web.Files(), 1)
	require.Equal(t, "asset.site", web.Files()[0].Path)

	files := stack(t, "shop-data").Files()
	require.Len(t, files, 4)
	require.Equal(t, []string{"make", "it"}, files[0].Executable)
	require.Equal(t, assembly.PackagingExecutable, files[0].Packaging)
	require.Equal(t, "eu-west-1", files[1].Region)
	require.Equal(t, "e", files[2].Role.ExternalID)
	require.Equal(t, "shop-data Template", files[3].DisplayName)
	require.Equal(t, []assembly.ImageAsset{
		{
			ID: "img", DisplayName: "api", Repository: "r", Tag: "img", Region: "eu-central-1", Role: &assembly.Role{ARN: "arn:aws:iam::1:role/images", ExternalID: "i"},
			Source: assembly.ImageSource{
				Directory: "asset.img", Dockerfile: "api.Dockerfile", Target: "final", BuildArgs: map[string]string{"A": "1"},
				BuildContexts: map[string]string{"base": "../base"}, Secrets: map[string]string{"npm": "src=.npmrc"}, SSH: "default", Network: "host",
				Platform: "linux/arm64", Outputs: []string{"type=docker"}, CacheFrom: []assembly.ImageCache{{Type: "registry", Params: map[string]string{"ref": "r:c"}}},
				CacheTo: &assembly.ImageCache{Type: "inline"}, CacheDisabled: true,
			},
		},
		{ID: "made", DisplayName: "made", Repository: "r", Tag: "made", Source: assembly.ImageSource{Executable: []string{"make", "image"}}},
	}, stack(t, "shop-data").Images())
}

func TestResources_ConstructPaths(t *testing.T) {
	t.Parallel()
	a := load(t)
	data := a.Resources(stack(t, "shop-data"))
	require.Equal(t, "shop-data/Param/Resource", data.Path("Param"))
	require.Equal(t, "shop-data/Other/Resource", data.Path("Other"), "from the manifest's metadata")
	require.Empty(t, data.Path("Nobody"))
	require.Empty(t, data.Path("Nobody", "Inner"))
	web := a.Resources(stack(t, "Prod/Web"))
	require.Equal(t, "Prod/Web/Nest/Inner/Resource", web.Path("Nest", "Inner"))
}

// The innermost frame that is neither a library's nor the runtime's made a
// construct, whether the app writes it beside the logical id or by itself.
func TestResources_SaysWhatLineMadeAResource(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"manifest.json": `{"version": "55.0.0", "artifacts": {"s": {"type": "aws:cloudformation:stack", "environment": "aws://unknown-account/unknown-region", "properties": {"templateFile": "t.json"}, "metadata": {
			"/s/A": [{"type": "aws:cdk:logicalId", "data": "A"}, {"type": "aws:cdk:creationStack", "data": ["new CfnQueue (/w/node_modules/aws-cdk-lib/aws-sqs/lib/sqs.generated.js:1:7)", "vary (/w/lib/kit.ts:15:3)", "<anonymous> (/w/bin/shop.ts:5:15)", "...node internals, tsx..."]}],
			"/s/B": [{"type": "aws:cdk:logicalId", "data": "B", "trace": ["new B (/w/node_modules/x.js:1:1)", "Object.<anonymous> (/w/bin/shop.ts:9:1)", "Module._compile (node:internal/modules/cjs/loader:1364:14)"]}],
			"/s/C": [{"type": "aws:cdk:logicalId", "data": "C", "trace": false}, {"type": "aws:cdk:creationStack", "data": ["stack traces disabled", "Kernel.create (/tmp/tmpx/lib/program.js:10:4)"]}],
			"/s/N/I": [{"type": "aws:cdk:creationStack", "data": ["at file:///w/bin/nest.ts:2:2"]}]}}}}`,
		"t.json": `{"Resources": {"N": {"Type": "AWS::CloudFormation::Stack", "Metadata": {"aws:asset:path": "n.json"}}}}`,
		"n.json": `{"Resources": {"I": {"Type": "T", "Metadata": {"aws:cdk:path": "s/N/I"}}}}`,
	})
	a, err := assembly.Load(dir)
	require.NoError(t, err)
	r := a.Resources(a.Stacks[0])
	require.Equal(t, "/w/lib/kit.ts:15:3", r.Source("A"))
	require.Equal(t, "/w/bin/shop.ts:9:1", r.Source("B"))
	require.Equal(t, "/w/bin/nest.ts:2:2", r.Source("N", "I"))
	require.Empty(t, r.Source("C"))
	require.Empty(t, r.Source("Nobody"))
}

func ids(stacks []*assembly.Stack) []string {
	var out []string
	for _, s := range stacks {
		out = append(out, s.HierarchicalID)
	}
	return out
}

// Feature: aphex-pipeline, Property 10: CDK stack synthesis completeness
func TestResolve(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		names  []string
		want   []string
		reason fault.Reason
		text   string
	}{
		{name: "hierarchical id", names: []string{"Prod/Db"}, want: []string{"Prod/Db"}},
		{name: "stack name", names: []string{"Prod-Db"}, want: []string{"Prod/Db"}},
		{name: "configured order is kept", names: []string{"shop-data", "Prod-Db", "shop-api", "Prod-Web"}, want: []string{"shop-data", "Prod/Db", "shop-api", "Prod/Web"}},
		{name: "asset dependencies are not stacks", names: []string{"shop-data"}, want: []string{"shop-data"}},
		{name: "unknown lists the app", names: []string{"shop"}, reason: fault.StackUnknown, text: "Prod/Db (Prod-Db), Prod/Web (Prod-Web), shop-data, shop-api"},
		{name: "artifact id is no name", names: []string{"ProdDb194869D6"}, reason: fault.StackUnknown, text: `"ProdDb194869D6"`},
		{name: "listed twice", names: []string{"Prod/Db", "Prod-Db"}, reason: fault.StackAmbiguous, text: `"Prod-Db"`},
		{name: "unlisted dependency", names: []string{"Prod-Web"}, reason: fault.StackUnlisted, text: "depends on Prod/Db (Prod-Db)"},
		{name: "wrong order", names: []string{"Prod-Web", "Prod-Db"}, reason: fault.StackOrder, text: "depends on Prod/Db (Prod-Db), which is listed after it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := load(t).Resolve(tt.names)
			if tt.reason != "" {
				require.ErrorIs(t, err, &fault.Fault{Reason: tt.reason})
				require.ErrorContains(t, err, tt.text)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, ids(got))
		})
	}
}

func TestResolve_SameStackNameInTwoEnvironmentsIsAmbiguous(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"manifest.json": `{"version":"40.0.0","artifacts":{
		"A":{"type":"aws:cloudformation:stack","displayName":"X/A","properties":{"templateFile":"t","stackName":"same"}},
		"B":{"type":"aws:cloudformation:stack","displayName":"same","properties":{"templateFile":"t","stackName":"other"}},
		"C":{"type":"aws:cloudformation:stack","displayName":"X/C","properties":{"templateFile":"t","stackName":"both"}},
		"D":{"type":"aws:cloudformation:stack","displayName":"X/D","properties":{"templateFile":"t","stackName":"both"}}}}`})
	a, err := assembly.Load(dir)
	require.NoError(t, err)
	got, err := a.Resolve([]string{"same"})
	require.NoError(t, err, "the construct path wins over a stack name")
	require.Equal(t, []string{"same"}, ids(got))
	_, err = a.Resolve([]string{"both"})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.StackAmbiguous})
	require.ErrorContains(t, err, "X/C (both), X/D (both)")
}

func TestLoad_Refuses(t *testing.T) {
	t.Parallel()
	one := func(version, rest string) string {
		return `{"version":"` + version + `","artifacts":{"S":{"type":"aws:cloudformation:stack",` + rest + `}}}`
	}
	tests := []struct{ name, manifest, text string }{
		{"no JSON", `{`, "manifest.json"},
		{"version", one("x", `"properties":{"templateFile":"t"}`), `version "x"`},
		{"absolute template", one("55.0.0", `"properties":{"templateFile":"/etc/passwd"}`), "absolute"},
		{"escaping template", one("55.0.0", `"properties":{"templateFile":"../x"}`), "leads outside"},
		{"no template", one("55.0.0", `"properties":{}`), "path is empty"},
		{"no properties", one("55.0.0", `"displayName":"a"`), "no properties"},
		{"environment", one("55.0.0", `"environment":"aws://1","properties":{"templateFile":"t"}`), `"aws://1"`},
		{"unknown dependency", one("55.0.0", `"dependencies":["Z"],"properties":{"templateFile":"t"}`), `"Z", which does not exist`},
		{"cycle", one("55.0.0", `"dependencies":["S"],"properties":{"templateFile":"t"}`), "depends on itself"},
		{"partition in the template URL", one("55.0.0", `"properties":{"templateFile":"t","stackTemplateAssetObjectUrl":"s3://${AWS::Partition}/x"}`), "must not hold"},
		{"newer schema with an unknown property", one("56.1.0", `"properties":{"templateFile":"t","deployBackwards":true}`), "deployBackwards"},
		{"missing metadata file", one("55.0.0", `"additionalMetadataFile":"m.json","properties":{"templateFile":"t"}`), "m.json does not exist"},
		{"nesting without end", `{"version":"55.0.0","artifacts":{"N":{"type":"cdk:cloud-assembly","properties":{"directoryName":"."}}}}`, "part of the app twice"},
		{"packaging", `{"version":"55.0.0","artifacts":{"N":{"type":"cdk:asset-manifest","properties":{"file":"a.json"}}}}`, `packaging "tar"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := write(t, map[string]string{"manifest.json": tt.manifest, "a.json": `{"files":{"f":{"source":{"path":"x","packaging":"tar"}}}}`})
			_, err := assembly.Load(dir)
			require.ErrorIs(t, err, &fault.Fault{Reason: fault.AssemblyInvalid})
			require.ErrorContains(t, err, tt.text)
		})
	}
	_, err := assembly.Load(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.AssemblyInvalid})
}

func TestLoad_NewerSchemaIsAcceptedWithAWarning(t *testing.T) {
	t.Parallel()
	a, err := assembly.Load(write(t, map[string]string{"manifest.json": `{"version":"57.0.0","artifacts":{"S":{"type":"aws:cloudformation:stack","news":1,"properties":{"templateFile":"t"}}}}`}))
	require.NoError(t, err)
	require.Len(t, a.Warnings, 1)
	require.Contains(t, a.Warnings[0], "57.0.0")
}

func TestLoad_ReportsMissingContextAndLegacyAssets(t *testing.T) {
	t.Parallel()
	a, err := assembly.Load(write(t, map[string]string{"manifest.json": `{"version":"55.0.0",
		"missing":[{"key":"availability-zones:account=1","provider":"availability-zones","props":{"account":"1"}}],
		"artifacts":{"S":{"type":"aws:cloudformation:stack","metadata":{"/S/Asset":[{"type":"aws:cdk:asset","data":{"id":"x"}}]},"properties":{"templateFile":"t"}}}}`}))
	require.NoError(t, err)
	require.Equal(t, "availability-zones", a.Missing[0].Provider)
	require.Equal(t, []string{"S/Asset"}, a.Stacks[0].LegacyAssets)
}

func TestReadFile_NeverLeavesTheAssembly(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"manifest.json": `{"version":"55.0.0"}`})
	outside := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(outside, []byte("s"), 0o600))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "link")))
	a, err := assembly.Load(dir)
	require.NoError(t, err)
	for _, name := range []string{"link", "../secret", outside, "a/../../x", "."} {
		_, err := a.ReadFile(name)
		require.ErrorIs(t, err, &fault.Fault{Reason: fault.AssemblyInvalid}, name)
	}
}

// Law: whatever order the artifacts' names have, dependencies come first.
func TestLoad_DependenciesComeFirst(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,4}`), 1, 8, rapid.ID[string]).Draw(rt, "names")
		artifacts := map[string]any{}
		for i, name := range names {
			var dependencies []string
			for _, earlier := range names[:i] {
				if rapid.Bool().Draw(rt, "depends") {
					dependencies = append(dependencies, earlier)
				}
			}
			artifacts[name] = map[string]any{"type": "aws:cloudformation:stack", "dependencies": dependencies, "properties": map[string]any{"templateFile": "t"}}
		}
		data, err := json.Marshal(map[string]any{"version": "55.0.0", "artifacts": artifacts})
		require.NoError(rt, err)
		a, err := assembly.Load(write(t, map[string]string{"manifest.json": string(data)}))
		require.NoError(rt, err)
		require.Len(rt, a.Stacks, len(names))
		seen := map[string]bool{}
		for _, s := range a.Stacks {
			for _, d := range s.Dependencies {
				require.True(rt, seen[d.ID])
			}
			seen[s.ID] = true
		}
		_, err = a.Resolve(names)
		require.NoError(rt, err, "any order in which dependencies come first is accepted")
	})
}
