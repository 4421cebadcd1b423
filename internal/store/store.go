package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// What callers branch on. Every error of a store is a [fault.Fault] that may
// wrap one of these.
var (
	// ErrNotFound is a key without an object.
	ErrNotFound = errors.New("no such object")
	// ErrExists is a key that has an object already, with [PutOptions.IfAbsent].
	ErrExists = errors.New("object exists already")
	// ErrChanged is an object that is not the one to be replaced, with
	// [PutOptions.Replaces].
	ErrChanged = errors.New("object has been changed meanwhile")
	// ErrDamaged is an object whose bytes are not those that were written.
	ErrDamaged = errors.New("object is damaged")
)

// Object describes a stored object.
type Object struct {
	// Key is the object's key relative to the store.
	Key string
	// URL names the object for people and tools: s3://bucket/key or file://path.
	URL string
	// Size is in bytes; -1 from Get and Head if the server did not say.
	Size int64
	// SHA256 is the digest of the bytes in hexadecimal; empty in a List, and
	// from Head for an object that was not written by aphex.
	SHA256 string
	// ContentType is the media type it was stored with; empty in a List.
	ContentType string
	// Tags are the tags it was stored with; set by Put only.
	Tags map[string]string
	// Version tells these bytes at this key from others; empty in a List. Get
	// sets it also beside an error that wraps [ErrDamaged].
	Version string
	// Modified is when it was stored; set in a List and by Head only. S3 knows
	// seconds.
	Modified time.Time
}

// PutOptions say how an object is stored. The zero value stores bytes of
// unknown type without tags, replacing what is there.
type PutOptions struct {
	// ContentType is the media type; empty means application/octet-stream.
	ContentType string
	// Tags are stored beside the object; S3 allows ten.
	Tags map[string]string
	// IfAbsent makes Put fail with [ErrExists] where there is an object.
	IfAbsent bool
	// Replaces makes Put fail with [ErrChanged] unless the object that is there
	// has this [Object.Version].
	Replaces string
}

const defaultContentType = "application/octet-stream"

func (o PutOptions) contentType() string {
	if o.ContentType == "" {
		return defaultContentType
	}
	return o.ContentType
}

// maxKey is S3's limit on a key, in bytes, prefix included.
const maxKey = 1024

// checkKey refuses keys that would not name the same object in both stores.
func checkKey(op, key string) error {
	bad := key == "" || len(key) > maxKey || strings.ContainsFunc(key, unicode.IsControl) || strings.HasPrefix(key, metaDir)
	for part := range strings.SplitSeq(key, "/") {
		bad = bad || part == "" || part == "." || part == ".."
	}
	if !bad {
		return nil
	}
	return fault.Newf(fault.System, fault.StoreFailed, op, "",
		"key %q is not usable: 1 to %d bytes, parts separated by single slashes, no \".\" or \"..\", no control characters", key, maxKey)
}

// verifier passes bytes on and fails at their end if they are not those that
// were written.
type verifier struct {
	ctx    context.Context //nolint:containedctx // belongs to one request, like the body it wraps
	body   io.ReadCloser
	object Object
	op     string
	hash   interface {
		io.Writer
		Sum(b []byte) []byte
	}
	read int64
	wrap func(ctx context.Context, err error, op string) error
}

func newVerifier(ctx context.Context, body io.ReadCloser, object Object, op string,
	wrap func(ctx context.Context, err error, op string) error,
) *verifier {
	return &verifier{ctx: ctx, body: body, object: object, op: op, hash: sha256.New(), wrap: wrap}
}

// Read reads on; at the end of the object it compares the digest.
func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.body.Read(p)
	_, _ = v.hash.Write(p[:n]) // a hash never fails
	v.read += int64(n)
	switch {
	case errors.Is(err, io.EOF):
		if damage := v.compare(); damage != nil {
			return n, damage
		}
		return n, io.EOF
	case err != nil:
		return n, v.wrap(v.ctx, err, v.op)
	}
	return n, nil
}

func (v *verifier) compare() error {
	got := hex.EncodeToString(v.hash.Sum(nil))
	if got == v.object.SHA256 {
		return nil
	}
	return damaged(v.op, fmt.Sprintf("%d bytes with SHA-256 %s were read, SHA-256 %s was written",
		v.read, got, v.object.SHA256))
}

// Close ends reading. An object that was not read to its end is not verified.
func (v *verifier) Close() error { return v.body.Close() }

func damaged(op, detail string) error {
	return fault.Newf(fault.System, fault.StoreFailed, op,
		"Find out what changed the object; bucket versioning keeps earlier versions", "%w: %s", ErrDamaged, detail)
}
