package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMutant_OfAnotherTextIsRefused(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "x.patch")
	require.NoError(t, os.WriteFile(file, []byte("What it breaks.\nRed: hack/mutants TestX\n\n--- a/go.mod\n+++ b/go.mod\n@@ -1,1 +1,1 @@\n-module another\n+module x\n"), 0o600))
	m, err := load(file)
	require.NoError(t, err)
	require.Equal(t, []string{"What it breaks.", "hack/mutants", "TestX", "go.mod"}, []string{m.breaks, m.dir, m.test, m.files[0]})
	m.files = nil // git is to look for it, and not to find it
	err = m.within(t.Context(), func(string) error { return nil })
	require.ErrorContains(t, err, "does not fit the code any more")

	require.NoError(t, os.WriteFile(file, []byte("What it breaks.\n\n--- a/go.mod\n"), 0o600))
	_, err = load(file)
	require.ErrorContains(t, err, "names no test")
}

func TestChoose_OtherOnesEachDay(t *testing.T) {
	t.Chdir(filepath.Join("..", ".."))
	all, err := choose(settings{})
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(all), 24)
	some, err := choose(settings{some: 3})
	require.NoError(t, err)
	require.Len(t, some, 3)
	require.Subset(t, all, some)
	_, err = choose(settings{only: "no such"})
	require.ErrorContains(t, err, `fits "no such"`)
}
