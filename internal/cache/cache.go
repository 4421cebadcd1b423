package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/bytesize"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/store"
	"github.com/aphex-pipeline/aphex/internal/worker"
)

// The limits of one cache: of its object, of the files in it, of their number,
// and of the time to restore or to keep it.
const (
	maxStored  = 2 << 30
	maxContent = 8 << 30
	maxEntries = 1_000_000
	timeLimit  = 5 * time.Minute
)

// format is part of every key; another layout gets another one.
const format = 1

// trees are the worker's files.
type trees interface {
	Stat(ctx context.Context, paths []string) ([]worker.Entry, error)
	ReadTree(ctx context.Context, dir string, paths []string) (io.ReadCloser, error)
	WriteTree(ctx context.Context, dir string, tree io.Reader, opts worker.WriteOptions) error
	Remove(ctx context.Context, dir string, paths []string) error
}

// objects is the bucket.
type objects interface {
	Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error)
	Get(ctx context.Context, key string) (io.ReadCloser, store.Object, error)
}

// commit has the files of the run's commit, whatever user code did to those of
// the workspace.
type commit interface {
	File(ctx context.Context, path string) ([]byte, error)
}

var _ trees = (*worker.Client)(nil)

// Config is what a Keeper needs. All fields are required but DeployedBranch.
type Config struct {
	Worker trees
	Store  objects
	Commit commit
	// DeployedBranch is the branch that the pipeline deploys; builds of others
	// may have what its builds kept. Empty if it is not known.
	DeployedBranch string
}

// Keeper restores and keeps caches. It is safe for concurrent use.
type Keeper struct {
	cfg Config
	// stored, content, entries are the limits of one cache.
	stored, content int64
	entries         int
}

// New returns a Keeper.
func New(cfg Config) *Keeper {
	return &Keeper{cfg: cfg, stored: maxStored, content: maxContent, entries: maxEntries}
}

// Build is one build whose caches were restored.
type Build struct {
	keeper  *Keeper
	secrets []string
	out     io.Writer
	// missing are the caches that are to be kept if the build succeeds: those
	// that the branch does not have, or has damaged.
	missing []item
}

// item is one cache of one build.
type item struct {
	name string
	// paths are relative to the worker's root.
	paths []string
	// key is where builds of the branch keep it, shared where those of the
	// deployed branch do; empty if that is the same, or not known.
	key, shared string
	// there says that key has an object, which was not restored. damaged is its
	// version if no build can restore it: the build's replaces it.
	there   bool
	damaged string
}

// Scope says whose build it is.
type Scope struct {
	Pipeline, Branch string
	// Image is the worker's image as the configuration has it; caches made in
	// another one do not fit.
	Image string
}

// Restore puts back what an earlier build kept for the same paths and the same
// content of the key files: one of the branch, else one of the deployed
// branch. It must be called on a fresh checkout, and the result's Keep when
// the commands have succeeded. secrets are values that no cache may have.
//
// Nothing is an error: what goes wrong is said in out.
func (k *Keeper) Restore(ctx context.Context, scope Scope, list []pipeline.Cache, secrets []string, out io.Writer) *Build {
	b := &Build{keeper: k, secrets: secrets, out: out}
	for _, configured := range list {
		name := strings.Join(configured.Paths, ", ")
		next, err := k.item(ctx, scope, configured)
		if err != nil {
			b.warn(name, "is not used", err)
			continue
		}
		if !b.restore(ctx, &next) || next.damaged != "" {
			b.missing = append(b.missing, next)
		}
	}
	return b
}

