package assets

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	tmtypes "github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/aphex-pipeline/aphex/internal/archive"
	"github.com/aphex-pipeline/aphex/internal/awserr"
)

// partsAtOnce bounds the memory of one upload: that many parts of 8 MiB.
const partsAtOnce = 2

// encryption is how objects of a bucket are to be encrypted; the zero value
// leaves it to the bucket.
type encryption struct {
	algorithm s3types.ServerSideEncryption
	key       string
}

// bucketEncryption reads a bucket's default encryption once, whoever asks.
func (p *Publisher) bucketEncryption(ctx context.Context, client *s3.Client, bucket string) (encryption, error) {
	found, err, _ := p.reading.Do(bucket, func() (any, error) { return p.readEncryption(ctx, client, bucket) })
	if err != nil {
		return encryption{}, err
	}
	known, _ := found.(encryption) // it is one
	return known, nil
}

func (p *Publisher) readEncryption(ctx context.Context, client *s3.Client, bucket string) (encryption, error) {
	p.mu.Lock()
	known, ok := p.encryption[bucket]
	p.mu.Unlock()
	if ok {
		return known, nil
	}
	out, err := client.GetBucketEncryption(ctx, &s3.GetBucketEncryptionInput{Bucket: aws.String(bucket), ExpectedBucketOwner: p.expected(bucket)})
	var found encryption
	switch {
	case awserr.AccessDenied(err), awserr.Code(err) == "ServerSideEncryptionConfigurationNotFoundError":
	case err != nil:
		return encryption{}, err
	default:
		found = defaultEncryption(out.ServerSideEncryptionConfiguration)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.encryption[bucket] = found
	return found, nil
}

func defaultEncryption(c *s3types.ServerSideEncryptionConfiguration) encryption {
	if c == nil {
		return encryption{}
	}
	for _, rule := range c.Rules {
		if d := rule.ApplyServerSideEncryptionByDefault; d != nil {
			return encryption{algorithm: d.SSEAlgorithm, key: aws.ToString(d.KMSMasterKeyID)}
		}
	}
	return encryption{}
}

// upload streams the asset. A reader that fails half-way aborts the upload, so
// that no truncated object can appear.
func (p *Publisher) upload(ctx context.Context, client *s3.Client, f File, e encryption) error {
	body, contentType, err := p.open(f)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	in := &transfermanager.UploadObjectInput{
		Bucket: aws.String(f.Bucket), Key: aws.String(f.Key), Body: body, ContentType: aws.String(contentType),
		ChecksumAlgorithm: tmtypes.ChecksumAlgorithmSha256, ExpectedBucketOwner: p.expected(f.Bucket),
		ServerSideEncryption: tmtypes.ServerSideEncryption(e.algorithm),
	}
	if e.key != "" {
		in.SSEKMSKeyID = aws.String(e.key)
	}
	_, err = transfermanager.New(client, func(o *transfermanager.Options) { o.Concurrency = partsAtOnce }).UploadObject(ctx, in)
	return err
}

// open returns the bytes of the asset. The caller closes them.
func (p *Publisher) open(f File) (io.ReadCloser, string, error) {
	name, info, err := p.source(f)
	switch {
	case err != nil:
		return nil, "", err
	case f.Zip && !info.IsDir():
		return nil, "", fmt.Errorf("%s is not a folder, and only folders are packaged", f.Path)
	case !f.Zip && !info.Mode().IsRegular():
		return nil, "", fmt.Errorf("%s is not a regular file", f.Path)
	case f.Zip:
		return zipped(name), "application/zip", nil
	}
	file, err := os.Open(name)
	return file, cmp.Or(f.ContentType, contentType(f.Path)), err
}

// zipStream is an archive being made while it is read. Closing it ends the
// goroutine that makes it, and waits.
type zipStream struct {
	*io.PipeReader
	done chan struct{}
}

func zipped(dir string) *zipStream {
	reader, writer := io.Pipe()
	s := &zipStream{PipeReader: reader, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		writer.CloseWithError(archive.Zip(writer, dir))
	}()
	return s
}

func (s *zipStream) Close() error {
	err := s.CloseWithError(errors.New("nobody reads the archive any more"))
	<-s.done
	return err
}
