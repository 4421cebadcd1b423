package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	tmtypes "github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// digestKey is the user metadata that holds an object's SHA-256 in
// hexadecimal. S3's own checksum of a multipart upload covers the parts, not
// the object, so it cannot serve.
const digestKey = "aphex-sha256"

// putKey is the user metadata that tells one conditional Put from another.
const putKey = "aphex-put"

// Parts of 16 MiB: the largest object is then 160 GB (10 000 parts), and four
// in flight take 64 MiB of memory.
const (
	partSize    = 16 << 20
	partsFlying = 4
)

// Put with IfAbsent is tried so often where another writer is at the same key,
// after pauses that double: 0.2 s, 0.4 s, 0.8 s, 1.6 s.
const (
	conflictTries = 5
	conflictPause = 200 * time.Millisecond
)

// abortTimeout bounds giving up a multipart upload that failed.
const abortTimeout = 15 * time.Second

// S3 keeps objects in a bucket, below a prefix. Safe for concurrent use.
type S3 struct {
	client   *s3.Client
	transfer *transfermanager.Client
	bucket   string
	prefix   string
}

// NewS3 returns the store in bucket below prefix ("" or "team/shop"). The
// endpoint, region, credentials and retries are those of cfg; an endpoint
// that is an IP address or localhost is addressed in path style, since a
// bucket cannot be a subdomain of it.
func NewS3(cfg aws.Config, bucket, prefix string) *S3 {
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.UsePathStyle = pathStyle(aws.ToString(o.BaseEndpoint))
		// Objects in parts have no checksum S3 could answer with; ours is in
		// the metadata.
		o.DisableLogOutputChecksumValidationSkipped = true
	})
	transfer := transfermanager.New(client, func(o *transfermanager.Options) {
		o.PartSizeBytes = partSize
		o.MultipartUploadThreshold = partSize
		o.Concurrency = partsFlying
		o.ChecksumAlgorithm = tmtypes.ChecksumAlgorithmSha256
		o.FailTimeout = abortTimeout
	})
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	return &S3{client: client, transfer: transfer, bucket: bucket, prefix: prefix}
}

func pathStyle(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	host := u.Hostname()
	return net.ParseIP(host) != nil || host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// Put stores body at key and returns when S3 has acknowledged it. Large bodies
// go in parts; one that is no io.Seeker is first copied to a temporary file,
// because its digest is stored with it.
//
// Errors: StoreFailed, wrapping [ErrExists] or [ErrChanged] as documented at
// [PutOptions]; AWSUnavailable; Cancelled.
func (s *S3) Put(ctx context.Context, key string, body io.Reader, opts PutOptions) (Object, error) {
	op := "store " + s.URL(key)
	if err := checkKey(op, key); err != nil {
		return Object{}, err
	}
	prepared, err := prepare(ctx, body)
	if err != nil {
		if ctx.Err() != nil {
			return Object{}, awserr.Ended(ctx, op)
		}
		return Object{}, fault.Wrap(fault.System, fault.StoreFailed, op, "", err)
	}
	defer prepared.release()
	input := &transfermanager.UploadObjectInput{
		Bucket: aws.String(s.bucket), Key: aws.String(s.prefix + key),
		ContentType: aws.String(opts.contentType()),
		Metadata:    map[string]string{digestKey: prepared.sha256},
	}
	if len(opts.Tags) > 0 {
		input.Tagging = aws.String(encodeTags(opts.Tags))
	}
	conditions(input, opts)
	version, err := s.upload(ctx, input, prepared)
	if err != nil {
		var ours bool
		if version, ours = s.ours(ctx, err, key, input.Metadata[putKey]); !ours {
			err = s.fault(ctx, err, op, "s3:PutObject and s3:PutObjectTagging")
			if opts.Replaces != "" && (errors.Is(err, ErrExists) || errors.Is(err, ErrNotFound)) {
				err = fault.Newf(fault.System, fault.StoreFailed, op, "", "%w", ErrChanged)
			}
			return Object{}, err
		}
	}
	return Object{
		Key: key, URL: s.URL(key), Size: prepared.size, SHA256: prepared.sha256, Version: version,
		ContentType: opts.contentType(), Tags: opts.Tags,
	}, nil
}

// conditions makes S3 look at what is there first.
func conditions(input *transfermanager.UploadObjectInput, opts PutOptions) {
	if opts.IfAbsent {
		input.IfNoneMatch = aws.String("*")
	}
	if opts.Replaces != "" {
		input.IfMatch = aws.String(opts.Replaces)
	}
	if opts.IfAbsent || opts.Replaces != "" {
		input.Metadata[putKey] = rand.Text()
	}
}

// upload sends the body. A conditional Put that meets another one on its way is
// sent again, as S3 asks for: it finds out then who was first.
func (s *S3) upload(ctx context.Context, input *transfermanager.UploadObjectInput, content io.ReadSeeker) (version string, err error) {
	pause := conflictPause
	for try := 1; ; try++ {
		input.Body = content
		output, err := s.transfer.UploadObject(ctx, input)
		if err == nil {
			return aws.ToString(output.ETag), nil
		}
		if awserr.Code(err) != "ConditionalRequestConflict" || try == conflictTries {
			return "", err
		}
		select {
		case <-ctx.Done():
			return "", err
		case <-time.After(pause):
		}
		pause *= 2
		if _, err := content.Seek(0, io.SeekStart); err != nil {
			return "", err
		}
	}
}

// ours reports whether the object that made a conditional Put fail is the one
// this very Put wrote: an attempt took effect, its answer was lost and the
// SDK tried again.
func (s *S3) ours(ctx context.Context, err error, key, id string) (version string, ours bool) {
	if awserr.Code(err) != "PreconditionFailed" || id == "" {
		return "", false
	}
	head, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: aws.String(s.bucket), Key: aws.String(s.prefix + key)})
	if err != nil || head.Metadata[putKey] != id {
		return "", false
	}
	return aws.ToString(head.ETag), true
}

