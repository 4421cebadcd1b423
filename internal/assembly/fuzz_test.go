package assembly_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/testkit/bounded"
)

// nestedInItself holds n nested assemblies that are all the assembly itself.
func nestedInItself(n int) string {
	var nested []string
	for i := range n {
		nested = append(nested, `"n`+strings.Repeat("n", i)+`":{"type":"cdk:cloud-assembly","properties":{"directoryName":"."}}`)
	}
	return `{"version":"55.0.0","artifacts":{` + strings.Join(nested, ",") + `}}`
}

func TestLoad_RefusesAnAssemblyThatHoldsItself(t *testing.T) {
	t.Parallel()
	began := time.Now()
	_, err := assembly.Load(write(t, map[string]string{"manifest.json": nestedInItself(8)}))
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.AssemblyInvalid})
	require.ErrorContains(t, err, "part of the app twice")
	require.Less(t, time.Since(began), 20*time.Second)
}

func TestLoad_RefusesDeeplyNestedAssemblies(t *testing.T) {
	t.Parallel()
	files, dir := map[string]string{}, ""
	for range 20 {
		files[dir+"manifest.json"] = `{"version":"55.0.0","artifacts":{"n":{"type":"cdk:cloud-assembly","properties":{"directoryName":"n"}}}}`
		dir += "n/"
	}
	_, err := assembly.Load(write(t, files))
	require.ErrorContains(t, err, "nested more than 16 deep")
}

func TestLoad_RefusesDeeplyNestedJSON(t *testing.T) {
	t.Parallel()
	_, err := assembly.Load(write(t, map[string]string{"manifest.json": `{"version":"55.0.0","missing":[{"props":{"a":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + `}}]}`}))
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.AssemblyInvalid})
	require.ErrorContains(t, err, "manifest.json: it is nested more than 256 levels deep")
}

func TestResources_OfATemplateThatNestsItself(t *testing.T) {
	t.Parallel()
	var nested []string
	for i := range 8 {
		nested = append(nested, `"N`+strings.Repeat("n", i)+`":{"Type":"AWS::CloudFormation::Stack","Metadata":{"aws:asset:path":"t.json","aws:cdk:path":"App/N"}}`)
	}
	a, err := assembly.Load(write(t, map[string]string{
		"manifest.json": `{"version":"55.0.0","artifacts":{"a":{"type":"aws:cloudformation:stack","properties":{"templateFile":"t.json"}}}}`,
		"t.json":        `{"Resources":{` + strings.Join(nested, ",") + `}}`,
	}))
	require.NoError(t, err)
	began := time.Now()
	require.Equal(t, "App/N", a.Resources(a.Stacks[0]).Path("N", "Nn", "N"))
	require.Less(t, time.Since(began), 20*time.Second)
}

// FuzzLoad: whatever a CDK app leaves behind, what is accepted can be worked
// with, and the rest is refused by a message.
func FuzzLoad(f *testing.F) {
	names := []string{"manifest.json", "shop-data.assets.json", "shop-data.metadata.json", "shop-data.template.json", "assembly-Prod/manifest.json"}
	seed := make([]string, len(names))
	for i, name := range names {
		data, err := os.ReadFile(filepath.Join("testdata/shop", name))
		require.NoError(f, err)
		seed[i] = string(data)
	}
	f.Add(seed[0], seed[1], seed[2], seed[3], seed[4])
	f.Add(`{"version":"99.0.0","artifacts":{"a":{"type":"cdk:asset-manifest","properties":{"file":"manifest.json"}}}}`, "", "", "", "")
	f.Add(nestedInItself(5), "", "", "", "")
	f.Add(strings.ReplaceAll(seed[0], "assembly-Prod", "assembly-Prod/.."), seed[1], seed[2], `{"Resources":{"N":{"Type":"AWS::CloudFormation::Stack","Metadata":{"aws:asset:path":"shop-data.template.json"}}}}`, seed[4])
	dir := f.TempDir()
	require.NoError(f, os.Mkdir(filepath.Join(dir, "assembly-Prod"), 0o700))
	written := map[string]string{}
	f.Fuzz(func(t *testing.T, manifest, assets, metadata, template, nested string) {
		bounded.Here(t)
		for i, text := range []string{manifest, assets, metadata, template, nested} {
			if was, ok := written[names[i]]; !ok || was != text {
				require.NoError(t, os.WriteFile(filepath.Join(dir, names[i]), []byte(text), 0o600))
				written[names[i]] = text
			}
		}
		a, err := assembly.Load(dir)
		if err != nil {
			require.ErrorIs(t, err, &fault.Fault{Reason: fault.AssemblyInvalid})
			require.NotEmpty(t, strings.TrimSpace(fault.From(err).Err.Error()))
			return
		}
		again, err := assembly.Load(dir)
		require.NoError(t, err)
		require.Equal(t, a, again, "equal files give an equal assembly")
		for i, s := range a.Stacks {
			checkStack(t, s)
			for _, dependency := range s.Dependencies {
				require.Contains(t, a.Stacks[:i], dependency, "dependencies come first")
			}
			_ = a.Resources(s).Path("N", "N", "N")
		}
		checkResolve(t, a)
	})
}

func checkStack(t *testing.T, s *assembly.Stack) {
	t.Helper()
	require.NotEmpty(t, s.Name)
	require.NotEmpty(t, s.HierarchicalID)
	require.True(t, filepath.IsLocal(filepath.FromSlash(s.TemplateFile)), "%q", s.TemplateFile)
	for _, asset := range s.Files() {
		require.True(t, len(asset.Executable) > 0 || filepath.IsLocal(filepath.FromSlash(asset.Path)), "%q", asset.Path)
		require.NotEmpty(t, asset.Bucket)
		require.NotEmpty(t, asset.Key)
	}
	places := assembly.Placeholders{Partition: "aws", Account: "111111111111", Region: "eu-west-1"}
	for _, role := range []*assembly.Role{s.DeployRole, s.LookupRole} {
		if filled := places.Role(role); filled != nil {
			require.NotEmpty(t, filled.ARN)
			require.Equal(t, len(role.Options) == 0, len(filled.Options) == 0)
		}
	}
}

// checkResolve: every stack is found by its id, unless two have the same.
func checkResolve(t *testing.T, a *assembly.Assembly) {
	t.Helper()
	var ids []string
	for _, s := range a.Stacks {
		ids = append(ids, s.HierarchicalID)
	}
	resolved, err := a.Resolve(ids)
	if slices.Sort(ids); len(slices.Compact(ids)) < len(a.Stacks) {
		require.ErrorIs(t, err, &fault.Fault{Reason: fault.StackAmbiguous})
		return
	}
	require.NoError(t, err)
	require.Equal(t, len(a.Stacks), len(resolved))
}
