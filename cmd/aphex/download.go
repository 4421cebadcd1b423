package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/aphex-pipeline/aphex/internal/bytesize"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/record"
)

// downloadsAtOnce bounds how many artifacts are read at the same time.
const downloadsAtOnce = 4

// download writes artifacts to a folder, and nowhere else.
type download struct {
	dir   string
	force bool
	out   io.Writer

	mu   sync.Mutex
	root *os.Root
}

// get downloads artifacts that have different paths. What is in the way is
// found before anything is written.
//
// Errors: DownloadRefused; PathRefused for a path that leaves the folder; those of
// the bucket.
func (d *download) get(ctx context.Context, artifacts []stored) error {
	for _, artifact := range artifacts {
		if !filepath.IsLocal(artifact.Path) || artifact.Path == "." {
			return fault.Newf(fault.System, fault.PathRefused, fmt.Sprintf("download artifact %q", artifact.Path),
				"Find out who wrote the list", "the path leads out of the folder")
		}
	}
	if err := os.MkdirAll(d.dir, 0o755); err != nil { //nolint:gosec // G301: it is for whom the user's umask allows
		return d.refused("make folder "+d.dir, err)
	}
	root, err := os.OpenRoot(d.dir)
	if err != nil {
		return d.refused("open folder "+d.dir, err)
	}
	defer func() { _ = root.Close() }()
	d.root = root
	missing, err := d.missing(artifacts)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(downloadsAtOnce)
	for _, artifact := range missing {
		group.Go(func() error {
			if err := d.one(ctx, artifact); err != nil {
				return err
			}
			return d.say(artifact, "")
		})
	}
	return group.Wait()
}

// missing returns what is not there yet.
func (d *download) missing(artifacts []stored) ([]stored, error) {
	var missing []stored
	var inTheWay []string
	for _, artifact := range artifacts {
		sum, err := d.there(artifact.Path)
		switch {
		case err != nil:
			return nil, d.refused("look at "+filepath.Join(d.dir, artifact.Path), err)
		case sum == artifact.Checksum:
			if err := d.say(artifact, "  is there already"); err != nil {
				return nil, err
			}
			continue
		case sum != "" && !d.force:
			inTheWay = append(inTheWay, filepath.Join(d.dir, artifact.Path))
		}
		missing = append(missing, artifact)
	}
	if len(inTheWay) == 0 {
		return missing, nil
	}
	return nil, fault.Newf(fault.User, fault.DownloadRefused, "download artifacts to "+d.dir,
		"Choose another folder with --dir, or replace them with --force", "there are files with other bytes: %s", someOf(inTheWay))
}

// there is the checksum of what is at a path: empty if nothing is, "other" if
// it is no file.
func (d *download) there(name string) (string, error) {
	info, err := d.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "other", nil
	}
	file, err := d.root.Open(name)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	_, err = io.Copy(hash, file)
	return record.Checksum(hex.EncodeToString(hash.Sum(nil))), errors.Join(err, file.Close())
}

// one downloads an artifact to a file of another name, which gets the right one
// when it is verified.
func (d *download) one(ctx context.Context, artifact stored) error {
	op := "download artifact " + artifact.Path
	body, object, err := artifact.bucket.Get(ctx, artifact.Key())
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	folder := path.Dir(artifact.Path)
	if err := d.root.MkdirAll(folder, 0o755); err != nil {
		return d.refused(op, err)
	}
	temporary := path.Join(folder, ".aphex-"+rand.Text()+".part")
	file, err := d.root.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return d.refused(op, err)
	}
	defer func() { _ = d.root.Remove(temporary) }()
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(file, hash), body)
	if err = errors.Join(err, file.Close()); err != nil {
		return d.refused(op, err)
	}
	if got := record.Checksum(hex.EncodeToString(hash.Sum(nil))); got != artifact.Checksum {
		return fault.Newf(fault.System, fault.StoreFailed, op, "Find out what changed the object; bucket versioning keeps earlier versions",
			"%s has %s, but published was %s", object.URL, got, artifact.Checksum)
	}
	return d.refused(op, d.root.Rename(temporary, artifact.Path))
}

// refused explains what the folder does not allow; faults of the bucket stay as
// they are.
func (d *download) refused(op string, err error) error {
	if _, ok := errors.AsType[*fault.Fault](err); ok || err == nil {
		return err
	}
	reason, remedy := fault.DownloadRefused, "Choose another folder with --dir"
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok && strings.Contains(pathErr.Err.Error(), "escapes from parent") {
		reason, remedy = fault.PathRefused, "Remove the link that leads out of the folder, or choose another one with --dir"
	}
	return fault.Wrap(fault.User, reason, op, remedy, err)
}

func (d *download) say(artifact stored, note string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := fmt.Fprintf(d.out, "%s  %s%s\n", plain(artifact.Path), bytesize.Format(artifact.SizeBytes), note)
	return err
}