func encodeTags(tags map[string]string) string {
	values := url.Values{}
	for key, value := range tags {
		values.Set(key, value)
	}
	return values.Encode() // sorted by key
}

// Get opens the object at key; the caller closes it. Reading fails at the end
// with [ErrDamaged] unless the digest is the one recorded by Put.
//
// Errors: StoreFailed, wrapping [ErrNotFound] or [ErrDamaged];
// AWSUnavailable; Cancelled.
func (s *S3) Get(ctx context.Context, key string) (io.ReadCloser, Object, error) {
	op := "read " + s.URL(key)
	if err := checkKey(op, key); err != nil {
		return nil, Object{}, err
	}
	output, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(s.bucket), Key: aws.String(s.prefix + key)})
	if err != nil {
		return nil, Object{}, s.fault(ctx, err, op, "s3:GetObject")
	}
	object := Object{
		Key: key, URL: s.URL(key), Size: sizeOf(output.ContentLength), ContentType: aws.ToString(output.ContentType),
		SHA256: output.Metadata[digestKey], Version: aws.ToString(output.ETag),
	}
	if object.SHA256 == "" {
		_ = output.Body.Close()
		return nil, object, damaged(op, "it has no recorded digest, so it was not written by aphex")
	}
	wrap := func(ctx context.Context, err error, op string) error { return s.readFault(ctx, err, op) }
	return newVerifier(ctx, output.Body, object, op, wrap), object, nil
}

// Head describes the object at key without reading it: what Get says of it,
// and when it was stored.
//
// Errors: StoreFailed, wrapping [ErrNotFound]; AWSUnavailable; Cancelled.
func (s *S3) Head(ctx context.Context, key string) (Object, error) {
	op := "look at " + s.URL(key)
	if err := checkKey(op, key); err != nil {
		return Object{}, err
	}
	head, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: aws.String(s.bucket), Key: aws.String(s.prefix + key)})
	if err != nil {
		return Object{}, s.fault(ctx, err, op, "s3:GetObject and s3:ListBucket")
	}
	return Object{
		Key: key, URL: s.URL(key), Size: sizeOf(head.ContentLength), ContentType: aws.ToString(head.ContentType),
		SHA256: head.Metadata[digestKey], Version: aws.ToString(head.ETag), Modified: aws.ToTime(head.LastModified),
	}, nil
}

