package deploy_test

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	e2eimages "github.com/aphex-pipeline/aphex/e2e/images"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/images"
	"github.com/aphex-pipeline/aphex/internal/testkit/ecr"
	"github.com/aphex-pipeline/aphex/internal/testkit/need"
	"github.com/aphex-pipeline/aphex/internal/testkit/static"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/tasks/deploy"
)

// theECR stands in for the emulator's, which says of every image that it is
// there. Tests keep apart by their tags.
var theECR = sync.OnceValue(func() *ecr.Registry {
	registry := ecr.New("assets")
	registry.Host = strings.TrimPrefix(httptest.NewServer(registry.Data()).URL, "http://") // lives as long as the tests
	shared.Script("ecr", registry.Control())
	return registry
})

func scriptedECR(t *testing.T) *ecr.Registry {
	t.Helper()
	emulator(t)
	return theECR()
}

// program is what the image holds: it writes what it is told and what it may
// see while the image is built.
const program = `package main

import "os"

func main() {
	secret, _ := os.ReadFile("/run/secrets/token")
	if err := os.WriteFile("/made.txt", []byte(os.Getenv("WHO")+" "+string(secret)), 0o644); err != nil {
		panic(err)
	}
}
`

const dockerfile = `FROM scratch AS made
ARG WHO
COPY --chmod=0755 hello /hello
RUN --mount=type=secret,id=token ["/hello"]
FROM scratch
COPY --from=made --chown=1234:1234 /made.txt /made.txt
USER 1234
`

const imageRole = `"assumeRoleArn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/cdk-hnb659fds-image-publishing-role-${AWS::AccountId}-${AWS::Region}"`

// withImage gives a stage a container image asset with two destinations and a
// worker that can really build it.
func withImage(t *testing.T) (*stage, *ecr.Registry) {
	t.Helper()
	need.Require(t, need.Images)
	registry := scriptedECR(t)
	require.NoError(t, e2eimages.EnsureBuilder(t.Context(), os.Stderr))
	s := newStage(t, shared)
	s.replace("data.assets.json", `"dockerImages": {}`, `"dockerImages": {"i1": {"displayName": "api image",
		"source": {"directory": "asset.api", "dockerFile": "api.Dockerfile", "dockerBuildArgs": {"WHO": "aphex; $(x)"}, "dockerBuildSecrets": {"token": "src=secret.txt"}},
		"destinations": {"a": {"repositoryName": "assets", "imageTag": "PREFIX-one", `+imageRole+`}, "b": {"repositoryName": "assets", "imageTag": "PREFIX-two", `+imageRole+`}}}}`)
	s.files["asset.api/api.Dockerfile"] = dockerfile
	s.files["asset.api/secret.txt"] = "squirrel"
	executable, err := hello()
	require.NoError(t, err)
	s.files["asset.api/hello"] = executable

	storage := t.TempDir()
	settings := filepath.Join(storage, "storage.conf")
	require.NoError(t, os.WriteFile(settings, fmt.Appendf(nil, "[storage]\ndriver = \"vfs\"\ngraphroot = \"%[1]s/root\"\nrunroot = \"%[1]s/run\"\n", storage), 0o600))
	socket := filepath.Join(t.TempDir(), "w.sock")
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() {
		served <- worker.Serve(ctx, worker.ServerConfig{
			Socket: socket, Root: t.TempDir(), Environ: []string{"PATH=" + os.Getenv("PATH"), "CONTAINERS_STORAGE_CONF=" + settings},
		})
	}()
	t.Cleanup(func() { stop(); require.NoError(t, <-served) })
	s.images = images.NewBuilder(worker.NewClient(socket), t.TempDir(), "")
	return s, registry
}

// hello builds the program once.
var hello = sync.OnceValues(func() (string, error) { return static.Build(context.Background(), program) })

// pulled returns a file of an image in the registry and the image's user.
func pulled(t *testing.T, registry *ecr.Registry, tag, path string) (content, owner, user string) {
	t.Helper()
	ref, err := name.NewTag(registry.Host + "/assets:" + tag)
	require.NoError(t, err)
	image, err := remote.Image(ref, remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: "AWS", Password: ecr.Password})), remote.WithContext(t.Context()))
	require.NoError(t, err)
	config, err := image.ConfigFile()
	require.NoError(t, err)
	files := mutate.Extract(image)
	defer func() { require.NoError(t, files.Close()) }()
	reader := tar.NewReader(files)
	for {
		header, err := reader.Next()
		require.NoError(t, err, "no %s in the image", path)
		if strings.Trim(header.Name, "./") != path {
			continue
		}
		data, err := io.ReadAll(reader)
		require.NoError(t, err)
		return string(data), fmt.Sprintf("%d:%d", header.Uid, header.Gid), config.Config.User
	}
}

