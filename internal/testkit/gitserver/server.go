package gitserver

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi" //nolint:gosec // G504 speaks of Go before 1.6.3
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// closeGrace is how long Close waits for requests that are being answered:
// long enough for a test repository's pack, short enough for a failed test.
const closeGrace = 2 * time.Second

// Config says how a server behaves. The zero value listens on a free loopback
// port, asks for no password and refuses partial clones.
type Config struct {
	// Address is host:port to listen on. Empty means "127.0.0.1:0". An address
	// beyond loopback needs a Password.
	Address string
	// Host is the name or IP address that clients use, put into URL in place
	// of the listener's own. Needed when Address is a wildcard.
	Host string
	// Username and Password, if either is set, are asked of every request.
	Username, Password string
	// Filter allows partial clones (uploadpack.allowFilter).
	Filter bool
	// AnySHA1 allows fetching any object by its id
	// (uploadpack.allowAnySHA1InWant). Protocol version 2 does so whatever is
	// set, hence ProtocolV0.
	AnySHA1 bool
	// ProtocolV0 ignores the client's wish for a newer protocol, as servers
	// behind old proxies do.
	ProtocolV0 bool
	// Wrap, if set, wraps the whole server: the place for a test's own faults,
	// delays and redirects.
	Wrap func(http.Handler) http.Handler
}

// Request is one HTTP request the server received, refused ones included.
type Request struct {
	// Method is the HTTP method.
	Method string
	// Path is the path with its query, such as
	// "/shop.git/info/refs?service=git-upload-pack".
	Path string
	// User is the user name of the basic authorization, empty without one.
	User string
	// Protocol is the Git-Protocol header, such as "version=2".
	Protocol string
}

// Server is a running git server. Its methods may be called at the same time
// from several goroutines, but not two that commit to one repository.
type Server struct {
	config  Config
	dir     string
	backend string
	git     string
	addr    *net.TCPAddr
	http    *http.Server
	served  chan struct{}
	stop    context.CancelFunc

	mu       sync.Mutex
	requests []Request
	commits  int
	serveErr error
}

// New starts a server for the length of a test and fails the test if it
// cannot.
func New(tb testing.TB, config Config) *Server {
	tb.Helper()
	server, err := Start(tb.Context(), config)
	if err != nil {
		tb.Fatalf("start git server: %v", err)
	}
	tb.Cleanup(func() {
		if err := server.Close(); err != nil {
			tb.Errorf("close git server: %v", err)
		}
	})
	return server
}

// Start starts a server. The caller closes it. The context ends the start and
// the requests, not the server.
func Start(ctx context.Context, config Config) (*Server, error) {
	git, backend, err := locate(ctx)
	if err != nil {
		return nil, err
	}
	if config.Address == "" {
		config.Address = "127.0.0.1:0"
	}
	if err := checkAddress(config); err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", config.Address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", config.Address, err)
	}
	dir, err := os.MkdirTemp("", "aphex-gitserver-")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make directory for repositories: %w", err), listener.Close())
	}
	addr, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listen on %s: got a %T, not TCP", config.Address, listener.Addr()), listener.Close(), os.RemoveAll(dir))
	}
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	server := &Server{config: config, dir: dir, git: git, backend: backend, addr: addr, served: make(chan struct{}), stop: stop}
	server.http = &http.Server{
		Handler:           server.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return base },
	}
	go server.serve(listener)
	return server, nil
}

func (s *Server) serve(listener net.Listener) {
	defer close(s.served)
	if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		s.mu.Lock()
		s.serveErr = err
		s.mu.Unlock()
	}
}

// Close stops the server, waits for its requests and removes its repositories.
// It returns also what went wrong while serving.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	err := s.http.Shutdown(ctx)
	s.stop()
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	<-s.served
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.serveErr, err, os.RemoveAll(s.dir))
}

// Addr is the address the server listens on.
func (s *Server) Addr() *net.TCPAddr { return s.addr }

// URL is the clone URL of the repository name, without credentials:
// "http://127.0.0.1:40123/shop.git".
func (s *Server) URL(name string) string {
	host := s.config.Host
	if host == "" {
		host = s.addr.IP.String()
	}
	address := net.JoinHostPort(host, strconv.Itoa(s.addr.Port))
	return (&url.URL{Scheme: "http", Host: address, Path: "/" + name + ".git"}).String()
}

// Requests returns what was asked so far, in order of arrival.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

func (s *Server) handler() http.Handler {
	backend := &cgi.Handler{
		Path:   s.backend,
		Dir:    s.dir,
		Env:    append(s.env(), "GIT_PROJECT_ROOT="+s.dir, "GIT_HTTP_EXPORT_ALL=1"),
		Stderr: io.Discard,
	}
	handler := s.record(s.authorize(s.shape(backend)))
	if s.config.Wrap != nil {
		handler = s.config.Wrap(handler)
	}
	return handler
}

func (s *Server) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _, _ := r.BasicAuth()
		s.mu.Lock()
		s.requests = append(s.requests, Request{
			Method: r.Method, Path: r.URL.RequestURI(), User: user, Protocol: r.Header.Get("Git-Protocol"),
		})
		s.mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

func (s *Server) authorize(next http.Handler) http.Handler {
	if s.config.Username == "" && s.config.Password == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		userOK := subtle.ConstantTimeCompare([]byte(user), []byte(s.config.Username))
		passwordOK := subtle.ConstantTimeCompare([]byte(password), []byte(s.config.Password))
		if userOK&passwordOK != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "authentication required", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// shape makes a request fit for CGI: the body of unknown length, which git
// sends when it pushes much, is spooled to a file, since CGI needs a length.
func (s *Server) shape(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.config.ProtocolV0 {
			r.Header.Del("Git-Protocol")
		}
		if r.ContentLength >= 0 {
			next.ServeHTTP(w, r)
			return
		}
		spool, size, err := spoolBody(s.dir, r.Body)
		if err != nil {
			http.Error(w, "read request: "+err.Error(), http.StatusBadRequest)
			return
		}
		defer removeSpool(spool)
		r.Body, r.ContentLength, r.TransferEncoding = spool, size, nil
		next.ServeHTTP(w, r)
	})
}

// checkAddress refuses to show repositories to the network without a password.
func checkAddress(config Config) error {
	host, _, err := net.SplitHostPort(config.Address)
	if err != nil {
		return fmt.Errorf("address %q: %w", config.Address, err)
	}
	ip := net.ParseIP(host)
	loopback := host == "localhost" || (ip != nil && ip.IsLoopback())
	if !loopback && config.Password == "" {
		return fmt.Errorf("address %q: only a loopback address may be served without a password", config.Address)
	}
	wildcard := host == "" || (ip != nil && ip.IsUnspecified())
	if wildcard && config.Host == "" {
		return fmt.Errorf("address %q: a wildcard address needs Host, the address clients use", config.Address)
	}
	return nil
}

// locate finds git and its http-backend.
func locate(ctx context.Context) (git, backend string, err error) {
	git, err = exec.LookPath("git")
	if err != nil {
		return "", "", fmt.Errorf("find git: %w", err)
	}
	out, err := exec.CommandContext(ctx, git, "--exec-path").Output()
	if err != nil {
		return "", "", fmt.Errorf("ask git for its exec path: %w", err)
	}
	backend = filepath.Join(strings.TrimSpace(string(out)), "git-http-backend")
	if _, err := os.Stat(backend); err != nil {
		return "", "", fmt.Errorf("find git's HTTP server (part of the package git): %w", err)
	}
	return git, backend, nil
}
