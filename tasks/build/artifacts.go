package build

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/bytesize"
	"github.com/aphex-pipeline/aphex/internal/count"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
	"github.com/aphex-pipeline/aphex/internal/redact"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
	"github.com/aphex-pipeline/aphex/tasks/task"
)

const (
	// maxArtifactName is how long a path may be, in bytes: S3 allows keys of
	// 1,024, of which the bucket's prefix, commit and digest take a part.
	maxArtifactName = 768
	// uploadSlots bounds how many artifacts are stored at the same time.
	uploadSlots = 4
	// largeArtifact is the size in bytes from which an artifact takes all slots:
	// the store sends it in parts, several at the same time by itself.
	largeArtifact = 16 << 20
)

// published is what became of the artifacts.
type published struct {
	artifacts []record.Artifact
	// differing counts those unlike what an earlier build of the commit stored.
	differing int
	// instead says what stands where the folder should be; empty if it is one,
	// or nothing.
	instead string
}

// String is the published part of the stage's message.
func (p published) String() string {
	text := count.Of(len(p.artifacts), "artifact")
	if p.differing > 0 {
		text += fmt.Sprintf(" (%d unlike an earlier build's)", p.differing)
	}
	if p.instead != "" {
		text += fmt.Sprintf(" (warning: %s)", p.instead)
	}
	return text
}

// publish stores every regular file below folder (relative to the checkout)
// under <commit>/, tagged with commit and time, and the list of them under the
// run's key. A folder that does not exist means no artifacts; so does what is
// no folder, which is said.
//
// Nothing that is there is overwritten: equal bytes stay, others are kept
// beside them. It may be repeated at any point: the list is the same then.
func (s *Stage) publish(ctx context.Context, req task.Request, folder string, secrets []string, out io.Writer) (published, error) {
	dir := path.Join(worker.SourceDir, folder)
	found, err := s.cfg.Trees.Stat(ctx, []string{dir})
	if err != nil {
		return published{}, err
	}
	p := &publication{stage: s, req: req, out: out, at: s.now().UTC().Truncate(time.Second)} // as the tag has it
	if len(secrets) > 0 {
		p.secrets = redact.NewFinder(secrets...)
	}
	instead := ""
	switch {
	case len(found) == 0:
	case found[0].Mode.IsDir():
		if err := p.upload(ctx, dir); err != nil {
			return published{}, err
		}
	default:
		kind := "a file"
		if found[0].Mode&fs.ModeSymlink != 0 {
			kind = "a symbolic link, which is not followed"
		}
		instead = fmt.Sprintf("nothing is published: %s (build.artifacts) is no folder but %s", folder, kind)
		if err := p.say("warning: %s", instead); err != nil {
			return published{}, err
		}
	}
	result := p.result()
	result.instead = instead
	return result, s.records.PutArtifacts(ctx, req.Run.UID, req.Commit, p.at, result.artifacts)
}

// publication is one call of publish.
type publication struct {
	stage *Stage
	req   task.Request
	at    time.Time
	mu    sync.Mutex // guards out: artifacts are stored several at the same time
	out   io.Writer
	// secrets are looked for in every artifact; nil if there are none.
	secrets *redact.Finder
	// there are the keys of the commit that have an object already.
	there map[string]struct{}
	// artifacts are in the order of the folder; each is filled in when it is
	// stored.
	artifacts []*record.Artifact
}

func (p *publication) result() published {
	result := published{artifacts: make([]record.Artifact, 0, len(p.artifacts))}
	for _, artifact := range p.artifacts {
		result.artifacts = append(result.artifacts, *artifact)
		if artifact.DiffersFrom != "" {
			result.differing++
		}
	}
	return result
}

func (p *publication) upload(ctx context.Context, dir string) error {
	prefix := record.ArtifactPrefix(p.req.Commit)
	listed, err := p.stage.cfg.Store.List(ctx, prefix)
	if err != nil {
		return fmt.Errorf("list the artifacts of the commit: %w", err)
	}
	p.there = make(map[string]struct{}, len(listed))
	for _, object := range listed {
		p.there[object.Key] = struct{}{}
	}
	tree, err := p.stage.cfg.Trees.ReadTree(ctx, dir, nil)
	if err != nil {
		return err
	}
	return errors.Join(p.uploadTar(ctx, tree), tree.Close())
}

