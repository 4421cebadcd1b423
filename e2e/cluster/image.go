package cluster

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/aphex-pipeline/aphex/e2e/toolcache"
)

// ExecutorImage is the image with Argo's executor, which the controller adds
// to pods. Its only program is /bin/argoexec.
const ExecutorImage = "quay.io/argoproj/argoexec:" + toolcache.ArgoVersion

// controllerImage is the image of Argo's controller.
const controllerImage = "quay.io/argoproj/workflow-controller:" + toolcache.ArgoVersion

// packedImage is an image with one program and nothing else.
type packedImage struct {
	tag     string
	program string // path of the binary on this machine
	path    string // its path in the image, relative to the root
	user    string
}

// argoImages are the images of Argo, from the cache entry argo.
func argoImages(argo string) []packedImage {
	return []packedImage{
		{tag: ExecutorImage, program: filepath.Join(argo, "argoexec"), path: "bin/argoexec"},
		{tag: controllerImage, program: filepath.Join(argo, "workflow-controller"), path: "bin/workflow-controller", user: "8737"},
	}
}

// pack writes the image as a docker archive to the file out.
func (p packedImage) pack(out string) error {
	layer, err := p.layer()
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(empty.Image, static.NewLayer(layer, types.DockerUncompressedLayer))
	if err != nil {
		return err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{Entrypoint: []string{"/" + p.path}, Env: []string{"PATH=/bin"}, User: p.user}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return err
	}
	tag, err := name.NewTag(p.tag)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(out, tag, image)
}

// layer returns the image's file system as a tar archive: a writable /tmp and
// the program.
func (p packedImage) layer() ([]byte, error) {
	program, err := os.ReadFile(p.program)
	if err != nil {
		return nil, err
	}
	var buffer bytes.Buffer
	buffer.Grow(len(program) + 8192)
	archive := tar.NewWriter(&buffer)
	dirs := []tar.Header{{Name: "tmp/", Mode: 0o1777}, {Name: "etc/", Mode: 0o755}, {Name: "bin/", Mode: 0o755}, {Name: "var/", Mode: 0o755}, {Name: "var/run/", Mode: 0o755}}
	for _, dir := range dirs {
		dir.Typeflag = tar.TypeDir
		if err := archive.WriteHeader(&dir); err != nil {
			return nil, err
		}
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: p.path, Mode: 0o755, Size: int64(len(program))}
	if err := archive.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := archive.Write(program); err != nil {
		return nil, err
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}

// packAndLoad packs images and loads each with load.
func packAndLoad(ctx context.Context, dir string, images []packedImage, load func(context.Context, string) error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, image := range images {
		file := filepath.Join(dir, filepath.Base(image.path)+".tar")
		if err := image.pack(file); err != nil {
			return fmt.Errorf("pack image %s: %w", image.tag, err)
		}
		if err := load(ctx, file); err != nil {
			return fmt.Errorf("load image %s: %w", image.tag, err)
		}
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	return nil
}

// loadOwnImages loads the images of the cluster itself.
func (l *local) loadOwnImages(ctx context.Context) error {
	images := append(argoImages(l.argo), packedImage{tag: pauseImage, program: filepath.Join(l.pause, "pause"), path: "pause"})
	return packAndLoad(ctx, l.state.path("images"), images, l.load)
}

// ctr runs containerd's client.
func (l *local) ctr(ctx context.Context, args ...string) (string, error) {
	return output(ctx, nil, append([]string{"ctr", "--address", l.containerdSocket(), "--namespace", "k8s.io"}, args...)...)
}

// load imports an image archive into containerd and waits until the part of
// it that serves the kubelet knows the images, which happens a moment later.
func (l *local) load(ctx context.Context, tarFile string) error {
	args := []string{"images", "import", "--snapshotter", l.snapshotter()}
	index, err := indexName(tarFile)
	if err != nil {
		return err
	}
	if index != "" {
		args = append(args, "--index-name", index)
	}
	if _, err := l.ctr(ctx, append(args, tarFile)...); err != nil {
		return err
	}
	return l.await(ctx, 30*time.Second, "the kubelet's view of the imported images", func(ctx context.Context) (bool, error) {
		// Every image that this view knows carries a label.
		unknown, err := l.ctr(ctx, "images", "ls", "-q", "labels.\"io.cri-containerd.image\"!=managed")
		return err == nil && strings.TrimSpace(unknown) == "", err
	})
}

// ociIndex is what is read of an OCI archive's index.json.
type ociIndex struct {
	Manifests []struct {
		Annotations map[string]string `json:"annotations"`
	} `json:"manifests"`
}

// indexName returns the name for containerd to import an OCI archive under,
// or "" for a docker archive, which holds the names of its images itself.
func indexName(tarFile string) (string, error) {
	file, err := os.Open(tarFile)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	var index *ociIndex
	for archive := tar.NewReader(file); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", fmt.Errorf("it is no tar archive: %w", err)
		}
		switch strings.TrimPrefix(header.Name, "./") {
		case "manifest.json":
			return "", nil
		case "index.json":
			index = &ociIndex{}
			if err := json.NewDecoder(archive).Decode(index); err != nil {
				return "", fmt.Errorf("its index.json: %w", err)
			}
		}
	}
	if index == nil || len(index.Manifests) == 0 {
		return "", errors.New("it is neither a docker archive (manifest.json) nor an OCI archive with an image (index.json)")
	}
	for _, key := range []string{"io.containerd.image.name", "org.opencontainers.image.ref.name"} {
		if reference := index.Manifests[0].Annotations[key]; strings.ContainsAny(reference, "/:") {
			return canonical(reference)
		}
	}
	return "", errors.New("its index.json names no image: write the archive with a full name, such as aphex/worker:dev, in the annotation org.opencontainers.image.ref.name")
}

// canonical returns reference in full: registry, path, tag.
func canonical(reference string) (string, error) {
	if strings.HasPrefix(reference, "localhost/") {
		return reference, nil
	}
	tag, err := name.NewTag(reference)
	if err != nil {
		return "", err
	}
	return strings.Replace(tag.Name(), name.DefaultRegistry+"/", "docker.io/", 1), nil
}
