package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

// memoryLimit is how large a body may be to be kept in memory until its
// digest is known; larger ones wait in a temporary file. Records and logs are
// far below, snapshots far above.
const memoryLimit = 4 << 20

// Body is the content of a Put after a first pass, ready for a second: a Put
// that is given one does not read it twice.
type Body struct {
	io.ReadSeeker

	size    int64
	sha256  string
	release func()
}

// Size is in bytes.
func (b *Body) Size() int64 { return b.size }

// SHA256 is the digest in hexadecimal.
func (b *Body) SHA256() string { return b.sha256 }

// Close gives up what keeps the content.
func (b *Body) Close() { b.release() }

// Spool reads r to its end and keeps the content: in memory what is small, else
// in a temporary file without a name. The caller closes it.
//
// Errors are those of r, of the temporary file and the cause of ctx's end.
func Spool(ctx context.Context, r io.Reader) (*Body, error) {
	hash := sha256.New()
	source := &contextReader{ctx: ctx, r: io.TeeReader(r, hash)}
	head, err := io.ReadAll(io.LimitReader(source, memoryLimit))
	if err != nil {
		return nil, err
	}
	if len(head) < memoryLimit {
		return &Body{
			ReadSeeker: bytes.NewReader(head), size: int64(len(head)),
			sha256: hex.EncodeToString(hash.Sum(nil)), release: func() {},
		}, nil
	}
	spool, size, err := spoolFile(io.MultiReader(bytes.NewReader(head), source))
	if err != nil {
		return nil, err
	}
	return &Body{
		ReadSeeker: spool, size: size, sha256: hex.EncodeToString(hash.Sum(nil)),
		release: func() { _ = spool.Close() },
	}, nil
}

// prepare reads r to its end, because the digest is stored with the object
// and so must be known before. A file is not copied, only read twice.
func prepare(ctx context.Context, r io.Reader) (*Body, error) {
	if spooled, ok := r.(*Body); ok {
		_, err := spooled.Seek(0, io.SeekStart)
		return &Body{ReadSeeker: spooled.ReadSeeker, size: spooled.size, sha256: spooled.sha256, release: func() {}}, err
	}
	if seeker, ok := r.(io.ReadSeeker); ok {
		start, err := seeker.Seek(0, io.SeekCurrent)
		if err == nil {
			hash := sha256.New()
			n, err := io.Copy(hash, &contextReader{ctx: ctx, r: seeker})
			if err != nil {
				return nil, err
			}
			if _, err := seeker.Seek(start, io.SeekStart); err != nil {
				return nil, err
			}
			return &Body{ReadSeeker: seeker, size: n, sha256: hex.EncodeToString(hash.Sum(nil)), release: func() {}}, nil
		}
	}
	return Spool(ctx, r)
}

// spoolFile copies r to a file that has no name and so cannot be left behind.
func spoolFile(r io.Reader) (*os.File, int64, error) {
	file, err := os.CreateTemp("", "aphex-put-")
	if err != nil {
		return nil, 0, err
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	size, err := io.Copy(file, r)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("keep a copy of the body: %w", err), file.Close())
	}
	return file, size, nil
}

// contextReader ends with the cause of its context.
type contextReader struct {
	ctx context.Context //nolint:containedctx // lives as long as one copy
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
