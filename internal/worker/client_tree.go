package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// List describes everything below dir, sorted by path. Symbolic links are
// listed, not followed. Devices, pipes and sockets are left out.
//
// Errors: fs.ErrNotExist if there is no such folder; ErrPath.
func (c *Client) List(ctx context.Context, dir string) ([]Entry, error) {
	return c.entries(ctx, "list the workspace folder "+dir, pathList, treeRequest{Dir: pathBytes(dir)})
}

// Stat describes paths, which are relative to the root; those that do not
// exist are absent from the result, which else is in the order asked for.
//
// Errors: ErrPath.
func (c *Client) Stat(ctx context.Context, paths []string) ([]Entry, error) {
	return c.entries(ctx, "look at files of the workspace", pathStat, treeRequest{Paths: toPaths(paths)})
}

// entries does a request that is answered by a listing.
func (c *Client) entries(ctx context.Context, op, path string, body treeRequest) ([]Entry, error) {
	ctx, hangUp := context.WithCancelCause(ctx)
	defer hangUp(nil)
	req, err := post(ctx, path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.do(ctx, req, op)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(&patient{r: resp.Body, limit: c.silence, hangUp: hangUp})
	lines.Buffer(nil, maxReply)
	entries := []Entry{}
	for lines.Scan() {
		var m entryMessage
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return nil, c.lost(ctx, op, err)
		}
		if m.End {
			return entries, nil
		}
		if _, err := cleanPath(string(m.Path)); err != nil || len(entries) == maxEntries {
			return nil, fault.Newf(fault.System, fault.WorkspaceFailed, op, "", "the worker sent an unusable listing (entry %d, path %q)", len(entries), m.Path)
		}
		entries = append(entries, m.entry())
	}
	err = lines.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return nil, c.lost(ctx, op, err)
}

// ReadTree returns files of dir as a tar stream: all, if paths is nil, else
// exactly those named, a folder without what is in it. Entries are sorted by
// path, parents first; equal trees give equal bytes. Devices, pipes and sockets
// are left out where all is read. The caller closes the stream; ctx must live
// as long.
//
// The content comes from user code: extract it with os.Root only.
//
// Errors, also of Read: fs.ErrNotExist if the folder or a path is missing;
// ErrPath; ErrType for a named device, pipe or socket.
func (c *Client) ReadTree(ctx context.Context, dir string, paths []string) (io.ReadCloser, error) {
	op := "read the workspace folder " + dir
	ctx, hangUp := context.WithCancelCause(ctx)
	req, err := post(ctx, pathRead, treeRequest{Dir: pathBytes(dir), Paths: toPaths(paths), All: paths == nil})
	if err != nil {
		hangUp(nil)
		return nil, err
	}
	resp, err := c.do(ctx, req, op) //nolint:bodyclose // treeReader.Close does
	if err != nil {
		hangUp(nil)
		return nil, err
	}
	return &treeReader{
		client: c, ctx: ctx, op: op, resp: resp, hangUp: hangUp,
		patient: patient{r: resp.Body, limit: c.silence, hangUp: hangUp},
	}, nil
}

// treeReader is a tar stream whose errors are explained.
type treeReader struct {
	client  *Client
	ctx     context.Context //nolint:containedctx // the request's own, for the cause of its end
	op      string
	resp    *http.Response
	hangUp  context.CancelCauseFunc
	patient patient
}

// Read reads tar bytes.
func (t *treeReader) Read(p []byte) (int, error) {
	n, err := t.patient.Read(p)
	if err == nil {
		return n, nil
	}
	if !errors.Is(err, io.EOF) {
		return n, t.client.lost(t.ctx, t.op, err)
	}
	if text := t.resp.Trailer.Get(trailerError); text != "" {
		var w wireError
		if json.Unmarshal([]byte(text), &w) != nil {
			return n, t.client.lost(t.ctx, t.op, err)
		}
		return n, w.fault()
	}
	return n, io.EOF
}

// Close ends the transfer, also in its middle.
func (t *treeReader) Close() error {
	t.hangUp(nil)
	return t.resp.Body.Close()
}

// WriteTree extracts a tar stream below dir, which is made if missing. Files,
// folders, symbolic and hard links are written; modes and times are kept,
// owners are not. What is in an entry's way is replaced. Nothing is written
// through a symbolic link. A failure leaves what was written so far.
//
// Errors: those of tree; ErrPath for an entry (or dir) that would leave the
// folder; ErrType for an entry of another type.
func (c *Client) WriteTree(ctx context.Context, dir string, tree io.Reader, opts WriteOptions) error {
	op := "write the workspace folder " + dir
	query := url.Values{"dir": {dir}, "clean": {strconv.FormatBool(opts.Clean)}}
	ctx, hangUp := context.WithCancelCause(ctx)
	defer hangUp(nil)
	// Each time the worker takes something shows that it lives. Between two
	// it may have to remove a large folder.
	source := &source{r: tree, silence: time.AfterFunc(replyLimit, func() { hangUp(errSilent) })}
	defer source.silence.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://worker"+pathWrite+"?"+query.Encode(), source)
	if err != nil {
		return err
	}
	err = c.receive(req, op, &struct{}{})
	if cause := source.failure(); cause != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", op, cause)
	}
	return err
}

// source remembers why reading failed, which the transport does not tell.
type source struct {
	r       io.Reader
	silence *time.Timer
	mu      sync.Mutex
	err     error
}

// failure returns why reading failed, or nil.
func (s *source) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Read reads from the caller's stream.
func (s *source) Read(p []byte) (int, error) {
	s.silence.Stop()
	defer s.silence.Reset(replyLimit)
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
	}
	return n, err
}

// Remove removes paths below dir with everything in them. What does not exist
// is no error.
//
// Errors: ErrPath.
func (c *Client) Remove(ctx context.Context, dir string, paths []string) error {
	req, err := post(ctx, pathRemove, treeRequest{Dir: pathBytes(dir), Paths: toPaths(paths)})
	if err != nil {
		return err
	}
	return c.receive(req, "remove files of the workspace folder "+dir, &struct{}{})
}

// patient is a reader whose every Read has a limit.
type patient struct {
	r      io.Reader
	limit  time.Duration
	hangUp context.CancelCauseFunc
}

// Read hangs up if nothing comes in time.
func (p *patient) Read(b []byte) (int, error) {
	timer := time.AfterFunc(p.limit, func() { p.hangUp(errSilent) })
	defer timer.Stop()
	return p.r.Read(b)
}
