package images_test

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/images"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// bench is a real worker whose docker and buildah are scripts: an engine is
// what this machine need not have. They note what they get below bin.
type bench struct {
	t                        *testing.T
	root, bin, private, data string
	client                   *worker.Client
}

// script is either program: it answers a probe unless told otherwise, and
// hands out the archive that the test has put beside it.
const script = `#!/bin/sh
here=$(dirname "$0")
case "$1" in
version|info) [ ! -e "$here/$(basename "$0").broken" ] || { cat "$here/$(basename "$0").broken" >&2; exit 1; }; echo 28.0 ;;
build)
  shift; printf '%s\n' "$@" >"$here/arguments"
  ls -lR . >"$here/context"; env | sort >"$here/environment"
  echo "step 1"; [ ! -e "$here/fails" ] || { cat "$here/fails"; exit 3; } ;;
save) cp -P "$here/image.tar" "$3"; printf '%s' "$4" >"$here/saved" ;;
push) file=${4#docker-archive:}; cp -P "$here/image.tar" "${file%%:*}"; printf '%s' "$3" >"$here/saved" ;;
*) exit 9 ;;
esac
`

func newBench(t *testing.T, programs ...string) *bench {
	t.Helper()
	b := &bench{t: t, root: t.TempDir(), bin: t.TempDir(), private: t.TempDir(), data: t.TempDir()}
	for _, program := range programs {
		require.NoError(t, os.WriteFile(filepath.Join(b.bin, program), []byte(script), 0o755))
	}
	for _, tool := range []string{"sh", "bash", "cat", "cp", "ls", "env", "sort", "dirname", "basename"} {
		path, err := exec.LookPath(tool)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(path, filepath.Join(b.bin, tool)))
	}
	require.NoError(t, os.MkdirAll(filepath.Join(b.data, "asset.api", "bin"), 0o750))
	b.put(filepath.Join(b.data, "asset.api", "Dockerfile"), "FROM scratch\n", 0o600)
	b.put(filepath.Join(b.data, "asset.api", "bin", "run"), "#!/bin/sh\n", 0o755)
	b.archive()
	socket := filepath.Join(t.TempDir(), "w.sock")
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() {
		served <- worker.Serve(ctx, worker.ServerConfig{Socket: socket, Root: b.root, Environ: []string{"PATH=" + b.bin}})
	}()
	t.Cleanup(func() { stop(); require.NoError(t, <-served) })
	b.client = worker.NewClient(socket)
	return b
}

func (b *bench) put(path, content string, mode os.FileMode) {
	b.t.Helper()
	require.NoError(b.t, os.WriteFile(path, []byte(content), mode))
}

// archive puts an image where the scripts find it.
func (b *bench) archive() {
	b.t.Helper()
	image, err := random.Image(2000, 3)
	require.NoError(b.t, err)
	tag, err := name.NewTag("localhost/cdkasset:latest")
	require.NoError(b.t, err)
	require.NoError(b.t, tarball.WriteToFile(filepath.Join(b.bin, "image.tar"), tag, image))
}

func (b *bench) noted(name string) string {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.bin, name))
	require.NoError(b.t, err)
	return string(data)
}

func (b *bench) builder(program string) *images.Builder {
	return images.NewBuilder(b.client, b.private, program)
}

func (b *bench) asset(change func(*assembly.ImageSource)) images.Build {
	build := images.Build{ID: "a1", Name: "Api/Image", Source: assembly.ImageSource{Directory: "asset.api"}, Assembly: b.data, App: worker.SourceDir}
	if change != nil {
		change(&build.Source)
	}
	return build
}

