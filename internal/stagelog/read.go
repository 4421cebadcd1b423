package stagelog

import (
	"cmp"
	"context"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/internal/store"
)

// Entry is a log found in the bucket.
type Entry struct {
	// Stage is the stage as people call it: "build", "deploy-dev".
	Stage string
	// Try names the attempt among those of the stage; later ones sort later.
	Try string
	// Complete says that nothing will be added.
	Complete bool

	path    string
	written time.Time
}

// List finds the logs of a run, in the order the stages ran.
func List(ctx context.Context, s Store, uid string) ([]Entry, error) {
	byPath := map[string]Entry{}
	live, err := s.List(ctx, livePrefix(uid))
	if err != nil {
		return nil, err
	}
	for _, o := range live {
		at := path.Dir(strings.TrimPrefix(o.Key, livePrefix(uid)))
		if _, seen := byPath[at]; !seen {
			byPath[at] = newEntry(at, o, false)
		}
	}
	complete, err := s.List(ctx, completePrefix(uid))
	if err != nil {
		return nil, err
	}
	for _, o := range complete {
		at := strings.TrimSuffix(strings.TrimPrefix(o.Key, completePrefix(uid)), extension)
		byPath[at] = newEntry(at, o, true)
	}
	entries := make([]Entry, 0, len(byPath))
	for _, e := range byPath {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, compare)
	return entries, nil
}

func newEntry(at string, o store.Object, complete bool) Entry {
	stage, try := path.Split(at)
	stage = strings.TrimSuffix(stage, "/")
	if environment, ok := strings.CutPrefix(stage, "deploy-env-"); ok {
		stage = "deploy-" + environment
	}
	return Entry{Stage: stage, Try: try, Complete: complete, path: at, written: o.Modified}
}

// compare orders logs by try of the run, then by time: a later stage is written
// after an earlier one has ended. Within one second the stages' own order
// decides.
func compare(a, b Entry) int {
	rank := func(e Entry) int {
		for n, prefix := range []string{"validate", "build", "deploy-pipeline", "deploy-", "test-"} {
			if strings.HasPrefix(e.Stage, prefix) {
				return n
			}
		}
		return len(e.Stage) // finish
	}
	return cmp.Or(cmp.Compare(a.Try, b.Try), a.written.Truncate(time.Second).Compare(b.written.Truncate(time.Second)),
		cmp.Compare(rank(a), rank(b)), cmp.Compare(a.path, b.path))
}

// Cursor reads one log, also while it is being written.
type Cursor struct {
	store Store
	uid   string
	path  string
	// read counts all bytes; within is where it stands in what the start-th
	// process wrote.
	read, within int64
	start        int
	complete     bool
}

// NewCursor returns a Cursor at the first byte of a log of run uid.
func NewCursor(s Store, uid string, e Entry) *Cursor {
	return &Cursor{store: s, uid: uid, path: e.path, start: 1}
}

// Complete reports whether all of a complete log has been copied.
func (c *Cursor) Complete() bool { return c.complete }

// Copy copies to w what has been added since the last call.
func (c *Cursor) Copy(ctx context.Context, w io.Writer) error {
	body, _, err := c.store.Get(ctx, completePrefix(c.uid)+c.path+extension)
	switch {
	case err == nil:
		n, err := copyFrom(body, c.read, w)
		c.read += n
		c.complete = err == nil
		return err
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	objects, err := c.store.List(ctx, livePrefix(c.uid)+c.path+"/")
	if err != nil {
		return err
	}
	for _, p := range partsOf(objects) {
		if err := c.copyPart(ctx, p, w); err != nil {
			return err
		}
	}
	return nil
}

// copyPart copies what of a part has not been copied yet.
func (c *Cursor) copyPart(ctx context.Context, p part, w io.Writer) error {
	if p.start > c.start {
		c.start, c.within = p.start, 0
	}
	if p.start < c.start || p.offset+p.size <= c.within {
		return nil
	}
	body, _, err := c.store.Get(ctx, p.key)
	if err != nil {
		return err
	}
	skip := max(0, c.within-p.offset)
	n, err := copyFrom(body, skip, w)
	c.within = p.offset + skip + n
	c.read += n
	if errors.Is(err, store.ErrDamaged) {
		return nil // it was replaced by a longer one while we read it
	}
	return err
}

// copyFrom copies body to w, less its first skip bytes, and closes it. It
// returns how much it has copied.
func copyFrom(body io.ReadCloser, skip int64, w io.Writer) (int64, error) {
	_, err := io.CopyN(io.Discard, body, skip)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	var n int64
	if err == nil {
		n, err = io.Copy(w, body)
	}
	return n, errors.Join(err, body.Close())
}
