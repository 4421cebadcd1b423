package conformance

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEvidence_NamesTestsThatExist: the page that says which test shows what
// names no test that is not there, and leaves none out.
func TestEvidence_NamesTestsThatExist(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/evidence/conformance.md")
	require.NoError(t, err)
	files, err := filepath.Glob("*_test.go")
	require.NoError(t, err)
	var code strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		code.Write(text)
	}
	own := code.String()
	files, err = filepath.Glob("../*_test.go")
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		code.Write(text)
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`(Test[A-Za-z0-9_]+)(?:/([^`]+))?`").FindAllStringSubmatch(string(page), -1) {
		named[m[1]] = true
		require.Contains(t, code.String(), "func "+m[1]+"(")
		if m[2] != "" {
			require.Contains(t, code.String(), `"`+m[2]+`":`, "a row of %s", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`func (Test\w+)\(`).FindAllStringSubmatch(own, -1) {
		require.True(t, named[m[1]], "%s is on no row of docs/evidence/conformance.md", m[1])
	}
}
