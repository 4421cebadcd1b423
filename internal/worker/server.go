package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// watchPause is how often the socket's file is checked while a command
	// may be tampering with it.
	watchPause = time.Second
	// shutdownLimit is how long Serve waits for requests, whose commands were
	// told to end, beyond the grace of a command.
	shutdownLimit = 10 * time.Second
	// maxExecs bounds the commands that run at once. Stages run one.
	maxExecs = 32
)

// ServerConfig says what Serve needs. Socket and Root are required.
type ServerConfig struct {
	// Socket is the path of the Unix socket. Its folder must exist; whatever
	// is at the path is replaced.
	Socket string
	// Root is the folder that holds everything; "/workspace" in a pod. It must
	// exist; the layout below it is created.
	Root string
	// Environ is the container's environment, as KEY=value, of which commands
	// inherit a part (see package documentation). Nil is an empty one.
	Environ []string
	// Dedicated says that this process is a worker and nothing else: it then
	// adopts and reaps orphans, ends those that nobody else can have started,
	// sets its umask to 002 and cannot be traced by the commands it runs.
	// Leave it false inside another program, such as a test.
	Dedicated bool
	// Version is reported by Ping.
	Version string
	// Grace is what commands get that do not say; zero is DefaultGrace.
	Grace time.Duration
	// Heartbeat is how often a running command shows that the worker lives;
	// zero is 5 s. The client's limit for silence must be larger.
	Heartbeat time.Duration
	// Logger is for the operator; nil discards.
	Logger *slog.Logger
}

// server is a running worker.
type server struct {
	cfg    ServerConfig
	log    *slog.Logger
	root   *os.Root
	base   map[string]string
	bootID string
	family *family

	accept func(*socket) // starts accepting on a socket

	mu     sync.Mutex
	closed bool
	socket *socket
	execs  map[string]*running // by id
}

// running is a command under way.
type running struct {
	cancel context.CancelCauseFunc
	// abandoned is closed once the client has hung up, ended once the command
	// and all it left are gone.
	abandoned <-chan struct{}
	ended     chan struct{}
}

// Serve runs a worker until ctx ends, then ends its commands and returns nil.
//
// Errors: the root or the socket's folder cannot be used.
func Serve(ctx context.Context, cfg ServerConfig) error {
	s, err := newServer(cfg)
	if err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	defer func() { _ = s.root.Close() }()
	if cfg.Dedicated {
		if err := s.dedicate(); err != nil {
			return fmt.Errorf("start worker: %w", err)
		}
	}
	if err := s.prepareRoot(); err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	return s.serve(ctx)
}

func newServer(cfg ServerConfig) (*server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Grace <= 0 {
		cfg.Grace = DefaultGrace
	}
	if cfg.Heartbeat <= 0 {
		cfg.Heartbeat = heartbeat
	}
	abs, err := filepath.Abs(cfg.Root)
	if err != nil {
		return nil, err
	}
	cfg.Root = abs
	root, err := os.OpenRoot(cfg.Root)
	if err != nil {
		return nil, err
	}
	return &server{
		cfg: cfg, log: cfg.Logger, root: root, base: baseEnv(cfg.Environ, cfg.Root), bootID: rand.Text(),
		family: newFamily(cfg.Dedicated), execs: map[string]*running{},
	}, nil
}

// dedicate makes the process a worker in the eyes of the kernel.
func (s *server) dedicate() error {
	unix.Umask(0o002) // files of commands stay writable for the volume's group
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopt orphans: %w", err)
	}
	// Commands run as the same user and must not read or steer this process.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid tracing: %w", err)
	}
	return nil
}

// prepareRoot makes the layout and removes scripts of an earlier life.
func (s *server) prepareRoot() error {
	if err := s.root.RemoveAll(scriptsDir); err != nil {
		return err
	}
	for _, dir := range []string{SourceDir, HomeDir, TempDir, OutDir} {
		if err := s.root.MkdirAll(dir, 0o775); err != nil {
			return err
		}
	}
	return nil
}

// serve listens and waits.
func (s *server) serve(ctx context.Context) error {
	// Requests end with ctx: a command whose request ended is ended.
	requests, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	web := newHTTPServer(requests, s)
	var err error
	if s.socket, err = listen(s.cfg.Socket); err != nil {
		return fmt.Errorf("listen on %s: %w", s.cfg.Socket, err)
	}
	s.log.InfoContext(ctx, "worker listening", "socket", s.cfg.Socket, "root", s.cfg.Root, "boot_id", s.bootID)

	var group sync.WaitGroup
	failed := make(chan error, 1)
	s.accept = func(sock *socket) {
		group.Go(func() {
			err := web.Serve(&guard{UnixListener: sock.listener, server: s})
			if !errors.Is(err, http.ErrServerClosed) && s.current(sock) {
				failed <- err
			}
		})
	}
	s.accept(s.socket)
	background, end := context.WithCancel(ctx)
	group.Go(func() { s.watch(background) })
	if s.cfg.Dedicated {
		group.Go(func() { s.reapLoop(background) })
	}
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("accept on %s: %w", s.cfg.Socket, err)
	}
	stop(errShutdown)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Grace+shutdownLimit)
	defer cancel()
	_ = web.Shutdown(last)
	_ = web.Close()
	end()
	s.mu.Lock()
	s.closed = true
	s.socket.close()
	s.mu.Unlock()
	group.Wait()
	return err
}

var errShutdown = errors.New("the worker is shutting down")

// current reports whether sock is the one in use.
func (s *server) current(sock *socket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.socket == sock
}

// watch puts the socket back when its file was moved, removed or replaced.
func (s *server) watch(ctx context.Context) {
	tick := time.NewTicker(watchPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.restoreSocket(ctx)
		}
	}
}

func (s *server) restoreSocket(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.socket.intact() {
		return
	}
	fresh, err := listen(s.cfg.Socket)
	if err != nil {
		s.log.ErrorContext(ctx, "socket lost", "socket", s.cfg.Socket, "err", err)
		return
	}
	s.log.WarnContext(ctx, "socket was removed or replaced, put back", "socket", s.cfg.Socket)
	old := s.socket
	s.socket = fresh
	_ = old.listener.Close()
	s.accept(fresh)
}

// reapLoop collects orphans.
func (s *server) reapLoop(ctx context.Context) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	defer signal.Stop(ended)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ended:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(reapPause):
		}
		s.family.reap()
	}
}
