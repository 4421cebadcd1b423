package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/aphex-pipeline/aphex/internal/fault"
)

// newHTTPServer builds the server; requests end when ctx does.
func newHTTPServer(ctx context.Context, s *server) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathPing, s.ping)
	mux.HandleFunc("POST "+pathExec, s.exec)
	mux.HandleFunc("POST "+pathCancel, s.cancel)
	mux.HandleFunc("POST "+pathList, s.list)
	mux.HandleFunc("POST "+pathRead, s.read)
	mux.HandleFunc("POST "+pathWrite, s.write)
	mux.HandleFunc("POST "+pathRemove, s.remove)
	mux.HandleFunc("POST "+pathStat, s.stat)
	mux.HandleFunc("POST "+pathLook, s.look)
	return &http.Server{
		Handler:           mux,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
}

func (s *server) ping(w http.ResponseWriter, _ *http.Request) {
	reply(w, Info{Version: s.cfg.Version, BootID: s.bootID, UID: os.Getuid(), PID: os.Getpid(), Root: s.cfg.Root})
}

func (s *server) list(w http.ResponseWriter, r *http.Request) {
	var req treeRequest
	if !decode(w, r, &req) {
		return
	}
	entries, skipped, err := listTree(r.Context(), s.root, string(req.Dir))
	if err != nil {
		refuse(w, err)
		return
	}
	for _, path := range skipped {
		s.log.WarnContext(r.Context(), "special file left out of the listing", "dir", string(req.Dir), "path", path)
	}
	enc := json.NewEncoder(w)
	for _, e := range entries {
		if enc.Encode(toMessage(e)) != nil {
			return // the client is gone
		}
	}
	_ = enc.Encode(entryMessage{End: true})
}

func (s *server) stat(w http.ResponseWriter, r *http.Request) {
	var req treeRequest
	if !decode(w, r, &req) {
		return
	}
	entries, err := statPaths(s.root, fromPaths(req.Paths))
	if err != nil {
		refuse(w, err)
		return
	}
	enc := json.NewEncoder(w)
	for _, e := range entries {
		if enc.Encode(toMessage(e)) != nil {
			return
		}
	}
	_ = enc.Encode(entryMessage{End: true})
}

func (s *server) read(w http.ResponseWriter, r *http.Request) {
	var req treeRequest
	if !decode(w, r, &req) {
		return
	}
	tree, err := openTree(s.root, string(req.Dir), false)
	if err != nil {
		refuse(w, err)
		return
	}
	defer func() { _ = tree.Close() }()
	paths := fromPaths(req.Paths)
	if req.All {
		paths = nil
	} else if paths == nil {
		paths = []string{}
	}
	w.Header().Set("Trailer", trailerError)
	w.Header().Set("Content-Type", "application/x-tar")
	if err := readTree(r.Context(), tree, paths, w); err != nil {
		w.Header().Set(trailerError, string(mustJSON(toWire(opError("read", string(req.Dir), err)))))
	}
}

func (s *server) write(w http.ResponseWriter, r *http.Request) {
	dir, opts := r.URL.Query().Get("dir"), WriteOptions{Clean: r.URL.Query().Get("clean") == "true"}
	err := s.awaitAbandoned(r.Context())
	if err == nil {
		err = writeTree(r.Context(), s.root, dir, r.Body, opts)
	}
	if err != nil {
		// Read on, so that the client gets to see the reply.
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.Copy(io.Discard, r.Body)
		refuse(w, opError("write", dir, err))
		return
	}
	reply(w, struct{}{})
}

func (s *server) remove(w http.ResponseWriter, r *http.Request) {
	var req treeRequest
	if !decode(w, r, &req) {
		return
	}
	if err := s.awaitAbandoned(r.Context()); err != nil {
		refuse(w, err)
		return
	}
	if err := removePaths(s.root, string(req.Dir), fromPaths(req.Paths)); err != nil {
		refuse(w, opError("remove from", string(req.Dir), err))
		return
	}
	reply(w, struct{}{})
}

func (s *server) look(w http.ResponseWriter, r *http.Request) {
	var req lookRequest
	if !decode(w, r, &req) {
		return
	}
	env := commandEnv(s.base, toStrings(req.Env), false)
	found := map[string]pathBytes{}
	for _, name := range req.Names {
		if path, err := lookPath(name, env["PATH"], s.dir(SourceDir)); err == nil {
			found[name] = pathBytes(path)
		}
	}
	reply(w, found)
}

// opError gives an error of a tree operation its operation and reason.
func opError(verb, dir string, err error) error {
	if _, ok := errors.AsType[*fault.Fault](err); ok {
		return err
	}
	if dir == "" {
		dir = "."
	}
	op := verb + " the workspace folder " + dir
	if errors.Is(err, ErrPath) {
		return &fault.Fault{
			Class: fault.User, Reason: fault.PathRefused, Op: op, Err: err,
			Remedy: "Use relative paths without \"..\" that do not lead through symbolic links",
		}
	}
	return &fault.Fault{Class: fault.System, Reason: fault.WorkspaceFailed, Op: op, Err: err}
}

// decode reads a bounded JSON request, or refuses it.
func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest)) // to its end: only then a hang-up is noticed
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		refuse(w, &fault.Fault{
			Class: fault.System, Reason: fault.BadRequest, Op: "read the request of the sidecar",
			Err: fmt.Errorf("at most %d bytes of JSON are allowed: %w", maxRequest, err),
		})
		return false
	}
	return true
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(mustJSON(v))
}

func refuse(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnprocessableEntity)
	_, _ = w.Write(mustJSON(toWire(err))) //nolint:gosec // G705: JSON for a client that is no browser
}
