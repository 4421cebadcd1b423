package assets

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

const (
	// looksAtOnce is how many assets are looked for at a time, uploadsAtOnce how
	// many are sent: those take memory.
	looksAtOnce, uploadsAtOnce = 32, 8
	// emptyZip is the size of a zip archive without entries. An object of at
	// most this size is taken for a broken upload and published again.
	emptyZip = 22
)

// File is one file or folder for one destination.
type File struct {
	// ID is the asset's id; Name is for people.
	ID, Name string
	// Path is the source, relative to the assembly's folder, slash-separated.
	Path string
	// Zip packages the folder at Path; otherwise the file is sent as it is.
	Zip bool
	// ContentType of the object; empty for the one that Path implies.
	ContentType string
	// Bucket and Key are where it goes, without placeholders.
	Bucket, Key string
	// AWS has the credentials to publish with, and the bucket's region.
	AWS aws.Config
}

func (f File) String() string { return fmt.Sprintf("s3://%s/%s", f.Bucket, f.Key) }

// Summary counts what Publish did.
type Summary struct {
	// Published and Present are objects; each destination counts once.
	Published, Present int
}

// Publisher publishes the assets of one assembly. It is safe for concurrent
// use.
type Publisher struct {
	dir, owner string
	note       func(string)

	// force publishes also what is there already.
	force bool
	// foreign says whether buckets may belong to another account; nil: never.
	foreign func(ctx context.Context) (bool, error)

	// uploading has a place for each upload that may go on.
	uploading chan struct{}
	reading   singleflight.Group

	mu         sync.Mutex
	encryption map[string]encryption
	// abroad are buckets that belong to another account, which is allowed.
	abroad map[string]bool
}

// New returns a Publisher of the assembly in dir. owner is the account that
// must own every bucket: a bucket of the right name in foreign hands would
// otherwise receive, and later supply, code. note receives a sentence for the
// log per object; it may be nil and must be safe for concurrent use.
func New(dir, owner string, note func(string)) *Publisher {
	if note == nil {
		note = func(string) {}
	}
	return &Publisher{dir: dir, owner: owner, note: note, encryption: map[string]encryption{}, abroad: map[string]bool{}, uploading: make(chan struct{}, uploadsAtOnce)}
}

// AllowForeign lets allowed decide, once a bucket turns out to belong to
// another account, whether that is meant. It must be called before Publish.
func (p *Publisher) AllowForeign(allowed func(ctx context.Context) (bool, error)) {
	p.foreign = allowed
}

// Force publishes also what is there already. It must be called before Publish.
func (p *Publisher) Force() { p.force = true }

// expected is the account that must own a bucket; nil if any may.
func (p *Publisher) expected(bucket string) *string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.abroad[bucket] {
		return nil
	}
	return aws.String(p.owner)
}

// meantToBeForeign decides what a refusal means that may come from the owner
// of the bucket being another account.
func (p *Publisher) meantToBeForeign(ctx context.Context, bucket string, refusal error) (bool, error) {
	if !awserr.AccessDenied(refusal) || p.foreign == nil || p.expected(bucket) == nil {
		return false, nil
	}
	allowed, err := p.foreign(ctx)
	if err != nil || !allowed {
		return false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.abroad[bucket] = true
	return true, nil
}

// Publish brings every file to its destination, several at a time; those
// already there are left alone. It returns when nothing is going on any more.
//
// Errors: NotBootstrapped if a bucket does not exist, AssetFailed,
// AWSUnavailable, Cancelled or the cause of ctx.
func (p *Publisher) Publish(ctx context.Context, files []File) (Summary, error) {
	var published, present atomic.Int64
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(looksAtOnce)
	for _, f := range unique(files) {
		group.Go(func() error {
			done, err := p.publish(groupCtx, f)
			if err != nil {
				return p.explain(groupCtx, f, err)
			}
			if done {
				published.Add(1)
			} else {
				present.Add(1)
			}
			return nil
		})
	}
	err := group.Wait()
	if err != nil && ctx.Err() != nil {
		err = awserr.Ended(ctx, "publish assets")
	}
	return Summary{Published: int(published.Load()), Present: int(present.Load())}, err
}

// unique drops files that go to the same place: a key stands for its content.
func unique(files []File) []File {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(files), func(f File) bool {
		key := f.AWS.Region + " " + f.String()
		again := seen[key]
		seen[key] = true
		return again
	})
}

// publish returns false if the object was there already.
func (p *Publisher) publish(ctx context.Context, f File) (bool, error) {
	client := s3.NewFromConfig(f.AWS, func(o *s3.Options) {
		// Buckets of an endpoint of one's own are no host names there.
		o.UsePathStyle = f.AWS.BaseEndpoint != nil
	})
	there, err := p.present(ctx, client, f)
	if again, foreignErr := p.meantToBeForeign(ctx, f.Bucket, err); foreignErr != nil {
		return false, foreignErr
	} else if again {
		there, err = p.present(ctx, client, f)
	}
	if err != nil {
		return false, err
	}
	if there && !p.force {
		p.note(fmt.Sprintf("asset %s is already at %s", f.Name, f))
		return false, nil
	}
	encryption, err := p.bucketEncryption(ctx, client, f.Bucket)
	if err != nil {
		return false, err
	}
	select {
	case p.uploading <- struct{}{}:
	case <-ctx.Done():
		return false, awserr.Ended(ctx, "publish assets")
	}
	err = p.upload(ctx, client, f, encryption)
	<-p.uploading
	if err != nil {
		return false, err
	}
	p.note(fmt.Sprintf("asset %s published to %s", f.Name, f))
	return true, nil
}

// present asks by listing, because without permission to list a HEAD of an
// absent object is refused like one of a forbidden object.
func (p *Publisher) present(ctx context.Context, client *s3.Client, f File) (bool, error) {
	out, err := client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{
		Bucket: aws.String(f.Bucket), Prefix: aws.String(f.Key), MaxKeys: aws.Int32(1), ExpectedBucketOwner: p.expected(f.Bucket),
	})
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(out.Contents, func(o s3types.Object) bool {
		return aws.ToString(o.Key) == f.Key && aws.ToInt64(o.Size) > emptyZip
	}), nil
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

// explain turns a failure into what a user needs to know.
func (p *Publisher) explain(ctx context.Context, f File, err error) error {
	op := fmt.Sprintf("publish asset %s to %s", f.Name, f)
	code := awserr.Code(err)
	_, isFault := errors.AsType[*fault.Fault](err)
	switch {
	case isFault || ctx.Err() != nil:
		return awserr.Fault(ctx, err, op)
	case code == "NoSuchBucket" || code == "NotFound":
		return fault.Newf(fault.User, fault.NotBootstrapped, op, fmt.Sprintf("Bootstrap the environment: cdk bootstrap aws://%s/%s", p.owner, f.AWS.Region),
			"bucket %s does not exist", f.Bucket)
	case awserr.AccessDenied(err):
		return fault.Newf(fault.User, fault.AssetFailed, op,
			fmt.Sprintf("Check that bucket %s belongs to account %s and that the publishing role may list and write it", f.Bucket, p.owner), "%w", awserr.Brief(err))
	case awserr.Temporary(err), awserr.ExpiredCredentials(err):
		return awserr.Fault(ctx, err, op)
	default:
		return fault.Newf(fault.User, fault.AssetFailed, op, "", "%w", awserr.Brief(err))
	}
}
