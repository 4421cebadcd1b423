package toolcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// lockPoll is how often a process that waits for another one's build looks
// again. Builds take minutes, so a quarter of a second costs nobody anything.
const lockPoll = 250 * time.Millisecond

// Recipe says what an entry of the cache is built from and how.
type Recipe struct {
	// Name is a word for messages and for the hash, such as "etcd". Required.
	Name string
	// Module holds the files of the build module. All of them count for the
	// hash. Required.
	Module fs.FS
	// Inputs are further strings that decide the result, in an order that
	// matters: toolchain, flags, packages.
	Inputs []string
	// Build writes the result into the directory out. The directory module
	// holds a copy of the build module that it may change. Required.
	Build func(ctx context.Context, module, out string, log io.Writer) error
}

// Cache is a directory of built entries. It is safe for use by several
// goroutines and processes at once.
type Cache struct {
	dir string
	log io.Writer
}

// New returns the cache in the directory dir, which is created when the first
// entry is. The output of builds and a line about each goes to log; nil
// discards it.
func New(dir string, log io.Writer) *Cache {
	if log == nil {
		log = io.Discard
	}
	return &Cache{dir: dir, log: log}
}

// Get returns the directory of the recipe's verified result and builds it
// first if it is missing or damaged. Nobody may change what is in it.
//
// Get blocks while another process builds the same entry. If ctx ends, the
// build is stopped and leaves nothing that a later call would trust.
func (c *Cache) Get(ctx context.Context, r Recipe) (string, error) {
	key, err := Key(r)
	if err != nil {
		return "", fmt.Errorf("hash the inputs of %s: %w", r.Name, err)
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := c.lock(ctx, r.Name, key)
	if err != nil {
		return "", fmt.Errorf("lock the cache entry of %s: %w", r.Name, err)
	}
	defer unlock()

	entry := filepath.Join(c.dir, key)
	err = Verify(entry)
	if err == nil {
		return entry, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		c.logf("%s: the cached build is not usable and is made again: %v", r.Name, err)
	}
	if err := c.build(ctx, r, entry); err != nil {
		return "", fmt.Errorf("build %s: %w", r.Name, err)
	}
	return entry, nil
}

// lock takes the lock of one entry and returns the function that releases it.
func (c *Cache) lock(ctx context.Context, name, key string) (func(), error) {
	lock := flock.New(filepath.Join(c.dir, key+".lock"))
	held, err := lock.TryLock()
	if err != nil {
		return nil, err
	}
	if !held {
		c.logf("%s: waiting for another process that builds it", name)
		if _, err := lock.TryLockContext(ctx, lockPoll); err != nil {
			return nil, err
		}
	}
	return func() { _ = lock.Unlock() }, nil
}

// build makes the entry anew. The caller holds its lock, so that a temporary
// directory of the same name can only be left over from a process that died.
func (c *Cache) build(ctx context.Context, r Recipe, entry string) error {
	c.logf("%s: building (minutes the first time, seconds while the Go build cache is warm)", r.Name)
	started := time.Now()
	work := entry + ".tmp"
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	module, out := filepath.Join(work, "module"), filepath.Join(work, "out")
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	if err := os.CopyFS(module, r.Module); err != nil {
		return err
	}
	if err := r.Build(ctx, module, out, c.log); err != nil {
		return err
	}
	if err := WriteSums(out); err != nil {
		return err
	}
	if err := os.RemoveAll(entry); err != nil {
		return err
	}
	if err := os.Rename(out, entry); err != nil {
		return err
	}
	c.logf("%s: built in %s", r.Name, time.Since(started).Round(time.Second))
	return nil
}

func (c *Cache) logf(format string, args ...any) {
	_, _ = fmt.Fprintf(c.log, format+"\n", args...)
}
