package images

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/aphex-pipeline/aphex/e2e/toolcache"
)

// The names of the images.
const (
	PluginTag  = "aphex/plugin:dev"
	WorkerTag  = "aphex/worker:dev"
	BuilderTag = "aphex/builder:dev"
)

// Config says what to build and where to keep it.
type Config struct {
	// Root is the root of the checkout. Required.
	Root string
	// CacheDir keeps results. Empty means images below $APHEX_CACHE, else below
	// .cache/aphex in the home directory.
	CacheDir string
	// Log receives a line about each slow step and the output of builds. Nil
	// discards it.
	Log io.Writer
}

// Image is a built image.
type Image struct {
	// Tag is its name, such as "aphex/worker:dev".
	Tag string
	// Tar is the path of the image in the layout of docker save. It may be
	// replaced by a later Build, so it is loaded at once.
	Tar string
}

// Images are the images of one checkout.
type Images struct {
	Plugin, Worker Image
}

// Build returns both images of the checkout as it is on disk, built where
// needed. Several processes may build at once; they wait for one another.
func Build(ctx context.Context, config Config) (Images, error) {
	b, err := newBuilder(ctx, config)
	if err != nil {
		return Images{}, err
	}
	worker, err := b.worker(ctx)
	if err != nil {
		return Images{}, err
	}
	plugin, err := b.plugin(ctx)
	if err != nil {
		return Images{}, err
	}
	return Images{Plugin: plugin, Worker: worker}, nil
}

// BuildBuilder returns the worker's image with what builds container images in
// it, built where needed.
func BuildBuilder(ctx context.Context, config Config) (Image, error) {
	b, err := newBuilder(ctx, config)
	if err != nil {
		return Image{}, err
	}
	worker, err := b.worker(ctx)
	if err != nil {
		return Image{}, err
	}
	sum, err := os.ReadFile(filepath.Join(filepath.Dir(worker.Tar), "SHA256SUMS"))
	if err != nil {
		return Image{}, fmt.Errorf("builder image: tell its base: %w", err)
	}
	tar, err := b.on(ctx, "builder", "", BuilderTag, base{tar: worker.Tar, tag: WorkerTag, key: string(sum)})
	return Image{Tag: BuilderTag, Tar: tar}, err
}

// base is the image that a Dockerfile starts from; the zero value is the one
// that it names.
type base struct {
	tar, tag string
	// key changes with the image.
	key string
}

// builder builds images with one engine.
type builder struct {
	config Config
	engine engine
	cache  *toolcache.Cache
}

// engine turns Dockerfiles into tars.
type engine interface {
	// base returns the recipe of the base image, nil if the engine pulls it.
	base() *toolcache.Recipe
	// build writes the image to out.
	build(ctx context.Context, d dockerfile, from base, out string, log io.Writer) error
	// name tells engines apart in hashes.
	name() string
}

// dockerfile is one build.
type dockerfile struct {
	path, context string
	target        string // stage to stop at, empty for the last
	tag           string
}

func newBuilder(ctx context.Context, config Config) (*builder, error) {
	if config.Log == nil {
		config.Log = io.Discard
	}
	if config.CacheDir == "" {
		root := os.Getenv("APHEX_CACHE")
		if root == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return nil, fmt.Errorf("find the cache directory: %w; set APHEX_CACHE", err)
			}
			root = filepath.Join(home, ".cache", "aphex")
		}
		config.CacheDir = filepath.Join(root, "images")
	}
	engine, err := findEngine(ctx, config.CacheDir, config.Log)
	if err != nil {
		return nil, err
	}
	return &builder{config: config, engine: engine, cache: toolcache.New(config.CacheDir, config.Log)}, nil
}

// worker builds the worker image.
func (b *builder) worker(ctx context.Context) (Image, error) {
	tar, err := b.fromDockerfile(ctx, "worker", "", WorkerTag)
	return Image{Tag: WorkerTag, Tar: tar}, err
}

// plugin builds the plugin image: the binary of the checkout on the cached
// stage "base" of its Dockerfile.
func (b *builder) plugin(ctx context.Context) (Image, error) {
	base, err := b.fromDockerfile(ctx, "plugin", "base", PluginTag)
	if err != nil {
		return Image{}, err
	}
	work, err := os.MkdirTemp("", "aphex-images-")
	if err != nil {
		return Image{}, err
	}
	defer func() { _ = os.RemoveAll(work) }()
	binary := filepath.Join(work, "aphex")
	if err := buildBinary(ctx, b.config.Root, binary); err != nil {
		return Image{}, err
	}
	tar, err := addBinary(base, binary, filepath.Join(b.config.CacheDir, "plugin"))
	return Image{Tag: PluginTag, Tar: tar}, err
}

// fromDockerfile returns the tar of a Dockerfile's stage, from the cache if
// nothing that decides it has changed.
func (b *builder) fromDockerfile(ctx context.Context, name, target, tag string) (string, error) {
	var from base
	if recipe := b.engine.base(); recipe != nil {
		dir, err := b.cache.Get(ctx, *recipe)
		if err != nil {
			return "", fmt.Errorf("base image: %w", err)
		}
		from = base{tar: filepath.Join(dir, imageFile), tag: baseTag}
		if from.key, err = toolcache.Key(*recipe); err != nil {
			return "", err
		}
	}
	return b.on(ctx, name, target, tag, from)
}

// on returns the tar of a Dockerfile's stage that starts from another image.
func (b *builder) on(ctx context.Context, name, target, tag string, from base) (string, error) {
	dir, err := b.cache.Get(ctx, toolcache.Recipe{
		Name:   name + " image",
		Module: os.DirFS(filepath.Join(b.config.Root, "images", name)),
		Inputs: []string{b.engine.name(), runtime.GOARCH, target, from.key},
		Build: func(ctx context.Context, module, out string, log io.Writer) error {
			raw := filepath.Join(out, "raw.tar")
			d := dockerfile{path: filepath.Join(module, "Dockerfile"), context: module, target: target, tag: tag}
			if err := b.engine.build(ctx, d, from, raw, log); err != nil {
				return err
			}
			return pack(raw, filepath.Join(out, imageFile), tag)
		},
	})
	if err != nil {
		return "", fmt.Errorf("%s image: %w", name, err)
	}
	return filepath.Join(dir, imageFile), nil
}

// imageFile is the name of an image within its entry of the cache.
const imageFile = "image.tar"

// buildBinary builds the static binary of the checkout.
func buildBinary(ctx context.Context, root, out string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "nomsgpack", "-ldflags", "-s -w", "-o", out, "./cmd/aphex")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	return runCommand(cmd, nil)
}
