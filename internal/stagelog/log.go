package stagelog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/aphex-pipeline/aphex/internal/store"
)

const (
	// DefaultEvery is how often new lines are uploaded. With the upload itself
	// it stays below five seconds.
	DefaultEvery = 3 * time.Second
	// MaxBytes bounds the file of one log, which lives on the node's disk; what
	// comes after is only on standard output.
	MaxBytes = 256 << 20
	// detachTimeout bounds the last upload of a process that is ending.
	detachTimeout = 5 * time.Second
	// contentType lets browsers show a log.
	contentType = "text/plain; charset=utf-8"
)

// Store is the bucket, or a folder that stands for it.
type Store interface {
	Put(ctx context.Context, key string, body io.Reader, opts store.PutOptions) (store.Object, error)
	Get(ctx context.Context, key string) (io.ReadCloser, store.Object, error)
	List(ctx context.Context, prefix string) ([]store.Object, error)
}

// Config says where logs go.
type Config struct {
	// Dir is an existing directory of this pod for the files. Required.
	Dir string
	// Store is the bucket; nil keeps the files only.
	Store Store
	// Every is the time between two uploads. Default: DefaultEvery.
	Every time.Duration
	// Logger is for the operator. Default: discarded.
	Logger *slog.Logger
}

// Log is the log of one attempt, as one process writes it. It ends with either
// Finish or Detach. Append may be called concurrently.
type Log struct {
	cfg   Config
	id    ID
	start int

	mu   sync.Mutex
	file *os.File // nil if it could not be opened
	err  error
	size int64

	// tail and caught belong to uploads until it has stopped.
	tail    upload
	caught  bool
	stop    context.CancelFunc
	stopped chan struct{}
}

// Open begins a log. start is the number of this process among those that
// worked on the attempt, from 1: what earlier ones wrote comes before. Uploads
// go on in the background, also after ctx has ended, until Finish or Detach.
//
// It never fails: a stage must not fail for its log. What went wrong is the
// error of Finish.
func Open(ctx context.Context, cfg Config, id ID, start int) *Log {
	if cfg.Every <= 0 {
		cfg.Every = DefaultEvery
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Log{cfg: cfg, id: id, start: start, stopped: make(chan struct{}), tail: upload{start: start}}
	l.file, l.err = l.open(start, os.O_RDWR|os.O_CREATE|os.O_APPEND)
	if l.err == nil {
		l.size, l.err = l.file.Seek(0, io.SeekEnd)
	}
	ctx, l.stop = context.WithCancel(context.WithoutCancel(ctx))
	go l.uploads(ctx)
	return l
}

// open opens this pod's file of the start-th process.
func (l *Log) open(start, flags int) (*os.File, error) {
	root, err := os.OpenRoot(l.cfg.Dir)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(l.id.RunUID + "/" + l.id.path()))
	file, err := root.OpenFile(fmt.Sprintf("%s-%s-%d%s", l.id.Stage, hex.EncodeToString(sum[:8]), start, extension), flags, 0o640)
	return file, errors.Join(err, root.Close())
}

// Append adds a line, given without its line break.
func (l *Log) Append(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil || l.err != nil {
		return
	}
	if l.size+int64(len(line)) > MaxBytes {
		line, l.err = []byte("aphex: the log is cut off here"), fmt.Errorf("log is longer than %d MiB", MaxBytes>>20)
	}
	n, err := l.file.Write(append(slices.Clip(line), '\n'))
	l.size += int64(n)
	l.err = errors.Join(l.err, err)
}

// state returns the file, nil if there is none, and how much is in it.
func (l *Log) state() (*os.File, int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file, l.size, l.err
}

// uploads brings new lines to the bucket until ctx ends.
func (l *Log) uploads(ctx context.Context) {
	defer close(l.stopped)
	if l.cfg.Store == nil {
		return
	}
	tick := time.NewTicker(l.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.warn(ctx, l.flush(ctx))
	}
}

// warn tells the operator, unless the uploads have been ended.
func (l *Log) warn(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		l.cfg.Logger.WarnContext(ctx, "log is not uploaded", slog.String("log", l.id.Key()), slog.String("err", err.Error()))
	}
}

