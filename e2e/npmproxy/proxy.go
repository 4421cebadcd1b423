// Package npmproxy lends the host's npm registry to pods of a test cluster: a
// read-only reverse proxy that keeps tarballs on disk, so that a second run
// installs without leaving the machine.
//
// Pods have neither the host's certificates nor its npm configuration; they
// only need the proxy's URL as npm_config_registry.
package npmproxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// maxBody bounds one answer of the registry. The largest tarball in use is
// aws-cdk-lib's with about 60 MB.
const maxBody = 512 << 20

// Proxy is a running proxy.
type Proxy struct {
	server   *http.Server
	listener net.Listener
	upstream string
	cache    string
	client   *http.Client

	mu    sync.Mutex
	locks map[string]*sync.Mutex
}

// Start serves the registry npm is configured with on a free port of address
// ("0.0.0.0" for pods). Tarballs are kept in cache. Close stops it.
func Start(ctx context.Context, address, cache string) (*Proxy, error) {
	out, err := exec.CommandContext(ctx, "npm", "config", "get", "registry").Output()
	if err != nil {
		return nil, fmt.Errorf("ask npm for its registry: %w", err)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("create the npm cache: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, fmt.Errorf("listen for npm: %w", err)
	}
	p := &Proxy{
		listener: listener, cache: cache, locks: map[string]*sync.Mutex{},
		upstream: strings.TrimSuffix(strings.TrimSpace(string(out)), "/"),
		client:   &http.Client{Timeout: 5 * time.Minute},
	}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = p.server.Serve(listener) }() // always ErrServerClosed after Close
	return p, nil
}

// Port is the port the proxy listens on.
func (p *Proxy) Port() int {
	addr, ok := p.listener.Addr().(*net.TCPAddr)
	if !ok {
		return 0
	}
	return addr.Port
}

// Close stops the proxy at once.
func (p *Proxy) Close() error { return p.server.Close() }

// ServeHTTP answers GET requests from the cache or the registry.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "read only", http.StatusMethodNotAllowed)
		return
	}
	sum := sha256.Sum256([]byte(r.URL.EscapedPath() + "\n" + r.Header.Get("Accept")))
	file := filepath.Join(p.cache, hex.EncodeToString(sum[:]))
	lock := p.lock(file)
	lock.Lock()
	defer lock.Unlock()
	body, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		body, err = p.fetch(r, file)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	if !strings.HasSuffix(r.URL.Path, ".tgz") {
		w.Header().Set("Content-Type", "application/json")
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// fetch asks the registry and keeps the answer.
func (p *Proxy) fetch(r *http.Request, file string) ([]byte, error) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, p.upstream+r.URL.EscapedPath(), nil)
	if err != nil {
		return nil, err
	}
	if accept := r.Header.Get("Accept"); accept != "" {
		req.Header.Set("Accept", accept)
	}
	res, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the registry answered %s for %s", res.Status, r.URL.Path)
	}
	temp := file + ".part"
	if err := os.WriteFile(temp, body, 0o644); err != nil {
		return nil, err
	}
	return body, os.Rename(temp, file)
}

func (p *Proxy) lock(file string) *sync.Mutex {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.locks[file] == nil {
		p.locks[file] = &sync.Mutex{}
	}
	return p.locks[file]
}
