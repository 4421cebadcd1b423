package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const (
	// binaryPath is where the Dockerfile of the plugin puts the binary.
	binaryPath = "usr/local/bin/aphex"
	// keepTars is how many plugin images are kept: as many as checkouts are
	// likely to be tested at once.
	keepTars = 3
	// keepAge protects an image that another process is about to load.
	keepAge = time.Hour
)

// pack rewrites an image as engines save it, whose layers are not compressed,
// and removes the original. Compressed layers are a third in size to check and
// to load, and putting a layer on top does not compress them again.
func pack(raw, out, tag string) error {
	image, err := tarball.ImageFromPath(raw, nil)
	if err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	layers, err := image.Layers()
	if err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	packed := empty.Image
	for _, layer := range layers {
		fast, err := tarball.LayerFromOpener(layer.Uncompressed, tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithCompressedCaching)
		if err != nil {
			return fmt.Errorf("compress layer: %w", err)
		}
		if packed, err = mutate.AppendLayers(packed, fast); err != nil {
			return fmt.Errorf("compress layer: %w", err)
		}
	}
	if packed, err = mutate.ConfigFile(packed, file); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	if err := writeImage(out, tag, packed); err != nil {
		return err
	}
	return os.Remove(raw)
}

// addBinary puts the binary on the base image, as the last step of the
// Dockerfile does, and returns the tar in dir.
func addBinary(base, binary, dir string) (string, error) {
	program, err := os.ReadFile(binary)
	if err != nil {
		return "", err
	}
	image, err := tarball.ImageFromPath(base, nil)
	if err != nil {
		return "", fmt.Errorf("read base of the plugin image: %w", err)
	}
	id, err := image.ConfigName()
	if err != nil {
		return "", fmt.Errorf("read base of the plugin image: %w", err)
	}
	digest := sha256.New()
	_, _ = fmt.Fprintf(digest, "%s\n", id)
	_, _ = digest.Write(program)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	// The name is the hash of both parts, and the file appears only when
	// whole, so one that is there is right.
	out := filepath.Join(dir, hex.EncodeToString(digest.Sum(nil))+".tar")
	if err := os.Chtimes(out, time.Time{}, time.Now()); err == nil {
		return out, nil
	}
	layer, err := binaryLayer(program)
	if err != nil {
		return "", fmt.Errorf("pack the binary: %w", err)
	}
	image, err = mutate.Append(image, mutate.Addendum{
		Layer:   layer,
		History: v1.History{CreatedBy: "COPY aphex /" + binaryPath},
	})
	if err != nil {
		return "", fmt.Errorf("add the binary to the plugin image: %w", err)
	}
	if err := writeImage(out, PluginTag, image); err != nil {
		return "", err
	}
	return out, prune(dir)
}

// binaryLayer is a layer with nothing but the program.
func binaryLayer(program []byte) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	header := &tar.Header{Typeflag: tar.TypeReg, Name: binaryPath, Mode: 0o755, Size: int64(len(program)), ModTime: time.Unix(0, 0)}
	if err := w.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil },
		tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithCompressedCaching)
}

// writeImage writes an image so that the file is there whole or not at all.
func writeImage(path, tag string, image v1.Image) error {
	ref, err := name.NewTag(tag)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".writing-*")
	if err != nil {
		return err
	}
	err = tarball.Write(ref, image, file)
	if err == nil {
		err = file.Chmod(0o644)
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write image %s: %w", tag, err), os.Remove(file.Name()))
	}
	return nil
}

// prune removes all but the newest images and what a killed process left half
// written.
func prune(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	type aged struct {
		path string
		used time.Time
	}
	var files []aged
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			continue // removed by another process
		}
		files = append(files, aged{filepath.Join(dir, entry.Name()), info.ModTime()})
	}
	slices.SortFunc(files, func(a, b aged) int { return b.used.Compare(a.used) })
	var errs []error
	for i, file := range files {
		if i < keepTars || time.Since(file.used) < keepAge {
			continue
		}
		if err := os.Remove(file.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
