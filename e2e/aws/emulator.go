package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// healthLimit bounds the wait for a server that was started. Alone it
	// answers within a second; a machine busy with compilers takes longer.
	healthLimit = 60 * time.Second
	// healthPoll is the pause between two questions for health.
	healthPoll = 50 * time.Millisecond
	// upstreamLimit bounds the look at an endpoint that was given.
	upstreamLimit = 5 * time.Second
	// startTries covers another process taking a port between its choice and
	// its use.
	startTries = 3
)

// Accounts that the tests use by convention. Any twelve digits are an account.
const (
	// AccountTools is the account that pipelines run in.
	AccountTools = "111111111111"
	// AccountTarget is a second account, whose bootstrap trusts AccountTools.
	AccountTarget = "222222222222"
)

// Config says how to run the emulator.
type Config struct {
	// Address is the IP address or name that clients use, put into every URL.
	// Empty means "127.0.0.1". With any other address the servers listen on
	// all interfaces.
	Address string
	// Upstream is the URL of an endpoint that emulates AWS and already runs,
	// such as "http://127.0.0.1:4566". It takes the access key for the account,
	// as ministack does, and is neither emptied nor stopped. Empty starts
	// ministack.
	Upstream string
	// CacheDir keeps what is installed. Empty means $APHEX_CACHE, else
	// .cache/aphex in the home directory.
	CacheDir string
	// LogDir receives the logs of the servers. Empty means a temporary
	// directory that Stop removes.
	LogDir string
	// Log receives a line about each slow step and the output of installers.
	// Nil discards it.
	Log io.Writer
}

// Emulator is a running emulator. It is safe for use by several goroutines.
type Emulator struct {
	config   Config
	venv     string
	dir      string
	ownsLogs bool

	ministack, microburst *process
	direct, control       string // base URLs
	recorder              *recorder

	bootstrapMu sync.Mutex
	cdkDir      string
}

// DefaultCacheDir is where installed things are kept unless a Config says
// otherwise.
func DefaultCacheDir() (string, error) {
	if dir := os.Getenv("APHEX_CACHE"); dir != "" {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w; set APHEX_CACHE", err)
	}
	return filepath.Join(home, ".cache", "aphex"), nil
}

// Start installs what is missing, starts an empty emulator and waits until it
// answers. The caller stops it. The context bounds the start, not the life.
func Start(ctx context.Context, config Config) (*Emulator, error) {
	if config.Address == "" {
		config.Address = "127.0.0.1"
	}
	if config.Log == nil {
		config.Log = io.Discard
	}
	if config.CacheDir == "" {
		dir, err := DefaultCacheDir()
		if err != nil {
			return nil, err
		}
		config.CacheDir = dir
	}
	venv, err := installVenv(ctx, config.CacheDir, config.Log)
	if err != nil {
		return nil, err
	}
	e := &Emulator{config: config, venv: venv}
	if err := e.makeDirs(); err != nil {
		return nil, err
	}
	for range startTries {
		if err = e.start(ctx); err == nil {
			return e, nil
		}
		err = errors.Join(err, e.stopServers())
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(err, e.removeDirs())
}

// Stop ends the servers, waits for them and removes their state.
func (e *Emulator) Stop() error {
	return errors.Join(e.stopServers(), e.removeDirs())
}

// Endpoint is the URL for the clients under test: recorded, and subject to
// Rules.
func (e *Emulator) Endpoint() string { return e.recorder.url }

// DirectEndpoint is the URL of the emulator itself, beside recorder and
// faults.
func (e *Emulator) DirectEndpoint() string { return e.direct }

// LogDir is where the servers' logs are, ministack.log and microburst.log.
func (e *Emulator) LogDir() string { return e.config.LogDir }

// Reset empties all accounts, the rules and the recorded calls. An endpoint
// that was given cannot be emptied: that is an error.
func (e *Emulator) Reset(ctx context.Context) error {
	if e.config.Upstream != "" {
		return fmt.Errorf("empty the emulator: %s was given, not started", e.config.Upstream)
	}
	if err := e.ClearRules(ctx); err != nil {
		return err
	}
	if _, err := request(ctx, http.MethodPost, e.direct+"/_ministack/reset", nil); err != nil {
		return fmt.Errorf("empty the emulator: %w", err)
	}
	e.recorder.clear()
	return nil
}

func (e *Emulator) makeDirs() error {
	dir, err := os.MkdirTemp("", "aphex-emulator-")
	if err != nil {
		return fmt.Errorf("make directory for the emulator: %w", err)
	}
	e.dir = dir
	if e.config.LogDir == "" {
		e.config.LogDir, e.ownsLogs = filepath.Join(dir, "log"), true
	}
	for _, d := range []string{e.config.LogDir, filepath.Join(dir, "tmp"), filepath.Join(dir, "state")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("make directory for the emulator: %w", err)
		}
	}
	return nil
}

func (e *Emulator) removeDirs() error { return os.RemoveAll(e.dir) }

