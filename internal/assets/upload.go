package assets

import (
	"bytes"
	"cmp"
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	tmtypes "github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/aphex-pipeline/aphex/internal/awserr"
)

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

// send uploads the asset to one destination.
func (p *Publisher) send(ctx context.Context, f File, c *content) error {
	to := client(f)
	e, err := p.bucketEncryption(ctx, to, f.Bucket)
	if err != nil {
		return err
	}
	kind := "application/zip"
	if !f.Zip {
		kind = cmp.Or(f.ContentType, contentType(f.Path))
	}
	var key *string
	if e.key != "" {
		key = aws.String(e.key)
	}
	if c.large {
		return c.stream(ctx, to, &transfermanager.UploadObjectInput{
			Bucket: aws.String(f.Bucket), Key: aws.String(f.Key), ContentType: aws.String(kind),
			ChecksumAlgorithm: tmtypes.ChecksumAlgorithmSha256, ExpectedBucketOwner: p.expected(f.Bucket),
			ServerSideEncryption: tmtypes.ServerSideEncryption(e.algorithm), SSEKMSKeyID: key,
		})
	}
	_, err = to.PutObject(ctx, &s3.PutObjectInput{
		Bucket: aws.String(f.Bucket), Key: aws.String(f.Key), ContentType: aws.String(kind), Body: bytes.NewReader(c.data),
		ChecksumSHA256: aws.String(c.sum), ExpectedBucketOwner: p.expected(f.Bucket),
		ServerSideEncryption: e.algorithm, SSEKMSKeyId: key,
	})
	return err
}

// stream uploads a large asset in parts. A reader that fails half-way aborts
// the upload, so that no truncated object can appear. Destinations of one asset
// take turns, in the memory of one.
func (c *content) stream(ctx context.Context, to *s3.Client, in *transfermanager.UploadObjectInput) error {
	if err := c.streaming.Acquire(ctx, 1); err != nil {
		return awserr.Ended(ctx, "publish assets")
	}
	defer c.streaming.Release(1)
	body, err := c.open()
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	in.Body = body
	_, err = transfermanager.New(to, func(o *transfermanager.Options) {
		o.Concurrency, o.PartSizeBytes, o.MultipartUploadThreshold = partsAtOnce, partSize, partSize
	}).UploadObject(ctx, in)
	return err
}
