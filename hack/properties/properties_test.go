package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// tree writes a test file in which every property but those left out has a
// test, and others.
func tree(t *testing.T, others string, leftOut ...int) string {
	t.Helper()
	var text strings.Builder
	text.WriteString("package x\n")
	for n, title := range titles() {
		p := property{number: n + 1, title: title}
		if len(leftOut) == 0 || leftOut[0] != p.number {
			text.WriteString(tag(p) + "\n")
		}
	}
	text.WriteString("func TestAll(t *testing.T) {}\n" + others)
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a", "testdata"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a", "x_test.go"), []byte(text.String()), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a", "testdata", "y_test.go"), []byte("no Go"), 0o600))
	return dir
}

func TestScan_FindsTestsByTheirComments(t *testing.T) {
	t.Parallel()
	properties, err := scan(tree(t, "// Text before.\n//\n"+tag(property{9, titles()[8], nil})+"\nfunc TestMore(t *testing.T) { rapid.Check(t, nil) }\n"))
	require.NoError(t, err)
	require.Len(t, properties, 27)
	require.Equal(t, []proof{{"TestAll", "a", kindExamples}}, properties[0].proofs)
	require.Equal(t, []proof{{"TestAll", "a", kindExamples}, {"TestMore", "a", kindProperty}}, properties[8].proofs)
	require.Contains(t, table(properties), "| 9 | Stack deployment ordering | `a` TestAll<br>`a` TestMore | examples, property-based |")
}

func TestScan_Refuses(t *testing.T) {
	t.Parallel()
	_, err := scan(tree(t, "", 12))
	require.ErrorContains(t, err, `no test proves property 12 (Test command execution): give the comment "// Feature: aphex-pipeline, Property 12: Test command execution" to one`)
	for name, comment := range map[string]string{
		"another title":  "// Feature: aphex-pipeline, Property 9: Stack ordering\nfunc TestX(t *testing.T) {}\n",
		"no such number": "// Feature: aphex-pipeline, Property 28: More\nfunc TestX(t *testing.T) {}\n",
		"no test":        "// Feature: aphex-pipeline, Property 9: Stack deployment ordering\nfunc helper() {}\n",
	} {
		_, err := scan(tree(t, comment))
		require.ErrorIs(t, err, errTag, name)
	}
}

func TestRead_CountsInputsAndCases(t *testing.T) {
	t.Parallel()
	const lines = `{"Action":"output","Test":"TestA","Output":"    x_test.go:1: [rapid] OK, passed 100 tests (1ms)\n"}
{"Action":"pass","Test":"TestA"}
no JSON
{"Action":"pass","Test":"TestB/one/deep"}
{"Action":"pass","Test":"TestB/one"}
{"Action":"fail","Test":"TestB/two"}
{"Action":"fail","Test":"TestB"}
{"Action":"skip","Test":"TestC"}
{"Action":"fail"}
`
	results, said, err := read(strings.NewReader(lines))
	require.NoError(t, err)
	require.Contains(t, said, "passed 100 tests")
	require.Equal(t, map[string]result{"TestA": {"ok", 100}, "TestB": {"FAIL", 2}, "TestC": {"skipped", 1}}, results)

	var out strings.Builder
	proofs := func(names ...string) (list []proof) {
		for _, name := range names {
			list = append(list, proof{name, "a", kindExamples})
		}
		return list
	}
	by := map[proof]result{}
	for name, r := range results {
		by[proof{name, "a", kindExamples}] = r
	}
	require.True(t, report(&out, []property{{1, "good", proofs("TestA")}}, by, false))
	require.False(t, report(&out, []property{{2, "bad", proofs("TestA", "TestB")}, {3, "none", proofs("TestX")}}, by, false))
	require.Contains(t, out.String(), "FAIL: TestB")
	require.Contains(t, out.String(), "FAIL: TestX")
}
