package worker

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// The protocol: JSON requests; trees as tar, listings as JSON lines, commands
// as frames. Paths travel as bytes (base64 in JSON), since file names need not
// be UTF-8. The two ends are always of one binary, so there is no negotiation.
const (
	pathPing   = "/v1/ping"
	pathExec   = "/v1/exec"
	pathCancel = "/v1/cancel"
	pathList   = "/v1/list"
	pathRead   = "/v1/read"
	pathWrite  = "/v1/write"
	pathRemove = "/v1/remove"
	pathStat   = "/v1/stat"
	pathLook   = "/v1/look"

	// trailerError carries what went wrong after the first byte was sent.
	trailerError = "Aphex-Error"
)

const (
	// maxRequest bounds a JSON request. 64 MiB is half a million paths.
	maxRequest = 64 << 20
	// maxReply bounds a JSON reply and one line of a listing.
	maxReply = 16 << 20
	// maxFrame bounds a frame; the largest is an exit with its environment,
	// which the kernel limits to 6 MiB, in base64.
	maxFrame = 16 << 20
	// maxEntries bounds a listing. An installed front end has 100 000 files.
	maxEntries = 4_000_000
	// heartbeat is how often a running command shows that the worker lives.
	heartbeat = 5 * time.Second
)

// The kinds of frames.
const (
	frameOutput    = 'o'
	frameHeartbeat = 'h'
	frameExit      = 'x'
)

// pathBytes is a path or text on the wire.
type pathBytes []byte

type execRequest struct {
	ID     string               `json:"id"`
	Script pathBytes            `json:"script,omitempty"`
	Argv   []pathBytes          `json:"argv,omitempty"`
	Dir    pathBytes            `json:"dir,omitempty"`
	Env    map[string]pathBytes `json:"env,omitempty"`
	Exact  bool                 `json:"exact,omitempty"`
	Grace  time.Duration        `json:"grace,omitempty"`
}

type cancelRequest struct {
	ID string `json:"id"`
}

type exitMessage struct {
	Code     int                  `json:"code"`
	Signal   string               `json:"signal,omitempty"`
	Dir      pathBytes            `json:"dir,omitempty"`
	Env      map[string]pathBytes `json:"env,omitempty"`
	Duration time.Duration        `json:"duration"`
	Warning  string               `json:"warning,omitempty"`
	Error    *wireError           `json:"error,omitempty"`
}

type treeRequest struct {
	Dir   pathBytes   `json:"dir"`
	Paths []pathBytes `json:"paths,omitempty"`
	All   bool        `json:"all,omitempty"`
}

type lookRequest struct {
	Names []string             `json:"names"`
	Env   map[string]pathBytes `json:"env,omitempty"`
}

type entryMessage struct {
	Path  pathBytes   `json:"p,omitempty"`
	Mode  fs.FileMode `json:"m,omitempty"`
	Size  int64       `json:"s,omitempty"`
	Mtime int64       `json:"t,omitempty"`
	Ctime int64       `json:"c,omitempty"`
	Inode uint64      `json:"i,omitempty"`
	Link  pathBytes   `json:"l,omitempty"`
	// End marks the last line of a listing that is complete.
	End bool `json:"end,omitempty"`
}

func toMessage(e Entry) entryMessage {
	return entryMessage{
		Path: pathBytes(e.Path), Mode: e.Mode, Size: e.Size, Mtime: e.ModTime.UnixNano(),
		Ctime: e.ChangeTime.UnixNano(), Inode: e.Inode, Link: pathBytes(e.Link),
	}
}

func (m entryMessage) entry() Entry {
	return Entry{
		Path: string(m.Path), Mode: m.Mode, Size: m.Size, ModTime: time.Unix(0, m.Mtime),
		ChangeTime: time.Unix(0, m.Ctime), Inode: m.Inode, Link: string(m.Link),
	}
}

// wireError is a fault on its way to the client. Kind keeps what callers may
// ask for with errors.Is.
type wireError struct {
	Class  fault.Class  `json:"class"`
	Reason fault.Reason `json:"reason"`
	Op     string       `json:"op,omitempty"`
	Remedy string       `json:"remedy,omitempty"`
	Text   string       `json:"text"`
	Kind   string       `json:"kind,omitempty"`
}

// kinds are the sentinels that survive the wire.
func kinds() map[string]error {
	return map[string]error{"not-exist": fs.ErrNotExist, "path": ErrPath, "type": ErrType}
}

// ErrPath is a path that is absolute, has a ".." or leads through a symbolic
// link where none is allowed.
var ErrPath = errors.New("path outside of the folder it belongs to")

// ErrType is a device, pipe or socket where only files, folders and symbolic
// links can be carried.
var ErrType = errors.New("neither a file, a folder nor a symbolic link")

func toWire(err error) *wireError {
	f := fault.From(err)
	w := &wireError{Class: f.Class, Reason: f.Reason, Op: f.Op, Remedy: f.Remedy, Text: f.Err.Error()}
	for kind, sentinel := range kinds() {
		if errors.Is(err, sentinel) {
			w.Kind = kind
		}
	}
	return w
}

// remoteError has the worker's text and the sentinel behind it.
type remoteError struct {
	text string
	kind error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

// reasonForm is what a reason looks like: it becomes a label of the run.
var reasonForm = regexp.MustCompile(`^[A-Z][A-Za-z]{0,62}$`)

// fault turns a reply of the worker into a fault. The worker is not trusted:
// texts are cut, a class or reason that cannot be one is not taken over.
func (w *wireError) fault() error {
	const limit = 8 << 10
	cut := func(s string) string { return s[:min(len(s), limit)] }
	f := &fault.Fault{
		Class: w.Class, Reason: w.Reason, Op: cut(w.Op), Remedy: cut(w.Remedy),
		Err: &remoteError{text: cut(w.Text), kind: kinds()[w.Kind]},
	}
	if f.Class > fault.Cancelled {
		f.Class = fault.System
	}
	if !reasonForm.MatchString(string(f.Reason)) {
		f.Reason = fault.Internal
	}
	return f
}

// writeFrame writes one frame: kind, length, payload.
func writeFrame(w io.Writer, kind byte, payload []byte) error {
	head := [5]byte{kind}
	binary.BigEndian.PutUint32(head[1:], uint32(len(payload))) // payloads are bounded by maxFrame
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	_, err := w.Write(payload)
	return err
}

// readFrame reads one frame into buf, growing it up to maxFrame.
func readFrame(r io.Reader, buf []byte) (kind byte, payload []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, buf, err
	}
	n := int(binary.BigEndian.Uint32(head[1:]))
	if n > maxFrame {
		return 0, buf, fmt.Errorf("frame of %d bytes, at most %d are allowed", n, maxFrame)
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	_, err = io.ReadFull(r, buf[:n])
	return head[0], buf[:n], err
}

func toBytes(env map[string]string) map[string]pathBytes {
	if env == nil {
		return nil
	}
	out := make(map[string]pathBytes, len(env))
	for k, v := range env {
		out[k] = pathBytes(v)
	}
	return out
}

func toStrings(env map[string]pathBytes) map[string]string {
	if env == nil {
		return nil
	}
	out := make(map[string]string, len(env))
	for k, v := range env {
		out[k] = string(v)
	}
	return out
}

func toPaths(paths []string) []pathBytes {
	out := make([]pathBytes, len(paths))
	for i, p := range paths {
		out[i] = pathBytes(p)
	}
	return out
}

func fromPaths(paths []pathBytes) []string {
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = string(p)
	}
	return out
}

// mustJSON encodes one of the messages above, which always can be.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