// uploadTar stores the files of a tar stream, several at the same time. One is
// read ahead; small ones are kept in memory, others in temporary files.
func (p *publication) uploadTar(ctx context.Context, tree io.Reader) error {
	group, uploads := errgroup.WithContext(ctx)
	slots := semaphore.NewWeighted(uploadSlots)
	err := p.each(uploads, tree, func(name string, body *store.Body) error {
		weight := int64(1)
		if body.Size() >= largeArtifact {
			weight = uploadSlots
		}
		if err := slots.Acquire(uploads, weight); err != nil {
			body.Close()
			return err
		}
		artifact := &record.Artifact{}
		p.artifacts = append(p.artifacts, artifact)
		group.Go(func() (err error) {
			defer slots.Release(weight)
			defer body.Close()
			*artifact, err = p.store(uploads, name, body)
			return err
		})
		return nil
	})
	if uploadErr := group.Wait(); uploadErr != nil {
		return uploadErr // the cause, if reading ended too
	}
	if ctx.Err() != nil {
		return awserr.Ended(ctx, "publish the artifacts")
	}
	return err
}

// each calls fn for every regular file of a tar stream.
func (p *publication) each(ctx context.Context, tree io.Reader, fn func(name string, body *store.Body) error) error {
	for files := tar.NewReader(tree); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the artifacts: %w", err)
		}
		name := path.Clean(header.Name)
		if header.Typeflag == tar.TypeSymlink {
			if err := p.say("artifact %q is a symbolic link, which is not published", name); err != nil {
				return err
			}
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		if err := checkArtifactName(name); err != nil {
			return err
		}
		if worker.IsSparse(header) {
			return fault.Newf(fault.System, fault.ArtifactRefused, "publish artifact "+name, "Find out what answers for the worker", "it was sent with holes")
		}
		body, err := store.Spool(ctx, files)
		if err != nil {
			return fmt.Errorf("read artifact %s: %w", name, err)
		}
		if err := p.refuseSecrets(name, body); err != nil {
			body.Close()
			return err
		}
		if err := fn(name, body); err != nil {
			return err
		}
	}
}

// refuseSecrets refuses an artifact with the value of a secret.
func (p *publication) refuseSecrets(name string, body *store.Body) error {
	if p.secrets == nil {
		return nil
	}
	if _, err := io.Copy(p.secrets, body); err != nil {
		return fmt.Errorf("read artifact %s: %w", name, err)
	}
	if p.secrets.Found() {
		return fault.Newf(fault.User, fault.SecretLeaked, "publish artifact "+name, "Do not write secrets to artifacts", "it has the value of a secret of build.secrets")
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read artifact %s: %w", name, err)
	}
	return nil
}

// checkArtifactName refuses names that no object can have, or no list.
func checkArtifactName(name string) error {
	problem := ""
	switch {
	case !filepath.IsLocal(name) || name == ".":
		problem = "it leads out of the folder"
	case !utf8.ValidString(name):
		problem = "it is not UTF-8"
	case strings.ContainsFunc(name, unicode.IsControl):
		problem = "it has control characters"
	case len(name) > maxArtifactName:
		problem = fmt.Sprintf("it has %d bytes, allowed are %d", len(name), maxArtifactName)
	default:
		return nil
	}
	shown := name[:min(len(name), maxArtifactName)]
	return fault.Newf(fault.User, fault.ArtifactRefused, fmt.Sprintf("publish artifact %q", shown), "Rename the file, or pack it into an archive", "its path cannot be used: %s", problem)
}

