package worker

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/testkit/bounded"
	"github.com/aphex-pipeline/aphex/internal/testkit/holes"
)

// answers is a worker that answers every request with the same bytes.
type answers struct {
	status  int
	body    []byte
	trailer string
}

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: a.status, Status: http.StatusText(a.status), Request: r, Header: http.Header{},
		Body: io.NopCloser(bytes.NewReader(a.body)), Trailer: http.Header{trailerError: {a.trailer}},
	}, nil
}

func frames(kindsAndPayloads ...string) []byte {
	var out bytes.Buffer
	for _, f := range kindsAndPayloads {
		_ = writeFrame(&out, f[0], []byte(f[1:])) // a buffer never fails
	}
	return out.Bytes()
}

// archiveOf is a tar stream of one entry.
func archiveOf(h tar.Header, content string) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	h.Size = int64(len(content))
	_ = w.WriteHeader(&h)
	_, _ = io.WriteString(w, content)
	_ = w.Close()
	return out.Bytes()
}

// ends are the two ends of the protocol: what the client does with an answer,
// and which paths the server has.
var (
	clientEnds = []string{"exec", "list", "stat", "read", "ping", "look", "remove", "write"}
	serverEnds = []string{pathList, pathStat, pathRead, pathRemove, pathLook, pathCancel, pathExec, pathWrite + "?dir=source", pathWrite + "?dir=out&clean=true"}
)

// FuzzProtocol: neither end of the worker's socket believes the other. The
// client turns whatever comes into a result that holds what it promises or
// into a fault, and the server touches nothing outside of its root.
func FuzzProtocol(f *testing.F) {
	exit := "x" + string(mustJSON(exitMessage{Code: 1, Signal: "SIGKILL", Dir: pathBytes("source"), Env: toBytes(map[string]string{"A": "b"}), Error: toWire(errors.New("gone"))}))
	listing := string(mustJSON(entryMessage{Path: pathBytes("a/b"), Size: 3, Link: pathBytes("x")})) + "\n" + string(mustJSON(entryMessage{End: true})) + "\n"
	refused := mustJSON(wireError{Class: fault.User, Reason: fault.PathRefused, Text: "no", Kind: "path"})
	f.Add(byte(0), true, frames("h", "ohello\n", exit))
	f.Add(byte(0), true, frames("o"+strings.Repeat("x", 3000), "x{"))
	f.Add(byte(0), true, []byte("o\xff\xff\xff\xff"))
	f.Add(byte(1), true, []byte(listing))
	f.Add(byte(1), true, []byte(`{"p":"Li4v"}`))
	f.Add(byte(2), false, refused)
	f.Add(byte(2), false, []byte(`{"class":200,"reason":"a b\n","text":"x"}`))
	f.Add(byte(3), true, archiveOf(tar.Header{Name: "a", Typeflag: tar.TypeReg, Mode: 0o644}, "x"))
	f.Add(byte(4), true, []byte(`{"version":"1","bootID":"b"}`))
	f.Add(byte(5), true, []byte(`{"bash":"L2Jpbg=="}`))
	for i, body := range []string{
		string(mustJSON(treeRequest{Dir: pathBytes("source")})), string(mustJSON(treeRequest{Paths: toPaths([]string{"source/link/passwd", "../outside"})})),
		string(mustJSON(treeRequest{Dir: pathBytes("source"), Paths: toPaths([]string{"file", "link"})})), string(mustJSON(treeRequest{Dir: pathBytes("source/link"), Paths: toPaths([]string{"passwd"})})),
		`{"names":["sh","../x"],"env":{"PATH":"L2Jpbg=="}}`, `{"id":"x"}`, `{"id":"x","argv":["c2g="],"dir":"c291cmNl","env":{"A=":"eA=="}}`,
		string(archiveOf(tar.Header{Name: "link/evil", Typeflag: tar.TypeReg, Mode: 0o4755}, "x")), string(archiveOf(tar.Header{Name: "link", Typeflag: tar.TypeLink, Linkname: "../../outside"}, "")),
	} {
		f.Add(byte(len(clientEnds)+i), true, []byte(body))
	}
	parent := f.TempDir()
	f.Fuzz(func(t *testing.T, end byte, well bool, data []byte) {
		bounded.Here(t)
		if n := int(end) % (len(clientEnds) + len(serverEnds)); n < len(clientEnds) {
			checkClient(t, clientEnds[n], well, data)
		} else {
			checkServer(t, parent, serverEnds[n-len(clientEnds)], data)
		}
	})
}

var codes = regexp.MustCompile(`^[A-Z][A-Za-z]*$`)

func checkClient(t *testing.T, end string, well bool, data []byte) {
	t.Helper()
	a := answers{status: http.StatusOK, body: data}
	if !well {
		a = answers{status: http.StatusUnprocessableEntity, body: data, trailer: string(data)}
	}
	if end == "read" {
		a.status = http.StatusOK
	}
	c := NewClient("none")
	c.web = &http.Client{Transport: a}
	var out bytes.Buffer
	err := c.ask(t.Context(), end, &out, func(entries []Entry) {
		for _, e := range entries {
			clean, err := cleanPath(e.Path)
			require.NoError(t, err)
			require.True(t, filepath.IsLocal(clean) || clean == ".", "%q", clean)
		}
	})
	require.LessOrEqual(t, out.Len(), len(data))
	if err == nil {
		return
	}
	if !errors.Is(err, errTar) {
		found, ok := errors.AsType[*fault.Fault](err)
		require.True(t, ok, "%v", err)
		require.Regexp(t, codes, string(found.Reason))
		require.LessOrEqual(t, found.Class, fault.Cancelled)
	}
	require.Less(t, len(err.Error()), 64<<10)
}

