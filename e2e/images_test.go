package e2e

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/testkit/ecr"
	"github.com/aphex-pipeline/aphex/internal/testkit/gitserver"
	"github.com/aphex-pipeline/aphex/internal/testkit/static"
)

// imageProgram runs while the image is built and tells as whom.
const imageProgram = `package main

import (
	"fmt"
	"os"
)

func main() {
	if err := os.WriteFile(os.Args[1], fmt.Appendf(nil, "%d %s", os.Getuid(), os.Getenv("WHO")), 0o644); err != nil {
		panic(err)
	}
}
`

const imageDockerfile = `FROM scratch AS made
ARG WHO
COPY --chmod=0755 hello /hello
RUN ["/hello", "/root.txt"]
COPY --chown=1234:1234 hello /home/
USER 1234
RUN ["/hello", "/home/user.txt"]
FROM scratch
COPY --from=made /root.txt /home/user.txt /
`

const imageAssets = `{"version": "48.0.0", "files": {}, "dockerImages": {"image1": {"displayName": "api image",
  "source": {"directory": "asset.api", "dockerBuildArgs": {"WHO": "aphex"}},
  "destinations": {"current": {"repositoryName": "assets", "imageTag": "image1",
    "assumeRoleArn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/cdk-hnb659fds-image-publishing-role-${AWS::AccountId}-${AWS::Region}"}}}}}`

// TestImages_RootlessBuildInThePod builds an image with buildah in a worker
// without a Docker engine, as several users, and the sidecar pushes it. A
// worker without a builder says so before it writes anything.
func TestImages_RootlessBuildInThePod(t *testing.T) {
	t.Parallel()
	l := needLab(t)
	builder, err := l.LoadBuilder(t.Context())
	require.NoError(t, err)
	registry := ecr.New("assets")
	registry.Host = strings.TrimPrefix(listen(t, l, registry.Data()), "http://")
	l.AWS.Script("ecr", registry.Control())
	hello, err := static.Build(t.Context(), imageProgram)
	require.NoError(t, err)
	for _, run := range []struct {
		pipeline string
		change   func(*pipeline.Installation)
	}{
		{"no-builder", func(*pipeline.Installation) {}},
		{"image", func(i *pipeline.Installation) {
			i.Images.Worker, i.Images.Builder, i.Images.Rootless = builder, pipeline.BuilderBuildah, true
		}},
	} {
		p, _, _ := newSmall(t, l, run.pipeline, run.change)
		commit, err := p.Push(t.Context(), gitserver.Change{Write: withImage(t, run.pipeline, hello)})
		require.NoError(t, err)
		_, status := finish(t, p, commit)
		message := status.Node("deploy-dev").Message
		if run.pipeline == "no-builder" {
			require.Equal(t, "Failed", status.Phase, "%+v", status)
			require.Contains(t, message, "docker is not there; buildah is not there")
			require.Contains(t, message, "[ImageAssetUnsupported]")
			require.False(t, registry.Has("assets", "image1"))
			continue
		}
		require.Equal(t, "Succeeded", status.Phase, "%+v", status)
	}
	require.Equal(t, map[string]string{"root.txt": "0 aphex", "user.txt": "1234 aphex"}, imageFiles(t, registry))
	require.Empty(t, registry.Strange())
}

// withImage adds a container image asset to testdata/small.
func withImage(t *testing.T, stack, hello string) map[string]string {
	t.Helper()
	manifest, err := os.ReadFile(filepath.Join("testdata", "small", "assembly", "manifest.json"))
	require.NoError(t, err)
	text := strings.Replace(string(manifest), `"artifacts": {`, `"artifacts": {"assets": {"type": "cdk:asset-manifest", "properties": {"file": "assets.json"}},`, 1)
	text = strings.Replace(text, `"displayName"`, `"dependencies": ["assets"], "displayName"`, 1)
	return map[string]string{
		"assembly/manifest.json": strings.ReplaceAll(text, "STACK", stack), "assembly/assets.json": imageAssets,
		"assembly/asset.api/Dockerfile": imageDockerfile, "assembly/asset.api/hello": hello,
	}
}

// imageFiles are the texts in the image that was pushed.
func imageFiles(t *testing.T, registry *ecr.Registry) map[string]string {
	t.Helper()
	ref, err := name.NewTag(registry.Host + "/assets:image1")
	require.NoError(t, err)
	image, err := remote.Image(ref, remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: "AWS", Password: ecr.Password})), remote.WithContext(t.Context()))
	require.NoError(t, err)
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
		text, err := io.ReadAll(reader)
		require.NoError(t, err)
		found[header.Name] = string(text)
	}
}
