package synth

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/testkit/bounded"
)

// FuzzProject: an app's files are of the commit, and its report is of user
// code. What they say becomes a command and a context that the app is given
// whole, or a fault.
func FuzzProject(f *testing.F) {
	f.Add([]byte(`{"app":"node bin/app.js","build":"npm run build","context":{"a":{"b":1.50},"@aws-cdk/core:x":true},"versionReporting":false}`),
		[]byte(`{"vpc-provider:account=1":{"vpcId":"vpc-1"},"a":{"c":null}}`), []byte(`{"context":{"user":1e400}}`),
		[]byte(`{"pluginReports":[{"pluginName":"p","conclusion":"failure","violations":[{"ruleName":"r","description":"d","violatingConstructs":[{"constructPath":"shop/A"}]}]}]}`))
	f.Add([]byte(`{"app":["node","a.js"],"context":{"default-account":"1"}}`), []byte(`null`), []byte(`{"build":"x"}`), []byte(`{`))
	f.Add([]byte(`{"app":[1]}`), []byte(`{} {}`), []byte(`[]`), []byte(`{"pluginReports":null}`))
	f.Add([]byte(`{"app":"a","context":`+strings.Repeat(`{"a":`, 300)+`1`+strings.Repeat(`}`, 301)), []byte(``), []byte(`{"app":" "}`), []byte(`[]`))
	dir := f.TempDir()
	stacks := []*assembly.Stack{{HierarchicalID: "shop"}}
	f.Fuzz(func(t *testing.T, projectJSON, saved, user, report []byte) {
		bounded.Here(t)
		s := &synthesis{request: Request{Environment: pipeline.Environment{Name: "dev", Context: map[string]any{"env": true}}}}
		var layers [3]object
		for i, data := range [][]byte{projectJSON, saved, user} {
			layer, err := decodeObject(data)
			if err == nil {
				require.NotNil(t, layer.values)
				again, err := encode(layer)
				require.NoError(t, err)
				same, err := decodeObject(again)
				require.NoError(t, err)
				require.Equal(t, layer, same)
				layers[i] = layer
			}
		}
		if p, err := s.merge(layers[0], layers[1], layers[2]); err != nil {
			require.Equal(t, fault.ConfigInvalid, fault.From(err).Reason)
		} else {
			checkProject(t, p, layers[1])
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, "validation-report.json"), report, 0o600))
		if problems, err := failedValidations(dir, stacks); err != nil {
			require.Equal(t, fault.AssemblyInvalid, fault.From(err).Reason)
		} else {
			require.LessOrEqual(t, len(problems), len(report))
		}
	})
}

// checkProject: there is something to run, the environment's context wins, and
// nothing of the context is lost on its way to the app.
func checkProject(t *testing.T, p *project, saved object) {
	t.Helper()
	require.NotEmpty(t, strings.TrimSpace(p.command))
	require.Equal(t, true, p.context.values["env"])
	require.False(t, p.context.has("default-account"))
	for _, key := range saved.keys {
		dropped := key == "__proto__" || key == "constructor" || key == "prototype"
		require.NotEqual(t, dropped, p.context.has(key), key)
	}
	small, overflow, err := splitContext(p.context)
	require.NoError(t, err)
	require.LessOrEqual(t, len(small), maxContextBytes)
	given, err := decodeObject(small)
	require.NoError(t, err)
	if overflow != nil {
		rest, err := decodeObject(overflow)
		require.NoError(t, err)
		given = mergeObjects(given, rest)
	}
	require.Equal(t, p.context.keys, given.keys)
}

func TestDecodeObject_Refuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`null`: "it is no object", `{} x`: "something follows its end", `{"a":` + strings.Repeat("[", 300): "nested more than 256 levels deep", `[]`: "it is no object", ``: "EOF",
	} {
		_, err := decodeObject([]byte(text))
		require.ErrorContains(t, err, want)
	}
}