// puts are the manifests that a stage's run has sent.
func (s *stage) puts(registry *ecr.Registry) (list []string) {
	for _, call := range registry.Calls() {
		if strings.HasPrefix(call, "PUT assets:"+s.prefix+"-") {
			list = append(list, call)
		}
	}
	return list
}

func TestStage_ImageAsset(t *testing.T) {
	t.Parallel()
	s, registry := withImage(t)
	_, err := s.run("b")
	require.NoError(t, err, s.log.String())
	log := s.log.String()
	require.Equal(t, 1, strings.Count(log, "image api image built with "), log)
	require.ElementsMatch(t, []string{"PUT assets:" + s.prefix + "-one", "PUT assets:" + s.prefix + "-two"}, s.puts(registry))
	published := strings.LastIndex(log, "image api image published to assets:")
	require.Less(t, published, strings.Index(log, s.prefix+"-data CREATE_"), "before the first stack: %s", log)
	require.Contains(t, log, "5 assets published, 0 already there")
	content, owner, user := pulled(t, registry, s.prefix+"-two", "made.txt")
	require.Equal(t, "aphex; $(x) squirrel", content)
	require.Equal(t, "1234:1234", owner)
	require.Equal(t, "1234", user)
	require.NotContains(t, log, ecr.Password)
	var roles int
	for _, c := range s.emulator.Calls() {
		if c.Operation == "AssumeRole" && c.Form.Get("RoleArn") == "arn:aws:iam::222222222222:role/cdk-hnb659fds-image-publishing-role-222222222222-eu-west-1" {
			roles++
		}
	}
	require.Positive(t, roles)

	s.journal, s.written = newMemory(), len(s.writes())
	_, err = s.run("c")
	require.NoError(t, err, s.log.String())
	require.NotContains(t, s.log.String(), "built with")
	require.Contains(t, s.log.String(), "image api image is already at assets:"+s.prefix+"-one in eu-west-1")
	require.Len(t, s.puts(registry), 2)
	require.Empty(t, registry.Strange())
}

// What is wrong with an image shows before anything is written, and the same
// execution can go on.
func TestStage_ImageThatCannotBeBuilt(t *testing.T) {
	t.Parallel()
	s, registry := withImage(t)
	s.files["asset.api/api.Dockerfile"] = dockerfile + "COPY nothing /\n"
	_, err := s.run("b")
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.ImageBuildFailed})
	require.Contains(t, fault.Message(err), "api image")
	require.Contains(t, fault.Message(err), "nothing")
	require.Empty(t, s.writes())
	require.Empty(t, s.phases)
	require.Empty(t, s.puts(registry))

	// As if the process had been killed while it built: all is done again.
	s.files["asset.api/api.Dockerfile"] = dockerfile
	s.journal = newMemory()
	s.images = &interrupted{ImageBuilder: s.images}
	_, err = s.run("b")
	require.ErrorContains(t, err, "killed")
	require.Empty(t, s.phases)
	_, err = s.run("b")
	require.NoError(t, err, s.log.String())
	require.Len(t, s.puts(registry), 2)
}

func TestStage_ImageWithoutRepository(t *testing.T) {
	t.Parallel()
	s, _ := withImage(t)
	s.replace("data.assets.json", `"repositoryName": "assets"`, `"repositoryName": "gone"`)
	_, err := s.run("b")
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.NotBootstrapped})
	require.Contains(t, fault.Message(err), "cdk bootstrap aws://222222222222/eu-west-1")
	require.NotContains(t, s.log.String(), "built with")
	require.Empty(t, s.writes())
	require.Empty(t, s.phases)
}

// interrupted builds an image and then ends as a process that is killed: the
// first time.
type interrupted struct {
	deploy.ImageBuilder
	once sync.Once
}

// Build builds, but says the first time that it did not.
func (i *interrupted) Build(ctx context.Context, build images.Build, program string, out io.Writer) (image *images.Image, err error) {
	image, err = i.ImageBuilder.Build(ctx, build, program, out)
	i.once.Do(func() { image, err = nil, errors.New("killed") })
	return image, err
}