// sizeOf is -1 for a length that a proxy on the way left out.
func sizeOf(length *int64) int64 {
	if length == nil {
		return -1
	}
	return *length
}

// List returns the objects whose keys begin with prefix, sorted by key, with
// key, URL, size and time.
//
// Errors: StoreFailed, AWSUnavailable, Cancelled.
func (s *S3) List(ctx context.Context, prefix string) ([]Object, error) {
	pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{
		Bucket: aws.String(s.bucket), Prefix: aws.String(s.prefix + prefix),
	})
	var objects []Object
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, s.fault(ctx, err, "list "+s.URL(prefix), "s3:ListBucket")
		}
		for _, item := range page.Contents {
			key := strings.TrimPrefix(aws.ToString(item.Key), s.prefix)
			objects = append(objects, Object{Key: key, URL: s.URL(key), Size: aws.ToInt64(item.Size), Modified: aws.ToTime(item.LastModified)})
		}
	}
	sortObjects(objects)
	return objects, nil
}

// Tags returns the tags of the object at key.
//
// Errors: StoreFailed, wrapping [ErrNotFound]; AWSUnavailable; Cancelled.
func (s *S3) Tags(ctx context.Context, key string) (map[string]string, error) {
	op := "read the tags of " + s.URL(key)
	if err := checkKey(op, key); err != nil {
		return nil, err
	}
	output, err := s.client.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: aws.String(s.bucket), Key: aws.String(s.prefix + key)})
	if err != nil {
		return nil, s.fault(ctx, err, op, "s3:GetObjectTagging")
	}
	var tags map[string]string
	for _, tag := range output.TagSet {
		if tags == nil {
			tags = map[string]string{}
		}
		tags[aws.ToString(tag.Key)] = aws.ToString(tag.Value)
	}
	return tags, nil
}

// URL returns the s3:// URL of key, whether or not there is an object.
func (s *S3) URL(key string) string { return "s3://" + s.bucket + "/" + s.prefix + key }

// fault classifies err; permission is what the operation needs.
func (s *S3) fault(ctx context.Context, err error, op, permission string) error {
	if ctx.Err() != nil {
		return awserr.Ended(ctx, op)
	}
	status := 0
	if response, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		status = response.HTTPStatusCode()
	}
	code := awserr.Code(err)
	brief := awserr.Brief(err)
	switch {
	case code == "NoSuchBucket":
		return fault.Newf(fault.User, fault.StoreFailed, op,
			"Create the bucket, or correct the pipeline's bucket setting", "bucket %s does not exist in this region: %w", s.bucket, brief)
	case code == "NoSuchKey" || code == "NotFound" || status == http.StatusNotFound:
		return fault.Newf(fault.System, fault.StoreFailed, op, "", "%w: %w", ErrNotFound, brief)
	case code == "ConditionalRequestConflict":
		return fault.Newf(fault.Transient, fault.StoreFailed, op, "Retry the run", "another writer is storing the same key: %w", brief)
	case code == "PreconditionFailed":
		return fault.Newf(fault.System, fault.StoreFailed, op, "", "%w: %w", ErrExists, brief)
	case awserr.AccessDenied(err) || status == http.StatusForbidden && !awserr.ExpiredCredentials(err):
		return fault.Newf(fault.User, fault.StoreFailed, op,
			"Allow "+permission+" on bucket "+s.bucket+" (and its key, if it is encrypted with one) to the identity of the pipeline", "%w", brief)
	}
	classified := awserr.Fault(ctx, err, op)
	if f, ok := errors.AsType[*fault.Fault](classified); ok && f.Reason == fault.AWSRejected {
		return fault.Wrap(fault.System, fault.StoreFailed, op, f.Remedy, f.Err)
	}
	return classified
}

// readFault classifies an error in the middle of an object: the connection.
func (s *S3) readFault(ctx context.Context, err error, op string) error {
	if ctx.Err() != nil {
		return awserr.Ended(ctx, op)
	}
	return fault.Newf(fault.Transient, fault.AWSUnavailable, op, "Retry the run", "the object broke off: %w", err)
}

func sortObjects(objects []Object) {
	slices.SortFunc(objects, func(a, b Object) int { return cmp.Compare(a.Key, b.Key) })
}
