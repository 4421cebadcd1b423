package assets

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

const (
	// requestsAtOnce is how many assets are looked for or sent at a time.
	requestsAtOnce = 64
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

	// requests and packages may go on at a time; memory is for contents.
	requests, packages, memory *semaphore.Weighted
	reading                    singleflight.Group

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
	return &Publisher{
		dir: dir, owner: owner, note: note, encryption: map[string]encryption{}, abroad: map[string]bool{},
		requests: semaphore.NewWeighted(requestsAtOnce), packages: semaphore.NewWeighted(packagesAtOnce), memory: semaphore.NewWeighted(memory),
	}
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
// already there are left alone. What goes to several destinations is read,
// packaged and hashed once, unless it is large. It returns when nothing is going
// on any more.
//
// Errors: NotBootstrapped if a bucket does not exist, AssetFailed,
// AWSUnavailable, Cancelled or the cause of ctx.
func (p *Publisher) Publish(ctx context.Context, files []File) (Summary, error) {
	var published, present atomic.Int64
	group, groupCtx := errgroup.WithContext(ctx)
	for _, same := range bySource(unique(files)) {
		group.Go(func() error {
			sent, err := p.publish(groupCtx, same)
			published.Add(int64(sent))
			present.Add(int64(len(same) - sent))
			return err
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

// bySource puts files together that are the same bytes for different
// destinations.
func bySource(files []File) [][]File {
	var out [][]File
	type source struct {
		path string
		zip  bool
	}
	places := map[source]int{}
	for _, f := range files {
		key := source{f.Path, f.Zip}
		i, ok := places[key]
		if !ok {
			i, out = len(out), append(out, nil)
			places[key] = i
		}
		out[i] = append(out[i], f)
	}
	return out
}

// each does something for all files at the same time, as far as requests may go
// on, and explains what fails.
func (p *Publisher) each(ctx context.Context, files []File, do func(ctx context.Context, i int) error) error {
	group, groupCtx := errgroup.WithContext(ctx)
	for i, f := range files {
		group.Go(func() error {
			if err := p.requests.Acquire(groupCtx, 1); err != nil {
				return awserr.Ended(groupCtx, "publish assets")
			}
			defer p.requests.Release(1)
			if err := do(groupCtx, i); err != nil {
				return p.explain(groupCtx, f, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// publish brings one source to its destinations and returns to how many.
func (p *Publisher) publish(ctx context.Context, files []File) (int, error) {
	there := make([]bool, len(files))
	err := p.each(ctx, files, func(ctx context.Context, i int) (err error) {
		there[i], err = p.look(ctx, files[i])
		return err
	})
	if err != nil {
		return 0, err
	}
	var missing []File
	for i, f := range files {
		if there[i] && !p.force {
			p.note(fmt.Sprintf("asset %s is already at %s", f.Name, f))
			continue
		}
		missing = append(missing, f)
	}
	if len(missing) == 0 {
		return 0, nil
	}
	c, err := p.load(ctx, missing[0])
	if err != nil {
		return 0, p.explain(ctx, missing[0], err)
	}
	defer c.release()
	var sent atomic.Int64
	err = p.each(ctx, missing, func(ctx context.Context, i int) error {
		if err := p.send(ctx, missing[i], c); err != nil {
			return err
		}
		p.note(fmt.Sprintf("asset %s published to %s", missing[i].Name, missing[i]))
		sent.Add(1)
		return nil
	})
	return int(sent.Load()), err
}

func client(f File) *s3.Client {
	return s3.NewFromConfig(f.AWS, func(o *s3.Options) {
		// Buckets of an endpoint of one's own are no host names there.
		o.UsePathStyle = f.AWS.BaseEndpoint != nil
	})
}

// look returns whether the object is there already.
func (p *Publisher) look(ctx context.Context, f File) (bool, error) {
	there, err := p.present(ctx, client(f), f)
	if again, foreignErr := p.meantToBeForeign(ctx, f.Bucket, err); foreignErr != nil {
		return false, foreignErr
	} else if again {
		return p.present(ctx, client(f), f)
	}
	return there, err
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
