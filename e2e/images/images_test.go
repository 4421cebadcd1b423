package images

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/testkit/need"
)

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	require.NoError(t, err)
	return dir
}

func open(t *testing.T, path, tag string) v1.Image {
	t.Helper()
	ref, err := name.NewTag(tag)
	require.NoError(t, err)
	image, err := tarball.ImageFromPath(path, &ref)
	require.NoError(t, err)
	return image
}

// files returns what is in an image: a line for each path with type, mode,
// owner and content.
func files(t *testing.T, image v1.Image) map[string]string {
	t.Helper()
	content := mutate.Extract(image)
	defer func() { require.NoError(t, content.Close()) }()
	found := map[string]string{}
	reader := tar.NewReader(content)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		require.NoError(t, err)
		sum := sha256.New()
		_, err = io.Copy(sum, reader)
		require.NoError(t, err)
		path := strings.Trim(strings.TrimPrefix(header.Name, "./"), "/")
		found[path] = fmt.Sprintf("%c %04o %d:%d %s %x", header.Typeflag, header.Mode&0o7777, header.Uid, header.Gid, header.Linkname, sum.Sum(nil)[:8])
	}
}

func TestBuild_ImagesAreWhatTheirPodsNeed(t *testing.T) {
	t.Parallel()
	need.Require(t, need.Images)
	began := time.Now()
	built, err := Build(t.Context(), Config{Root: root(t), Log: t.Output()})
	require.NoError(t, err)
	t.Logf("first build took %s", time.Since(began).Round(time.Millisecond))
	began = time.Now()
	again, err := Build(t.Context(), Config{Root: root(t), Log: t.Output()})
	require.NoError(t, err)
	t.Logf("second build took %s", time.Since(began).Round(time.Millisecond))
	require.Equal(t, built.Worker, again.Worker)
	for _, image := range []Image{built.Plugin, built.Worker} {
		info, err := os.Stat(image.Tar)
		require.NoError(t, err)
		t.Logf("%s: %d MB", image.Tag, info.Size()>>20)
	}

	plugin := open(t, built.Plugin.Tar, PluginTag)
	file, err := plugin.ConfigFile()
	require.NoError(t, err)
	require.Equal(t, "8737:8737", file.Config.User)
	require.Equal(t, []string{"/usr/local/bin/aphex"}, file.Config.Entrypoint)
	inPlugin := files(t, plugin)
	require.Regexp(t, `^0 0755 0:0 `, inPlugin["usr/local/bin/aphex"])
	require.Contains(t, inPlugin, "usr/bin/git")
	require.Contains(t, inPlugin, "etc/ssl/certs/ca-certificates.crt")
	require.Regexp(t, `^5 0700 8737:8737 `, inPlugin["var/aphex"])

	worker := open(t, built.Worker.Tar, WorkerTag)
	file, err = worker.ConfigFile()
	require.NoError(t, err)
	require.Equal(t, "10001:10001", file.Config.User)
	require.Equal(t, []string{"/usr/bin/tini", "--"}, file.Config.Entrypoint)
	require.Equal(t, "/workspace", file.Config.WorkingDir)
	inWorker := files(t, worker)
	for _, tool := range []string{"usr/bin/bash", "usr/bin/git", "usr/bin/tini", "usr/bin/aws", "usr/bin/python3", "usr/bin/pip3", "usr/local/bin/node", "usr/local/bin/npm", "usr/local/bin/npx", "usr/local/bin/cdk"} {
		require.Contains(t, inWorker, tool)
	}
	require.NotContains(t, inWorker, "usr/local/bin/aphex")
	require.Regexp(t, `^5 0755 10001:10001 `, inWorker["workspace/home"])

	for tag, found := range map[string]map[string]string{PluginTag: inPlugin, WorkerTag: inWorker} {
		for path, line := range found {
			require.NotRegexp(t, `^0 [4-7]`, line, "%s: %s has a set-user-id or set-group-id bit", tag, path)
		}
		for _, path := range []string{"root/.npmrc", "run/secrets/ca", "run/secrets/npmrc", "run/secrets/pipconf"} {
			require.NotContains(t, found, path, "%s: %s is a build secret", tag, path)
		}
	}
}

// TestBuild_PluginIsWhatItsDockerfileSays compares the quick way, a layer put
// on the cached base, with a build of the whole Dockerfile.
func TestBuild_PluginIsWhatItsDockerfileSays(t *testing.T) {
	t.Parallel()
	need.Require(t, need.Images)
	config := Config{Root: root(t), CacheDir: "", Log: t.Output()}
	built, err := Build(t.Context(), config)
	require.NoError(t, err)
	b, err := newBuilder(t.Context(), config)
	require.NoError(t, err)
	quickly := open(t, built.Plugin.Tar, PluginTag)

	var from base
	if recipe := b.engine.base(); recipe != nil {
		dir, err := b.cache.Get(t.Context(), *recipe)
		require.NoError(t, err)
		from = base{tar: filepath.Join(dir, imageFile), tag: baseTag}
	}
	scratch := t.TempDir()
	require.NoError(t, buildBinary(t.Context(), config.Root, filepath.Join(scratch, "aphex")))
	raw := filepath.Join(t.TempDir(), "raw.tar")
	d := dockerfile{path: filepath.Join(config.Root, "images/plugin/Dockerfile"), context: scratch, tag: PluginTag}
	require.NoError(t, b.engine.build(t.Context(), d, from, raw, t.Output()))
	fully, err := tarball.ImageFromPath(raw, nil)
	require.NoError(t, err)

	want, got := files(t, fully), files(t, quickly)
	// Written by Debian's tools with the time in them.
	for _, path := range []string{"etc/shadow", "var/cache/ldconfig/aux-cache"} {
		delete(want, path)
		delete(got, path)
	}
	dropUpdated(t, fully, quickly, want, got)
	require.Greater(t, len(want), 1000, "most files are compared")
	require.Equal(t, want, got)
	wantFile, err := fully.ConfigFile()
	require.NoError(t, err)
	gotFile, err := quickly.ConfigFile()
	require.NoError(t, err)
	for _, file := range []*v1.ConfigFile{wantFile, gotFile} {
		file.Config.Labels = nil // the engine's version
	}
	require.Equal(t, wantFile.Config, gotFile.Config)
	require.Equal(t, wantFile.Architecture, gotFile.Architecture)
}
