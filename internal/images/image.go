package images

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// What an archive may hold. Registries refuse manifests beyond 4 MiB.
const (
	maxImage    = 20 << 30
	maxEntries  = 10_000
	maxDocument = 4 << 20
	maxLayers   = 500
)

// Image is an image that was built, in a folder of this process alone.
type Image struct {
	dir   string
	root  *os.Root
	image v1.Image
}

// Close removes the image.
func (i *Image) Close() error { return errors.Join(i.root.Close(), os.RemoveAll(i.dir)) }

// open reads the archive, which user code made.
func (i *Image) open() error {
	// The archive may be a link: the root keeps it from leading elsewhere.
	opener := func() (io.ReadCloser, error) { return i.root.Open(archiveFile) }
	if err := inspect(opener); err != nil {
		return err
	}
	var err error
	i.image, err = tarball.Image(opener, nil)
	return err
}

// inspect makes sure that the archive can be read within bounds.
func inspect(opener tarball.Opener) error {
	file, err := opener()
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	reader := tar.NewReader(file)
	sizes := map[string]int64{}
	var total int64
	var manifest []byte
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		// A sparse entry says a size that takes no space: sizes are added up,
		// not read.
		if total += header.Size; total > maxImage || header.Size > maxImage {
			return fmt.Errorf("it has more than %d bytes", int64(maxImage))
		}
		entry := path.Clean(header.Name)
		if _, again := sizes[entry]; again {
			continue // the first one counts
		}
		if len(sizes) == maxEntries {
			return fmt.Errorf("it has more than %d files", maxEntries)
		}
		sizes[entry] = header.Size
		if header.Typeflag != tar.TypeReg {
			sizes[entry] = math.MaxInt64 // a link may lead to anything
		}
		if entry == "manifest.json" {
			if sizes[entry] > maxDocument {
				return errors.New("its manifest.json is no file of at most 4 MiB")
			}
			if manifest, err = io.ReadAll(reader); err != nil {
				return err
			}
		}
	}
	return checkManifest(manifest, sizes)
}

// checkManifest checks what the manifest says of one image.
func checkManifest(data []byte, sizes map[string]int64) error {
	if data == nil {
		return errors.New("it has no manifest.json")
	}
	var manifest tarball.Manifest
	if err := json.Unmarshal(data, &manifest); err != nil {
		return fmt.Errorf("its manifest.json: %w", err)
	}
	if len(manifest) != 1 {
		return fmt.Errorf("its manifest.json lists %d images, want 1", len(manifest))
	}
	if n := len(manifest[0].Layers); n > maxLayers {
		return fmt.Errorf("it has %d layers, at most %d are allowed", n, maxLayers)
	}
	size, ok := sizes[path.Clean(manifest[0].Config)]
	if !ok || size > maxDocument {
		return fmt.Errorf("its configuration %q is not there, or larger than 4 MiB", manifest[0].Config)
	}
	return nil
}

// single reads the only entry of a tar stream.
func single(stream io.Reader, limit int64) ([]byte, error) {
	reader := tar.NewReader(stream)
	header, err := reader.Next()
	if err != nil {
		return nil, err
	}
	if header.Typeflag != tar.TypeReg || header.Size > limit {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", header.Name, limit)
	}
	return io.ReadAll(reader)
}
