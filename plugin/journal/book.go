package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/kube"
)

const (
	// writeTimeout is how long a change may take to become durable, over all
	// its tries. An API server that restarts is back within it.
	writeTimeout = 2 * time.Minute
	// retryDelay and retryMax bound the pause between two tries.
	retryDelay = 50 * time.Millisecond
	retryMax   = 5 * time.Second
)

// errStale is what a backend answers when the stored document is not of the
// version the write was based on: read it again.
var errStale = errors.New("the stored journal is newer")

// backend stores one document.
type backend interface {
	// load returns the document and its version; nil if there is none.
	load(ctx context.Context) (*document, string, error)
	// save replaces version (empty: there must be none) by d.
	save(ctx context.Context, d *document, version string) (string, error)
	// hopeless reports whether trying again after err makes no sense.
	hopeless(err error) bool
}

// change is one caller's wish. apply may be called several times, each time on
// a fresh document; only its last outcome counts.
type change struct {
	apply func(*document) error
	done  chan error
}

// book is the Book over a backend.
type book struct {
	back    backend
	podUID  string
	now     func() time.Time
	changes chan *change
	closed  <-chan struct{}
	ended   chan struct{} // closed once the writer has ended

	mu      sync.Mutex // guards what follows
	doc     *document  // as last stored
	version string
	broken  error // set once the book is lost to another process
}

// open claims the document in back and starts the writer, which ends with ctx.
func open(ctx context.Context, back backend, podUID string, now func() time.Time) (*book, error) {
	b := &book{back: back, podUID: podUID, now: now, changes: make(chan *change), closed: ctx.Done(), ended: make(chan struct{})}
	if err := b.claim(ctx); err != nil {
		return nil, err
	}
	go b.run(ctx)
	return b, nil
}

// Wait implements Book.
func (b *book) Wait() { <-b.ended }

// claim makes this process the holder, whoever was before.
func (b *book) claim(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	hopeless := b.back.hopeless
	return b.retry(ctx, func(err error) bool { return hopeless(err) }, func() error {
		doc, version, err := b.back.load(ctx)
		if err != nil {
			return err
		}
		if doc == nil {
			doc = newDocument()
		}
		if len(doc.Entries) > 0 { // there are replies, or will be, that no other may contradict
			hopeless = b.hopeless
		}
		doc.Writer = writer{Generation: doc.Writer.Generation + 1, PodUID: b.podUID, Since: b.now().UTC()}
		created := version == ""
		version, err = b.back.save(ctx, doc, version)
		if err == nil && created { // proves that changes are allowed as well, before anything is done
			version, err = b.back.save(ctx, doc, version)
		}
		if err != nil {
			return err
		}
		b.doc, b.version = doc, version
		return nil
	})
}

// hopeless reports whether trying a write again makes no sense. A right that
// was there when the book was claimed is likely to come back: a role is applied
// anew, a policy mended. Until then nothing is answered.
func (b *book) hopeless(err error) bool {
	return !errors.Is(err, kube.ErrForbidden) && b.back.hopeless(err)
}

// retry calls fn until it succeeds, is hopeless or ctx ends.
func (b *book) retry(ctx context.Context, hopeless func(error) bool, fn func() error) error {
	delay := retryDelay
	for {
		err := fn()
		if err == nil || errors.Is(err, ErrFenced) || hopeless(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return unwritten(err)
		case <-time.After(delay):
		}
		delay = min(2*delay, retryMax)
	}
}

func unwritten(err error) error {
	remedy := "Check that the Kubernetes API server answers, then retry the run"
	if errors.Is(err, kube.ErrForbidden) {
		remedy = grantRemedy
	}
	return fault.Wrap(fault.Transient, fault.KubernetesRejected, "write the run's journal", remedy, err)
}

// run is the one writer: it takes all changes that wait and writes them as one.
func (b *book) run(ctx context.Context) {
	defer close(b.ended)
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-b.changes:
			batch := []*change{first}
			for more := true; more; {
				select {
				case next := <-b.changes:
					batch = append(batch, next)
				default:
					more = false
				}
			}
			b.write(ctx, batch)
		}
	}
}

// write makes batch durable and tells every caller how its change went.
func (b *book) write(ctx context.Context, batch []*change) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	b.mu.Lock()
	base, version, generation, err := b.doc, b.version, b.doc.Writer.Generation, b.broken
	b.mu.Unlock()
	outcomes := make([]error, len(batch))
	if err == nil {
		err = b.retry(ctx, b.hopeless, func() error {
			var err error
			if base, version, err = b.refresh(ctx, base, version, generation); err != nil {
				return err
			}
			next := base.clone()
			dirty := false
			for i, c := range batch {
				if outcomes[i] = c.apply(next); outcomes[i] == nil {
					dirty = true
				}
			}
			if !dirty {
				return nil
			}
			stored, err := b.back.save(ctx, next, version)
			if errors.Is(err, errStale) {
				base = nil
			}
			if err != nil {
				return err
			}
			b.mu.Lock()
			b.doc, b.version = next, stored
			b.mu.Unlock()
			return nil
		})
	}
	if errors.Is(err, ErrFenced) {
		b.mu.Lock()
		b.broken = err
		b.mu.Unlock()
	}
	for i, c := range batch {
		c.done <- errors.Join(err, outcomes[i])
	}
}