// everything asks for all that an asset can.
func everything(s *assembly.ImageSource) {
	s.Dockerfile, s.Target, s.SSH, s.Network, s.Platform = "api.Dockerfile", "final", "default", "host", "linux/arm64"
	s.BuildArgs = map[string]string{"B": "2 words; $(no shell)", "A": "1"}
	s.BuildContexts = map[string]string{"base": "../base"}
	s.Secrets = map[string]string{"npm": "src=.npmrc", "env": "type=env,env=TOKEN"}
	s.Outputs = []string{"type=docker"}
	s.CacheFrom = []assembly.ImageCache{{Type: "registry", Params: map[string]string{"ref": "r:c", "mode": "max"}}, {Type: "gha"}}
	s.CacheTo, s.CacheDisabled = &assembly.ImageCache{Type: "inline"}, true
}

func TestBuilder_PassesEverythingOn(t *testing.T) {
	t.Parallel()
	common := "--build-arg A=1 --build-arg B=2 words; $(no shell) --build-context base=../base --secret id=env,type=env,env=TOKEN --secret id=npm,src=.npmrc" +
		" --ssh default --target final --file api.Dockerfile --network host --platform linux/arm64"
	for program, want := range map[string]string{
		images.Docker:  common + " --output=type=docker --cache-from type=registry,mode=max,ref=r:c --cache-from type=gha --cache-to type=inline --no-cache .",
		images.Buildah: common + " --no-cache .",
	} {
		b := newBench(t, program)
		build := b.asset(everything)
		chosen, warnings, err := b.builder("").Choose(t.Context(), []images.Build{build})
		require.NoError(t, err)
		require.Equal(t, program, chosen)
		require.Equal(t, program == images.Buildah, len(warnings) == 1, "%v", warnings)
		var log bytes.Buffer
		image, err := b.builder("").Build(t.Context(), build, chosen, &log)
		require.NoError(t, err, log.String())
		tag := "cdkasset-" + build.Key() + ":latest"
		require.Equal(t, "--tag "+tag+" "+want, strings.ReplaceAll(strings.TrimSpace(b.noted("arguments")), "\n", " "))
		require.Equal(t, tag, b.noted("saved"))
		require.Regexp(t, `(?m)^-rwxr-xr-x .* run$`, b.noted("context"))
		require.Contains(t, b.noted("environment"), "BUILDX_NO_DEFAULT_ATTESTATIONS=1\n")
		require.Contains(t, log.String(), "step 1")
		left, err := os.ReadDir(filepath.Join(b.root, worker.OutDir))
		require.NoError(t, err)
		require.Empty(t, left, "nothing stays in the worker")
		require.NoError(t, image.Close())
		left, err = os.ReadDir(b.private)
		require.NoError(t, err)
		require.Empty(t, left, "nor here")
	}
}

func TestBuilder_Choose(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, programs, broken, forced string
		change                         func(*assembly.ImageSource)
		want, text                     string
	}{
		{name: "docker first", programs: "docker buildah", want: images.Docker},
		{name: "no engine", programs: "docker buildah", broken: "docker", want: images.Buildah},
		{name: "buildah alone", programs: "buildah", want: images.Buildah},
		{name: "forced", programs: "docker buildah", forced: images.Buildah, want: images.Buildah},
		{name: "nothing there", text: "docker is not there; buildah is not there"},
		{name: "nothing works", programs: "docker buildah", broken: "docker buildah", text: "no Docker engine answers it (docker is broken); buildah is there, but it does not work here (buildah is broken)"},
		{name: "forced and broken", programs: "docker buildah", broken: "docker", forced: images.Docker, text: "no Docker engine answers it (docker is broken)"},
		{name: "network of buildah", programs: "buildah", change: func(s *assembly.ImageSource) { s.Network = "container:x" }, text: `buildah cannot do network mode "container:x"`},
		{name: "network of docker", programs: "docker", change: func(s *assembly.ImageSource) { s.Network = "container:x" }, want: images.Docker},
		{name: "output of buildah", programs: "buildah", change: func(s *assembly.ImageSource) { s.Outputs = []string{"type=registry,ref=x"} }, text: `buildah cannot do output "type=registry,ref=x"`},
		{name: "outputs of buildah", programs: "buildah", change: func(s *assembly.ImageSource) { s.Outputs = []string{"a", "type=tar,dest=b"} }, text: "more than one output"},
		{name: "one output of buildah", programs: "buildah", change: func(s *assembly.ImageSource) { s.Outputs = []string{"type=docker", "type=local,dest=out"} }, want: images.Buildah},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, strings.Fields(tt.programs)...)
			for program := range strings.FieldsSeq(tt.broken) {
				b.put(filepath.Join(b.bin, program+".broken"), "a line\n"+program+" is broken\n", 0o600)
			}
			got, _, err := b.builder(tt.forced).Choose(t.Context(), []images.Build{b.asset(nil), b.asset(tt.change)})
			require.Equal(t, tt.want, got)
			if tt.want != "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, &fault.Fault{Reason: fault.ImageAssetUnsupported})
			require.Contains(t, fault.Message(err), tt.text)
		})
	}
}

