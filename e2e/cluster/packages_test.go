package cluster

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// standInApt puts an apt-get on PATH that notes its calls and then does what
// the script says.
func standInApt(t *testing.T, script string) (bin string) {
	t.Helper()
	bin = t.TempDir()
	text := "#!/bin/sh\necho \"$DEBIAN_FRONTEND $@\" >>" + bin + "/calls\n" + script + "\n"
	require.NoError(t, os.WriteFile(filepath.Join(bin, "apt-get"), []byte(text), 0o755))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return bin
}

func needs(path string) []requirement {
	there := func() bool {
		_, err := os.Stat(path)
		return err == nil
	}
	return []requirement{{"tool", there}, {"tool-data", there}}
}

func TestRequirePackages_InstallsWhatIsMissing(t *testing.T) {
	bin := standInApt(t, `[ "$1" = install ] && : >"$(dirname "$0")/tool"; true`)
	var log bytes.Buffer
	require.NoError(t, requirePackages(t.Context(), &log, needs(bin+"/tool")))
	calls, err := os.ReadFile(bin + "/calls")
	require.NoError(t, err)
	require.Equal(t, "noninteractive update\nnoninteractive install --yes --no-install-recommends tool tool-data\n", string(calls))
	require.Contains(t, log.String(), "tool tool-data")

	require.NoError(t, requirePackages(t.Context(), &log, needs(bin+"/tool")))
	again, err := os.ReadFile(bin + "/calls")
	require.NoError(t, err)
	require.Equal(t, calls, again, "nothing is installed twice")
}

func TestRequirePackages_SaysWhatToInstall(t *testing.T) {
	standInApt(t, "echo no such package >&2; exit 100")
	err := requirePackages(t.Context(), &bytes.Buffer{}, needs("/nonexistent"))
	require.ErrorContains(t, err, "no such package")
	require.ErrorContains(t, err, "install what these Debian packages hold: tool tool-data")

	standInApt(t, "true")
	err = requirePackages(t.Context(), &bytes.Buffer{}, needs("/nonexistent"))
	require.ErrorContains(t, err, "are missing although the packages were installed")

	t.Setenv("PATH", t.TempDir())
	err = requirePackages(t.Context(), &bytes.Buffer{}, needs("/nonexistent"))
	require.ErrorContains(t, err, "there is no apt-get; install what these Debian packages hold: tool tool-data")
}