// store keeps one artifact, beside what an earlier build of the commit stored
// if that is different.
func (p *publication) store(ctx context.Context, name string, body *store.Body) (record.Artifact, error) {
	kind, err := kindOf(name, body)
	if err != nil {
		return record.Artifact{}, fmt.Errorf("read artifact %s: %w", name, err)
	}
	key, bucket := record.ArtifactKey(p.req.Commit, name), p.stage.cfg.Store
	artifact := record.Artifact{
		CommitSHA: p.req.Commit, Path: name, ArtifactType: kind, SizeBytes: body.Size(), Checksum: record.Checksum(body.SHA256()),
		WorkflowID: p.req.Run.UID, WorkflowName: p.req.Run.Name,
	}
	_, there := p.there[key]
	stored, err := p.keep(ctx, key, body, there)
	if errors.Is(err, errOtherBytes) {
		artifact.DiffersFrom = bucket.URL(key)
		key = record.VariantKey(p.req.Commit, name, body.SHA256())
		stored, err = p.keep(ctx, key, body, false)
	}
	if errors.Is(err, errOtherBytes) {
		return record.Artifact{}, fault.Newf(fault.System, fault.StoreFailed, "store artifact "+name,
			"Delete the object and retry the run; find out what changed it", "the object %s is not what its name says", bucket.URL(key))
	}
	if err != nil {
		return record.Artifact{}, err
	}
	artifact.Timestamp, artifact.S3Path = stored.at, bucket.URL(key)
	return artifact, p.tell(artifact, stored.found)
}

func (p *publication) tell(artifact record.Artifact, found bool) error {
	switch text := fmt.Sprintf("artifact %s (%s)", artifact.Path, bytesize.Format(artifact.SizeBytes)); {
	case artifact.DiffersFrom != "":
		return p.say("%s is not what an earlier build of this commit made, which stays; stored as %s", text, artifact.S3Path)
	case found:
		return p.say("%s is stored already", text)
	default:
		return p.say("%s", text)
	}
}

func (p *publication) say(format string, args ...any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := fmt.Fprintf(p.out, format+"\n", args...); err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	return nil
}

// errOtherBytes is a key that has other bytes already.
var errOtherBytes = errors.New("the object has other bytes")

// keepTries bounds how often a key is looked at whose object comes and goes.
const keepTries = 3

// kept is an object that has the bytes it should have.
type kept struct {
	// at is when it was stored.
	at time.Time
	// found says that somebody else has stored it.
	found bool
}

// keep stores body at key unless it is there. there says that the key has an
// object already, as far as is known.
//
// Errors: errOtherBytes; those of the bucket.
func (p *publication) keep(ctx context.Context, key string, body *store.Body, there bool) (kept, error) {
	bucket := p.stage.cfg.Store
	var err error
	for range keepTries {
		if there {
			object, err := bucket.Head(ctx, key)
			switch {
			case err == nil && same(object, body):
				at, err := p.storedAt(ctx, object)
				return kept{at: at, found: true}, err
			case err == nil:
				return kept{}, errOtherBytes
			case !errors.Is(err, store.ErrNotFound):
				return kept{}, err
			}
		}
		_, err = bucket.Put(ctx, key, body, store.PutOptions{
			IfAbsent: true, Tags: map[string]string{tagCommit: p.req.Commit, tagTime: p.at.Format(time.RFC3339)},
		})
		if err == nil || !errors.Is(err, store.ErrExists) {
			return kept{at: p.at}, err
		}
		there = true // another build was faster
	}
	return kept{}, err
}

// same reports whether an object has the bytes of body, as far as it says.
func same(object store.Object, body *store.Body) bool {
	return object.SHA256 == body.SHA256() && (object.Size == body.Size() || object.Size < 0)
}

// The tags of an artifact.
const (
	tagCommit = "commit-sha"
	tagTime   = "timestamp"
)

// storedAt is the time in an object's tag, so that every list says the same of
// it; the bucket's own where the tag cannot be read.
func (p *publication) storedAt(ctx context.Context, object store.Object) (time.Time, error) {
	tags, err := p.stage.cfg.Store.Tags(ctx, object.Key)
	if err != nil && ctx.Err() != nil {
		return time.Time{}, err
	}
	if at, parseErr := time.Parse(time.RFC3339, tags[tagTime]); parseErr == nil {
		return at.UTC(), nil
	}
	return object.Modified.UTC().Truncate(time.Second), nil
}