func TestBuilder_ProgramMakesTheImage(t *testing.T) {
	t.Parallel()
	for program, text := range map[string]string{
		`echo "building" >&2; echo "made:$AWS_REGION"`: "",
		`echo one; echo two`:                           `printed "one\ntwo", which is no image's name`,
		`echo --all`:                                   "no image's name",
		`true`:                                         `printed ""`,
		`echo sorry; exit 4`:                           "ended with exit code 4",
	} {
		b := newBench(t, images.Docker)
		build := b.asset(func(s *assembly.ImageSource) { *s = assembly.ImageSource{Executable: []string{"sh", "-c", program}} })
		build.Env = map[string]string{"AWS_REGION": "eu-west-1"}
		var log bytes.Buffer
		image, err := b.builder("").Build(t.Context(), build, images.Docker, &log)
		if text == "" {
			require.NoError(t, err)
			require.Equal(t, "made:eu-west-1", b.noted("saved"))
			require.Contains(t, log.String(), "building")
			require.NoError(t, image.Close())
			continue
		}
		require.ErrorIs(t, err, &fault.Fault{Reason: fault.ImageBuildFailed})
		require.Contains(t, fault.Message(err), text)
	}
}

func TestBuilder_FailedBuildShowsItsEnd(t *testing.T) {
	t.Parallel()
	b := newBench(t, images.Buildah)
	b.put(filepath.Join(b.bin, "fails"), "RUN make: no such target\n", 0o600)
	_, err := b.builder("").Build(t.Context(), b.asset(nil), images.Buildah, &bytes.Buffer{})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.ImageBuildFailed})
	require.Contains(t, fault.Message(err), "exit code 3; its last output: step 1\nRUN make: no such target")
	require.Contains(t, fault.Message(err), "Api/Image")

	require.NoError(t, os.Remove(filepath.Join(b.bin, "fails")))
	image, err := b.builder("").Build(t.Context(), b.asset(nil), images.Buildah, &bytes.Buffer{})
	require.NoError(t, err, "what a broken build left is no obstacle")
	require.NoError(t, image.Close())
}

func TestBuilder_MissingFolder(t *testing.T) {
	t.Parallel()
	b := newBench(t, images.Docker)
	_, err := b.builder("").Build(t.Context(), b.asset(func(s *assembly.ImageSource) { s.Directory = "asset.gone" }), images.Docker, &bytes.Buffer{})
	require.ErrorIs(t, err, &fault.Fault{Reason: fault.AssetFailed})
	require.Contains(t, fault.Message(err), "asset.gone")
}

// tarOf makes an archive of headers with contents.
func tarOf(t *testing.T, entries ...*tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	writer := tar.NewWriter(&out)
	for _, entry := range entries {
		content := entry.Uname // carries the content up to here
		entry.Uname, entry.Mode = "", 0o644
		if entry.Typeflag == tar.TypeReg {
			entry.Size = int64(len(content))
		}
		require.NoError(t, writer.WriteHeader(entry))
		_, err := writer.Write([]byte(content)[:entry.Size])
		require.NoError(t, err)
	}
	require.NoError(t, writer.Close())
	return out.Bytes()
}