// item finds out what a cache is called in the bucket, and that it is in
// nobody's way.
func (k *Keeper) item(ctx context.Context, scope Scope, configured pipeline.Cache) (item, error) {
	next := item{name: strings.Join(configured.Paths, ", ")}
	var source []string
	for _, name := range configured.Paths {
		if below, home := strings.CutPrefix(name, "~/"); home {
			next.paths = append(next.paths, path.Join(worker.HomeDir, below))
			continue
		}
		source = append(source, path.Join(worker.SourceDir, name))
	}
	found, err := k.cfg.Worker.Stat(ctx, source)
	if err != nil {
		return item{}, err
	}
	if len(found) > 0 {
		return item{}, fmt.Errorf("%s is part of the commit, which a build must have as it is", strings.TrimPrefix(found[0].Path, worker.SourceDir+"/"))
	}
	next.paths = append(next.paths, source...)
	digests := make([]string, len(configured.Key))
	for n, name := range configured.Key {
		content, err := k.cfg.Commit.File(ctx, path.Clean(name))
		if errors.Is(err, fs.ErrNotExist) {
			return item{}, fmt.Errorf("the commit has no file %s, which is part of the key", name)
		}
		if err != nil {
			return item{}, err
		}
		sum := sha256.Sum256(content)
		digests[n] = hex.EncodeToString(sum[:])
	}
	about, err := json.Marshal([]any{format, next.paths, configured.Key, digests, scope.Image})
	if err != nil {
		return item{}, err
	}
	sum := sha256.Sum256(about)
	file := hex.EncodeToString(sum[:]) + ".tar.zst"
	next.key = Prefix(scope.Pipeline, scope.Branch) + file
	if branch := k.cfg.DeployedBranch; branch != "" && branch != scope.Branch {
		next.shared = Prefix(scope.Pipeline, branch) + file
	}
	return next, nil
}

// Prefix is where the caches of a branch are. Only builds of that branch write
// below it.
func Prefix(pipeline, branch string) string {
	sum := sha256.Sum256([]byte(branch))
	return "cache/" + pipeline + "/" + hex.EncodeToString(sum[:8]) + "/"
}

// restore reports whether the cache was there and is in place. One at the
// branch's own place that can never be used is noted, to be replaced.
func (b *Build) restore(ctx context.Context, next *item) bool {
	ctx, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	for _, key := range []string{next.key, next.shared} {
		if key == "" {
			continue
		}
		began := time.Now()
		content, err := b.keeper.fetch(ctx, key, next.paths)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			b.warn(next.name, "is not restored", err)
			if key == next.key {
				next.there = true
				next.damaged = versionOf(err)
			}
			if err := b.keeper.cfg.Worker.Remove(ctx, ".", next.paths); err != nil {
				b.warn(next.name, "may be there in part", err)
			}
			continue
		}
		from := ""
		if key == next.shared {
			from = " from the branch " + b.keeper.cfg.DeployedBranch
		}
		b.say("cache %s: restored %s%s in %s", next.name, bytesize.Format(content), from, time.Since(began).Round(time.Millisecond))
		return true
	}
	return false
}

// Keep stores what was not there to be restored. The build has succeeded.
func (b *Build) Keep(ctx context.Context) {
	for _, next := range b.missing {
		b.keep(ctx, next)
	}
}

func (b *Build) keep(ctx context.Context, next item) {
	ctx, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	began := time.Now()
	content, err := b.keeper.save(ctx, next, b.secrets)
	switch {
	case errors.Is(err, errNothing):
		b.say("cache %s: there is nothing to keep", next.name)
	case errors.Is(err, store.ErrExists) && next.there:
		b.say("cache %s: the one that could not be restored is there and stays", next.name)
	case errors.Is(err, store.ErrChanged):
		b.say("cache %s: the damaged one has been replaced or removed meanwhile", next.name)
	case errors.Is(err, store.ErrExists):
		b.say("cache %s: another build has kept it meanwhile", next.name)
	case err != nil:
		b.warn(next.name, "is not kept", err)
	default:
		instead := ""
		if next.damaged != "" {
			instead = " in place of the damaged one"
		}
		b.say("cache %s: kept %s%s in %s", next.name, bytesize.Format(content), instead, time.Since(began).Round(time.Millisecond))
	}
}

func (b *Build) warn(name, what string, err error) {
	b.say("warning: cache %s %s: %s", name, what, fault.Message(err))
}

// say writes a line to the log. One that cannot be written is not ours to
// report.
func (b *Build) say(format string, args ...any) { _, _ = fmt.Fprintf(b.out, format+"\n", args...) }
