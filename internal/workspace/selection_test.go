package workspace_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/workspace"
)

const privateKey = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n"

// held returns the files that the stored archive really holds.
func held(t *testing.T, bucket *store.Dir, key string) (names []string) {
	t.Helper()
	body, _, err := bucket.Get(t.Context(), key)
	require.NoError(t, err)
	defer func() { require.NoError(t, body.Close()) }()
	unpacked, err := zstd.NewReader(body)
	require.NoError(t, err)
	defer unpacked.Close()
	for in := tar.NewReader(unpacked); ; {
		entry, err := in.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		require.NoError(t, err)
		if name, ok := strings.CutPrefix(entry.Name, "tree/"); ok && entry.Typeflag != tar.TypeDir {
			names = append(names, name)
		}
	}
}

// What looks like a secret, what version control keeps and what the
// configuration excludes is in no archive; a later stage sees the same in this
// pod and in a fresh one, and the log says so.
func TestSnapshot_LeavesOutSecretsAndWhatIsExcluded(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		// Kept.
		"dist/app.js": "built", ".env.example": "A=", "certs/ca.pem": "-----BEGIN CERTIFICATE-----\n", "lib/i18n.key": "title",
		".npmrc": "registry=http://mirror.example.com/\n", "environment": "x", "web/.env.public": "URL=/", "my.env": "A=1", "aws/credentials": "docs",
		// Secrets.
		".env": "TOKEN=1", "web/.env.local": "TOKEN=1", "certs/tls.pem": privateKey, "certs/tls.key": privateKey, ".ssh/id_rsa": privateKey,
		"sub/.npmrc": "//registry.npmjs.org/:_authToken=npm_x\n", ".aws/credentials": "[default]\naws_secret_access_key=x\n", "home/.netrc": "machine x login y password z",
		"home/.docker/config.json": `{"auths":{"x":{"auth":"eA=="}}}`, "store.p12": "\x00",
		// Version control, and what is excluded.
		"vendor/lib/.git/config": "[remote]", "vendor/.svn/entries": "12", "node_modules/.cache/big": "x", "logs/today.log": "x", "tmp/a/b": "x",
	}
	src, _ := newRepository(t)
	bucket := store.NewDir(t.TempDir())
	p := newPod(t, bucket)
	require.NoError(t, p.ws.Prepare(t.Context(), src, io.Discard))
	require.NoError(t, p.ws.Materialize(t.Context(), io.Discard))
	for name, content := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(p.source(name)), 0o755))
		require.NoError(t, os.WriteFile(p.source(name), []byte(content), 0o600))
	}
	require.NoError(t, os.WriteFile(p.source("b"), []byte("changed, but excluded"), 0o600))
	selection := workspace.Selection{Exclude: []string{"node_modules/.cache", "**/*.log", "tmp/", "/b"}, Include: []string{"web/.env.public"}}
	var log bytes.Buffer
	_, err := p.ws.Snapshot(t.Context(), key, selection, &log)
	require.NoError(t, err)

	kept := []string{
		".env.example", ".npmrc", "aws/credentials", "certs/ca.pem", "dist/app.js", "environment", "lib/i18n.key", "my.env", "web/.env.public",
	}
	got := held(t, bucket, key)
	slices.Sort(got)
	require.Equal(t, kept, got)
	require.Contains(t, log.String(), `".env" is not in the snapshot, and later stages do not see it: looks like a secret; build.snapshot.include keeps it`)
	require.Contains(t, log.String(), `"vendor/lib/.git" is not in the snapshot, and later stages do not see it: data of a version control system`)
	require.Contains(t, log.String(), `"tmp" is not in the snapshot, and later stages do not see it: build.snapshot.exclude`)
	require.NotContains(t, log.String(), "tmp/a", "what is in a folder goes without saying")
	require.NotContains(t, log.String(), "MIIE")

	fresh := newPod(t, bucket)
	require.NoError(t, fresh.ws.Prepare(t.Context(), src, io.Discard))
	for _, in := range []*pod{p, fresh} {
		require.NoError(t, in.ws.Reset(t.Context(), key, io.Discard))
		for name := range files {
			_, err := os.Lstat(in.source(name))
			require.Equal(t, slices.Contains(kept, name), err == nil, name)
		}
		require.Equal(t, "commit b", readFile(t, in.source("b")))
	}
	require.Equal(t, describe(t, fresh.source()), describe(t, p.source()))
}

func TestFits(t *testing.T) {
	t.Parallel()
	for pattern, names := range map[string][2][]string{
		"junit.xml":       {{"junit.xml", "a/b/junit.xml", "junit.xml/a"}, {"junit.xml.bak", "a-junit.xml"}},
		"/junit.xml":      {{"junit.xml"}, {"a/junit.xml"}},
		"./junit.xml":     {{"junit.xml"}, {"a/junit.xml"}},
		"reports/*.xml":   {{"reports/a.xml", "reports/.xml"}, {"a/reports/a.xml", "reports/b/a.xml", "reports/a.txt"}},
		"./reports/*.xml": {{"reports/a.xml"}, {"a/reports/a.xml"}},
		"**/TEST-*.xml":   {{"TEST-a.xml", "a/TEST-b.xml", "a/b/TEST-.xml"}, {"a/XTEST-b.xml"}},
		"a/**/z.xml":      {{"a/z.xml", "a/b/c/z.xml"}, {"z.xml", "b/a/z.xml"}},
		"reports/":        {{"reports/a/b.xml", "x/reports/c"}, {"report"}},
		"r[0-9]?.xml":     {{"r1a.xml"}, {"rx1.xml", "r1.xml"}},
	} {
		for _, name := range names[0] {
			require.True(t, workspace.Fits(pattern, name), "%s fits %s", pattern, name)
		}
		for _, name := range names[1] {
			require.False(t, workspace.Fits(pattern, name), "%s does not fit %s", pattern, name)
		}
	}
}

// fitsSlowly says by trying everything whether parts fit all of names.
func fitsSlowly(parts, names []string) bool {
	switch {
	case len(parts) == 0:
		return len(names) == 0
	case parts[0] == "**":
		return fitsSlowly(parts[1:], names) || len(names) > 0 && fitsSlowly(parts, names[1:])
	case len(names) == 0:
		return false
	}
	return (parts[0] == "*" || parts[0] == names[0]) && fitsSlowly(parts[1:], names[1:])
}

func TestFits_TriesNoMoreThanItMust(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(rapid.SampledFrom([]string{"**", "*", "a", "b"}), 1, 7).Draw(t, "parts")
		names := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 7).Draw(t, "names")
		want := false
		for n := range names {
			want = want || fitsSlowly(parts, names[:n+1])
		}
		pattern := "/" + strings.Join(parts, "/")
		require.Equal(t, want, workspace.Fits(pattern, strings.Join(names, "/")), pattern)
	})
	began := time.Now()
	require.False(t, workspace.Fits(strings.Repeat("**/a/", 100)+"b", strings.Repeat("a/", 250)+"c"))
	require.Less(t, time.Since(began), 20*time.Second)
}