// User code makes the archive: it must not lead this process anywhere, nor
// fill its memory.
func TestBuilder_RefusesHostileArchives(t *testing.T) {
	t.Parallel()
	file := func(name, content string) *tar.Header {
		return &tar.Header{Typeflag: tar.TypeReg, Name: name, Uname: content}
	}
	const manifest = `[{"Config": "c.json", "Layers": []}]`
	for name, tt := range map[string]struct {
		entries []*tar.Header
		text    string
	}{
		"no manifest":             {[]*tar.Header{file("c.json", "{}")}, "no manifest.json"},
		"manifest of great size":  {[]*tar.Header{file("manifest.json", strings.Repeat(" ", 5<<20))}, "at most 4 MiB"},
		"manifest that is a link": {[]*tar.Header{{Typeflag: tar.TypeSymlink, Name: "manifest.json", Linkname: "x"}, file("x", manifest)}, "at most 4 MiB"},
		"config of great size":    {[]*tar.Header{file("manifest.json", manifest), file("c.json", strings.Repeat(" ", 5<<20))}, "larger than 4 MiB"},
		"config that is a link":   {[]*tar.Header{file("manifest.json", manifest), {Typeflag: tar.TypeSymlink, Name: "./c.json", Linkname: "x"}, file("c.json", "{}")}, "larger than 4 MiB"},
		"config that is absent":   {[]*tar.Header{file("manifest.json", manifest)}, `configuration "c.json" is not there`},
		"two images":              {[]*tar.Header{file("manifest.json", `[{}, {}]`)}, "lists 2 images"},
		"too many layers":         {[]*tar.Header{file("manifest.json", `[{"Layers": ["x"`+strings.Repeat(`,"x"`, 600)+`]}]`)}, "601 layers"},
		"no JSON":                 {[]*tar.Header{file("manifest.json", `[`)}, "manifest.json"},
	} {
		b := newBench(t, images.Docker)
		b.put(filepath.Join(b.bin, "image.tar"), string(tarOf(t, tt.entries...)), 0o600)
		_, err := b.builder("").Build(t.Context(), b.asset(nil), images.Docker, &bytes.Buffer{})
		require.ErrorIs(t, err, &fault.Fault{Reason: fault.AssetFailed}, name)
		require.Contains(t, fault.Message(err), tt.text, name)
		left, err := os.ReadDir(b.private)
		require.NoError(t, err)
		require.Empty(t, left, name)
	}

	b := newBench(t, images.Docker)
	outside := filepath.Join(t.TempDir(), "secret.tar")
	b.archive()
	require.NoError(t, os.Rename(filepath.Join(b.bin, "image.tar"), outside))
	require.NoError(t, os.Symlink(outside, filepath.Join(b.bin, "image.tar")))
	_, err := b.builder("").Build(t.Context(), b.asset(nil), images.Docker, &bytes.Buffer{})
	require.Error(t, err, "a link out of the folder is not followed")
	require.NotContains(t, fault.Message(err), "random")
}

func TestBuild_KeyTellsSourcesApart(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	seen := map[string]int{}
	for i, build := range []images.Build{
		b.asset(nil), b.asset(everything), b.asset(func(s *assembly.ImageSource) { s.Target = "x" }),
		b.asset(func(s *assembly.ImageSource) { s.Executable = []string{"x"} }),
	} {
		require.NotContains(t, seen, build.Key(), strconv.Itoa(i))
		seen[build.Key()] = i
		again := build
		again.Name, again.Assembly = "other", "elsewhere"
		require.Equal(t, build.Key(), again.Key())
	}
}