// flush uploads what is new, after what earlier processes of this pod left.
func (l *Log) flush(ctx context.Context) error {
	if !l.caught {
		if err := l.catchUp(ctx); err != nil {
			return err
		}
		l.caught = true
	}
	file, size, _ := l.state()
	if file == nil {
		return nil
	}
	return l.tail.send(ctx, l.cfg.Store, l.id, file, size)
}

// catchUp uploads what earlier processes of this pod wrote and did not upload.
func (l *Log) catchUp(ctx context.Context) error {
	if l.start == 1 {
		return nil
	}
	parts, err := l.id.parts(ctx, l.cfg.Store)
	if err != nil {
		return err
	}
	for start := 1; start < l.start; start++ {
		if err := l.catchUpOne(ctx, start, parts); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) catchUpOne(ctx context.Context, start int, parts []part) error {
	file, err := l.open(start, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // only read
	info, err := file.Stat()
	if err != nil {
		return err
	}
	rest := upload{start: start}
	for _, p := range parts {
		if p.start == start {
			rest.begin = p.offset + p.size
		}
	}
	rest.sent = rest.begin
	return rest.send(ctx, l.cfg.Store, l.id, file, info.Size())
}

// Detach ends the log of a process that leaves the attempt to the next one. It
// uploads what is left, in a few seconds at most.
func (l *Log) Detach(ctx context.Context) {
	l.stop()
	<-l.stopped
	if l.cfg.Store != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), detachTimeout)
		defer cancel()
		l.warn(ctx, l.flush(ctx))
	}
	l.close()
}

func (l *Log) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		_ = l.file.Close() // every write reported its own error
		l.file = nil
	}
}

// Finish ends the log and stores all of it at the ID's key; without a store
// the object is empty. The object may be there although the error is not nil:
// the log is then not complete.
func (l *Log) Finish(ctx context.Context) (store.Object, error) {
	l.stop()
	<-l.stopped
	defer l.close()
	file, size, failed := l.state()
	if file == nil || l.cfg.Store == nil {
		return store.Object{}, failed
	}
	// The parts are completed too: should this process die before its answer is
	// durable, another one makes the whole of them.
	var flushing sync.WaitGroup
	flushing.Go(func() { l.warn(ctx, l.flush(ctx)) })
	defer flushing.Wait()
	whole, err := l.whole(ctx, file, size)
	if whole == nil {
		return store.Object{}, errors.Join(failed, err)
	}
	defer whole.Close() //nolint:errcheck // only read
	object, putErr := l.cfg.Store.Put(ctx, l.id.Key(), whole, store.PutOptions{ContentType: contentType})
	return object, errors.Join(failed, err, putErr)
}

// whole is the log from its first line on: this process's file, after what
// earlier ones wrote. The error says what is missing.
func (l *Log) whole(ctx context.Context, own *os.File, size int64) (io.ReadSeekCloser, error) {
	ours := io.NewSectionReader(own, 0, size)
	if l.start == 1 {
		return section{ours}, nil
	}
	all, err := os.CreateTemp(l.cfg.Dir, "whole-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(all.Name()); err != nil {
		return nil, errors.Join(err, all.Close())
	}
	missing := l.copyEarlier(ctx, all)
	if _, err = io.Copy(all, ours); err == nil {
		_, err = all.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, all.Close())
	}
	return all, missing
}

// section is a part of a file that somebody else closes.
type section struct{ *io.SectionReader }

func (section) Close() error { return nil }

// copyEarlier copies what earlier processes wrote: from this pod's files, else
// from the bucket.
func (l *Log) copyEarlier(ctx context.Context, w io.Writer) error {
	parts, err := l.id.parts(ctx, l.cfg.Store)
	for start := 1; start < l.start; start++ {
		file, openErr := l.open(start, os.O_RDONLY)
		if openErr == nil {
			_, copyErr := io.Copy(w, file)
			err = errors.Join(err, copyErr, file.Close())
			continue
		}
		for _, p := range parts {
			if p.start == start {
				err = errors.Join(err, copyObject(ctx, l.cfg.Store, p.key, w))
			}
		}
	}
	return err
}

// copyObject copies an object to w.
func copyObject(ctx context.Context, s Store, key string, w io.Writer) error {
	body, _, err := s.Get(ctx, key)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, body)
	return errors.Join(err, body.Close())
}