// refresh reads the document again after a conflict (base is nil), and finds
// out whether it has been claimed by another process.
func (b *book) refresh(ctx context.Context, base *document, version string, generation int64) (*document, string, error) {
	if base != nil {
		return base, version, nil
	}
	doc, version, err := b.back.load(ctx)
	switch {
	case err != nil:
		return nil, "", err
	case doc == nil: // deleted under our hands: what we know is written anew
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.doc, "", nil
	case doc.Writer.Generation < generation:
		// Deleted, and written anew by a process that was fenced before: it
		// finds out when it meets our generation again.
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.doc, version, nil
	case doc.Writer.Generation > generation, doc.Writer.PodUID != b.podUID:
		return nil, "", fenced(doc.Writer)
	}
	return doc, version, nil
}

// submit hands a change to the writer and waits for it.
func (b *book) submit(ctx context.Context, apply func(*document) error) error {
	c := &change{apply: apply, done: make(chan error, 1)}
	select {
	case b.changes <- c:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-b.closed:
		return fmt.Errorf("write the run's journal: %w", context.Canceled)
	}
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Begin implements Book.
func (b *book) Begin(ctx context.Context, e Entry) (Entry, error) {
	if known, ok, err := b.Entry(ctx, e.Key); err != nil || (ok && known.Ended()) {
		return known, err
	}
	var result Entry
	err := b.submit(ctx, func(d *document) error {
		known, ok := d.Entries[e.Key]
		if !ok {
			known = new(e.clone())
			d.Entries[e.Key] = known
		}
		if !known.Ended() {
			known.Starts++
			known.PodUID = b.podUID
		}
		result = known.clone()
		return nil
	})
	if err != nil { // the writer may still be at it: result is not ours to read
		return Entry{}, err
	}
	return result, nil
}

// End implements Book.
func (b *book) End(ctx context.Context, key string, final []byte, phase string, at time.Time) (Entry, error) {
	if !json.Valid(final) {
		return Entry{}, fault.Newf(fault.System, fault.Internal, "record the end of an execution", "", "the reply is not JSON")
	}
	var result Entry
	err := b.submit(ctx, func(d *document) error {
		known, ok := d.Entries[key]
		if !ok {
			return fmt.Errorf("end of %s: %w", key, ErrUnknown)
		}
		if !known.Ended() {
			known.Final, known.Phase, known.EndedAt = final, phase, new(at.UTC())
		}
		result = known.clone()
		return nil
	})
	if err != nil {
		return Entry{}, err
	}
	return result, nil
}

// PutEffect implements Book.
func (b *book) PutEffect(ctx context.Context, key, name string, value []byte) error {
	if err := checkEffect(name, value); err != nil {
		return err
	}
	return b.submit(ctx, func(d *document) error {
		known, ok := d.Entries[key]
		switch {
		case !ok:
			return fmt.Errorf("effect %s of %s: %w", name, key, ErrUnknown)
		case known.Ended():
			return fmt.Errorf("effect %s of %s: %w", name, key, ErrEnded)
		case len(known.Effects) >= maxEffects && known.Effects[name] == nil:
			return fault.Newf(fault.System, fault.Internal, "record effect "+name, "", "the execution has %d effects: no more are allowed", maxEffects)
		}
		if known.Effects == nil {
			known.Effects = map[string]json.RawMessage{}
		}
		known.Effects[name] = value
		return nil
	})
}

// Effect implements Book.
func (b *book) Effect(ctx context.Context, key, name string) ([]byte, bool, error) {
	e, ok, err := b.Entry(ctx, key)
	if !ok || err != nil {
		return nil, false, err
	}
	value, ok := e.Effects[name]
	return value, ok, nil
}

// Entry implements Book.
func (b *book) Entry(_ context.Context, key string) (Entry, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken != nil {
		return Entry{}, false, b.broken
	}
	e, ok := b.doc.Entries[key]
	if !ok {
		return Entry{}, false, nil
	}
	return e.clone(), true, nil
}

// Entries implements Book.
func (b *book) Entries(context.Context) ([]Entry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken != nil {
		return nil, b.broken
	}
	var all []Entry
	for _, e := range b.doc.sorted() {
		all = append(all, e.clone())
	}
	return all, nil
}
