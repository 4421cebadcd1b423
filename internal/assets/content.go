package assets

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sync/semaphore"

	"github.com/aphex-pipeline/aphex/internal/archive"
	"github.com/aphex-pipeline/aphex/internal/awserr"
)

const (
	// memory is what the contents that are being sent may take at a time, in
	// bytes. The collector lets the process grow by as much again.
	memory = 64 << 20
	// whole is up to which size a content is in memory as a whole.
	whole = 8 << 20
	// A larger one is sent in parts, so many at a time.
	partSize, partsAtOnce = 8 << 20, 2
	// streamMemory is what that takes: the first part while it grows, those
	// being sent, and the next one.
	streamMemory = (2 + partsAtOnce) * partSize
	// smallMemory is taken by everything that is sent, however small.
	smallMemory = 64 << 10
	// packagesAtOnce is how many small contents are read and compressed at a
	// time, which takes processors and a megabyte each.
	packagesAtOnce = 4
)

// content is what goes to the destinations of an asset.
type content struct {
	// data and sum, its SHA-256 in base64, are those of a small one.
	data []byte
	sum  string

	// large is sent as open reads it, to one destination after the other.
	large     bool
	open      func() (io.ReadCloser, error)
	streaming *semaphore.Weighted

	release func()
}

// load reads or packages an asset, unless it is large, once there is memory for
// it. The caller releases it.
func (p *Publisher) load(ctx context.Context, f File) (*content, error) {
	size, open, err := p.open(f)
	if err != nil {
		return nil, err
	}
	weight := int64(smallMemory) + size
	if size > whole {
		weight = streamMemory
	}
	if err := p.memory.Acquire(ctx, weight); err != nil {
		return nil, awserr.Ended(ctx, "publish assets")
	}
	c := &content{large: size > whole, open: open, streaming: semaphore.NewWeighted(1), release: func() { p.memory.Release(weight) }}
	if c.large {
		return c, nil
	}
	if err := p.fill(ctx, c, size); err != nil {
		c.release()
		return nil, err
	}
	return c, nil
}

// fill reads a small content of at most size bytes.
func (p *Publisher) fill(ctx context.Context, c *content, size int64) (err error) {
	if err := p.packages.Acquire(ctx, 1); err != nil {
		return awserr.Ended(ctx, "publish assets")
	}
	defer p.packages.Release(1)
	if c.data, err = read(c.open, size); err != nil {
		return err
	}
	sum := sha256.Sum256(c.data)
	c.sum = base64.StdEncoding.EncodeToString(sum[:])
	return nil
}

// read returns what open reads, which is not more than size.
func read(open func() (io.ReadCloser, error), size int64) (data []byte, err error) {
	body, err := open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	buffer := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	if _, err = buffer.ReadFrom(io.LimitReader(body, size+1)); err == nil && int64(buffer.Len()) > size {
		err = archive.ErrChanged
	}
	return buffer.Bytes(), err
}

// open returns how large the asset is at most and what reads it.
func (p *Publisher) open(f File) (int64, func() (io.ReadCloser, error), error) {
	name, info, err := p.source(f)
	switch {
	case err != nil:
		return 0, nil, err
	case f.Zip && !info.IsDir():
		return 0, nil, fmt.Errorf("%s is not a folder, and only folders are packaged", f.Path)
	case !f.Zip && !info.Mode().IsRegular():
		return 0, nil, fmt.Errorf("%s is not a regular file", f.Path)
	case !f.Zip:
		return info.Size(), func() (io.ReadCloser, error) { return os.Open(name) }, nil
	}
	folder, err := archive.List(name)
	if err != nil {
		return 0, nil, err
	}
	return folder.Bound(), func() (io.ReadCloser, error) { return zipped(folder), nil }, nil
}

// source returns the place of the asset on disk, having made sure that it is
// inside the assembly.
func (p *Publisher) source(f File) (string, os.FileInfo, error) {
	root, err := os.OpenRoot(p.dir)
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = root.Close() }()
	local, err := filepath.Localize(f.Path)
	if err != nil {
		return "", nil, fmt.Errorf("path %q leads outside the assembly", f.Path)
	}
	info, err := root.Stat(local)
	if err != nil {
		return "", nil, err
	}
	return filepath.Join(p.dir, local), info, nil
}

// zipStream is an archive being made while it is read. Closing it ends the
// goroutine that makes it, and waits.
type zipStream struct {
	*io.PipeReader
	done chan struct{}
}

func zipped(folder *archive.Folder) *zipStream {
	reader, writer := io.Pipe()
	s := &zipStream{PipeReader: reader, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		writer.CloseWithError(folder.Zip(writer))
	}()
	return s
}

func (s *zipStream) Close() error {
	err := s.CloseWithError(errors.New("nobody reads the archive any more"))
	<-s.done
	return err
}
