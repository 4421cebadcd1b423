package validate_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// programs makes a folder of programs, each a script of sh.
func programs(t *testing.T, scripts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, script := range scripts {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700))
	}
	return dir
}

// withPath is a configuration whose build looks for programs in dirs.
func withPath(dirs string) string {
	return config(anyBuild+"  env: {PATH: \""+dirs+"\"}\n", "")
}

func TestRun_VersionsAreReported(t *testing.T) {
	t.Parallel()
	const asked = `case "$*" in --version) ;; *) exit 1;; esac; `
	tests := map[string]struct {
		programs map[string]string
		log, end string
	}{
		"both":             {map[string]string{"node": asked + "echo Warning: old; echo v24.1.0", "cdk": asked + "echo '2.1031.0 (build 1)'"}, "the worker has node v24.1.0, cdk 2.1031.0\n", " are fine; node v24.1.0, cdk 2.1031.0"},
		"no cdk":           {map[string]string{"node": "echo v24.1.0"}, "the worker has node v24.1.0, no cdk\n", " are fine; node v24.1.0"},
		"neither":          {nil, "the worker has no node, no cdk\n", "prod are fine"},
		"one that fails":   {map[string]string{"node": "echo v24.1.0; exit 3", "cdk": "echo 2.1031.0"}, "the worker has node of unknown version, cdk 2.1031.0\n", " are fine; cdk 2.1031.0"},
		"one that babbles": {map[string]string{"node": "echo hello; /usr/bin/head -c 100000 /dev/zero; echo; echo v1.2.3"}, "the worker has node of unknown version, no cdk\n", "prod are fine"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, withPath(programs(t, tt.programs)), nil)
			got, err := b.run(t.Context())
			require.NoError(t, err)
			require.Contains(t, b.log.String(), tt.log)
			require.Regexp(t, tt.end+"$", got.Message)
		})
	}
}

// The command line takes half a second to start; node reads its version.
func TestRun_VersionOfTheInstalledCommandLine(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	require.NoError(t, err)
	dir := programs(t, map[string]string{"lib/node_modules/aws-cdk/bin/cdk": "echo 9.9.9"})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "lib/node_modules/aws-cdk/package.json"), []byte(`{"version": "2.1148.1"}`), 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "bin"), 0o700))
	require.NoError(t, os.Symlink("../lib/node_modules/aws-cdk/bin/cdk", filepath.Join(dir, "bin/cdk")))
	b := newBench(t, withPath(filepath.Join(dir, "bin")+":"+filepath.Dir(node)), nil)
	got, err := b.run(t.Context())
	require.NoError(t, err)
	require.Regexp(t, `; node v[0-9.]+, cdk 2\.1148\.1$`, got.Message)
}

// A program that does not answer keeps nobody waiting for long.
func TestRun_VersionsThatNobodyTells(t *testing.T) {
	t.Parallel()
	b := newBench(t, withPath(programs(t, map[string]string{"node": "exec /bin/sleep 3600"})), nil)
	b.patience = 200 * time.Millisecond
	_, err := b.run(t.Context())
	require.NoError(t, err)
	require.Contains(t, b.log.String(), "the worker has node of unknown version, no cdk\n")
}

func TestRun_VersionsTheCommitAsksFor(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		files map[string]string
		want  string // empty: none
	}{
		"a lock file": {map[string]string{
			"app/package-lock.json": `{"lockfileVersion": 3, "packages": {"": {}, "node_modules/aws-cdk": {"version": "2.1148.1"}, "node_modules/aws-cdk-lib": {"version": "2.276.0"}}}`,
			"app/package.json":      `{"devDependencies": {"aws-cdk": "^2.1000.0"}}`,
		}, "app/package-lock.json pins aws-cdk 2.1148.1, aws-cdk-lib 2.276.0\n"},
		"an old lock file":        {map[string]string{"package-lock.json": `{"lockfileVersion": 1, "dependencies": {"aws-cdk-lib": {"version": "2.1.0"}}}`}, "package-lock.json pins aws-cdk-lib 2.1.0\n"},
		"ranges":                  {map[string]string{"package.json": `{"dependencies": {"aws-cdk-lib": "^2.1.0"}, "devDependencies": {"aws-cdk": ">=2 <3"}}`}, "package.json asks for aws-cdk >=2 <3, aws-cdk-lib ^2.1.0\n"},
		"a lock file without CDK": {map[string]string{"app/package-lock.json": `{"packages": {}}`, "package.json": `{"dependencies": {"aws-cdk-lib": "2.1.0"}}`}, "package.json asks for aws-cdk-lib 2.1.0\n"},
		"no JSON":                 {map[string]string{"package.json": `{,}`, "package-lock.json": `[]`}, ""},
		"other things":            {map[string]string{"package.json": `{"dependencies": {"aws-cdk": 3, "aws-cdk-lib": "2.1\nsecond line"}, "devDependencies": []}`}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, withPath(t.TempDir()), tt.files)
			_, err := b.run(t.Context())
			require.NoError(t, err)
			require.Contains(t, b.log.String(), "the worker has no node, no cdk\n"+tt.want)
			if tt.want == "" {
				require.NotContains(t, b.log.String(), "package")
			}
		})
	}
}