func (e *Emulator) start(ctx context.Context) error {
	upstream, err := e.startUpstream(ctx)
	if err != nil {
		return err
	}
	port, err := freePort(ctx)
	if err != nil {
		return err
	}
	python := filepath.Join(e.venv, "bin", "python")
	e.control = fmt.Sprintf("http://127.0.0.1:%d", port)
	e.microburst, err = startProcess("microburst", filepath.Join(e.config.LogDir, "microburst.log"), e.serverEnv(), []string{
		python, "-m", "microburst", "--no-resign", "--upstream", upstream, "--host", "127.0.0.1", "--port", strconv.Itoa(port),
	})
	if err != nil {
		return err
	}
	if err := awaitHealth(ctx, e.microburst, e.control+"/_microburst/health"); err != nil {
		return err
	}
	e.recorder, err = startRecorder(ctx, net.JoinHostPort(e.bindHost(), "0"), e.control)
	if err != nil {
		return err
	}
	e.recorder.url = e.baseURL(e.recorder.port)
	return nil
}

// startUpstream starts ministack, unless an endpoint is given, and returns the
// URL of what answers, for processes of this machine.
func (e *Emulator) startUpstream(ctx context.Context) (string, error) {
	if given := strings.TrimSuffix(e.config.Upstream, "/"); given != "" {
		e.direct = given
		return given, reachable(ctx, given)
	}
	port, err := freePort(ctx)
	if err != nil {
		return "", err
	}
	e.direct = e.baseURL(port)
	env := append(e.serverEnv(), "GATEWAY_PORT="+strconv.Itoa(port), "MINISTACK_HOST="+e.config.Address, "BIND_HOST="+e.bindHost(),
		"STATE_DIR="+filepath.Join(e.dir, "state"))
	python := filepath.Join(e.venv, "bin", "python")
	e.ministack, err = startProcess("ministack", filepath.Join(e.config.LogDir, "ministack.log"), env, []string{python, "-m", "ministack"})
	if err != nil {
		return "", err
	}
	loopback := fmt.Sprintf("http://127.0.0.1:%d", port)
	return loopback, awaitHealth(ctx, e.ministack, loopback+"/_ministack/health")
}

// reachable says whether anything answers at a given endpoint. What it answers
// to a request without a signature differs between emulators.
func reachable(ctx context.Context, endpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, upstreamLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, http.NoBody)
	if err != nil {
		return fmt.Errorf("the AWS endpoint %q is no URL: %w", endpoint, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("the AWS endpoint given does not answer: %w; start it, or give none to have one started", err)
	}
	return resp.Body.Close()
}

func (e *Emulator) stopServers() error {
	var errs []error
	if e.recorder != nil {
		errs = append(errs, e.recorder.stop())
	}
	for _, p := range []*process{e.microburst, e.ministack} {
		if p != nil {
			errs = append(errs, p.stop())
		}
	}
	e.recorder, e.microburst, e.ministack = nil, nil, nil
	return errors.Join(errs...)
}

// serverEnv is the environment of the servers: nothing of the caller's AWS or
// Python configuration reaches them. PATH is passed on because functions in
// JavaScript run with the node found there.
func (e *Emulator) serverEnv() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + e.dir,
		"TMPDIR=" + filepath.Join(e.dir, "tmp"),
		"LANG=C.UTF-8",
		"PYTHONDONTWRITEBYTECODE=1",
		"PYTHONUNBUFFERED=1",
		"PYTHONNOUSERSITE=1",
	}
}

// bindHost is the address to listen on.
func (e *Emulator) bindHost() string {
	ip := net.ParseIP(e.config.Address)
	if e.config.Address == "localhost" || (ip != nil && ip.IsLoopback()) {
		return "127.0.0.1"
	}
	return "0.0.0.0"
}

func (e *Emulator) baseURL(port int) string {
	return "http://" + net.JoinHostPort(e.config.Address, strconv.Itoa(port))
}

// freePort returns a port that nobody listens on just now.
func freePort(ctx context.Context) (int, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp4", "0.0.0.0:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port, err := listenerPort(listener)
	return port, errors.Join(err, listener.Close())
}

func listenerPort(listener net.Listener) (int, error) {
	addr, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("listener has a %T, not a TCP address", listener.Addr())
	}
	return addr.Port, nil
}

// awaitHealth waits until url answers 200.
func awaitHealth(ctx context.Context, p *process, url string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, healthLimit, fmt.Errorf("%s did not answer within %s", p.name, healthLimit))
	defer cancel()
	for {
		if p.exited() {
			return fmt.Errorf("%s ended while starting: %w; its log ends: %s", p.name, p.err, tail(p.log))
		}
		_, err := request(ctx, http.MethodGet, url, nil)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w (last answer: %w; log ends: %s)", p.name, context.Cause(ctx), err, tail(p.log))
		case <-p.done:
		case <-time.After(healthPoll):
		}
	}
}

// tail returns the end of a log for an error message.
func tail(path string) string {
	const most = 1000
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(data[max(0, len(data)-most):]))
}