var errTar = errors.New("no tar stream")

// ask does the client's call called end.
func (c *Client) ask(ctx context.Context, end string, out *bytes.Buffer, check func([]Entry)) error {
	var entries []Entry
	var err error
	switch end {
	case "exec":
		_, err = c.Exec(ctx, Command{Argv: []string{"x"}, MaxOutput: 1000}, out)
	case "list":
		entries, err = c.List(ctx, SourceDir)
	case "stat":
		entries, err = c.Stat(ctx, []string{"a"})
	case "ping":
		_, err = c.Ping(ctx)
	case "look":
		_, err = c.LookPath(ctx, []string{"sh"}, nil)
	case "remove":
		err = c.Remove(ctx, SourceDir, []string{"a"})
	case "write":
		err = c.WriteTree(ctx, SourceDir, strings.NewReader("x"), WriteOptions{})
	case "read":
		var tree io.ReadCloser
		if tree, err = c.ReadTree(ctx, SourceDir, nil); err == nil {
			_, err = io.Copy(out, tree)
			err = errors.Join(err, tree.Close())
		}
	default:
		err = fmt.Errorf("%s: %w", end, errTar)
	}
	check(entries)
	return err
}

func checkServer(t *testing.T, parent, target string, data []byte) {
	t.Helper()
	root, outside := filepath.Join(parent, "root"), filepath.Join(parent, "outside")
	plant(t, root, outside)
	s, err := newServer(ServerConfig{Root: root, Environ: []string{"PATH=/bin"}})
	require.NoError(t, err)
	defer func() { _ = s.root.Close() }()
	if target == pathExec {
		checkPrepare(t, s, data)
	} else {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, target, bytes.NewReader(data))
		w := httptest.NewRecorder()
		newHTTPServer(t.Context(), s).Handler.ServeHTTP(w, r)
		checkAnswer(t, w)
	}
	content, err := os.ReadFile(filepath.Join(outside, "secret"))
	require.NoError(t, err)
	require.Equal(t, "secret", string(content))
	left, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Len(t, left, 1)
	left, err = os.ReadDir(parent)
	require.NoError(t, err)
	require.Len(t, left, 2)
}

// plant makes a small tree with a link that leads out of it.
func plant(t *testing.T, root, outside string) {
	t.Helper()
	require.NoError(t, removeIn(root))
	require.NoError(t, os.MkdirAll(filepath.Join(root, SourceDir, "sub"), 0o700))
	require.NoError(t, os.MkdirAll(outside, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(root, SourceDir, "file"), []byte("text"), 0o600))
	require.NoError(t, os.Symlink("../../outside", filepath.Join(root, SourceDir, "link")))
}

// removeIn removes a folder whatever its permissions are.
func removeIn(dir string) error {
	parent, err := os.OpenRoot(filepath.Dir(dir))
	if err != nil {
		return err
	}
	defer func() { _ = parent.Close() }()
	return removeAll(parent, filepath.Base(dir))
}

// checkPrepare stops short of starting a command: it would be any command.
func checkPrepare(t *testing.T, s *server, data []byte) {
	t.Helper()
	var req execRequest
	if json.Unmarshal(data, &req) != nil {
		return
	}
	cmd, err := s.prepare(&req)
	if err != nil {
		require.NotEmpty(t, toWire(err).Text)
		return
	}
	for _, variable := range cmd.Env {
		require.NotContains(t, variable, "\x00")
		require.Contains(t, variable, "=")
	}
	if cmd.script != nil {
		cmd.script.remove()
	}
}

func checkAnswer(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	require.NotContains(t, w.Body.String(), "secret\x00", "what is outside is not read")
	if w.Code == http.StatusOK {
		return
	}
	require.Equal(t, http.StatusUnprocessableEntity, w.Code)
	var refused wireError
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &refused))
	require.NotEmpty(t, refused.Text)
	require.NotEmpty(t, refused.Reason)
}

// What the worker says of an error is used for labels and exit codes.
func TestWireError_OnlyKnownForms(t *testing.T) {
	t.Parallel()
	f := fault.From((&wireError{Class: 200, Reason: "no reason\n", Text: "x"}).fault())
	require.Equal(t, fault.Internal, f.Reason)
	require.Equal(t, fault.System, f.Class)
	f = fault.From((&wireError{Class: fault.User, Reason: fault.PathRefused, Text: "x"}).fault())
	require.Equal(t, fault.PathRefused, f.Reason)
	require.Equal(t, fault.User, f.Class)
}

// A few bytes that stand for a file of a terabyte.
func TestWrite_RefusesSparseFiles(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	root, outside := filepath.Join(parent, "root"), filepath.Join(parent, "outside")
	plant(t, root, outside)
	s, err := newServer(ServerConfig{Root: root})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.root.Close() })
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, pathWrite+"?"+url.Values{"dir": {SourceDir}}.Encode(), bytes.NewReader(holes.Archive(t)))
	w := httptest.NewRecorder()
	newHTTPServer(t.Context(), s).Handler.ServeHTTP(w, r)
	require.Equal(t, http.StatusUnprocessableEntity, w.Code)
	require.Contains(t, w.Body.String(), "sparse")
}
