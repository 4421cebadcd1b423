package solo

import (
	"bytes"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/aphex-pipeline/aphex/e2e/aws"
)

// Proxy stands between deployments and AWS: it counts calls, delays each, and
// lets somebody act on one.
type Proxy struct {
	server  *httptest.Server
	latency time.Duration

	mu    sync.Mutex
	calls map[string]int
	act   func(call aws.Call, forward func()) (answer bool)
}

// NewProxy starts a proxy before upstream that delays every call by latency.
// The caller closes it.
func NewProxy(upstream string, latency time.Duration) (*Proxy, error) {
	target, err := url.Parse(upstream)
	if err != nil {
		return nil, err
	}
	p := &Proxy{latency: latency, calls: map[string]int{}}
	next := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 100},
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	p.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, next) }))
	return p, nil
}

// URL is the endpoint for clients.
func (p *Proxy) URL() string { return p.server.URL }

// Close ends the proxy.
func (p *Proxy) Close() { p.server.Close() }

// On lets act decide about every call from now on: forward hands it to AWS, and
// the client gets the answer only if act returns true.
func (p *Proxy) On(act func(call aws.Call, forward func()) (answer bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.act = act
}

// Take returns how many calls of each operation ("cloudformation
// CreateChangeSet") there were since the last time, retries included.
func (p *Proxy) Take() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := maps.Clone(p.calls)
	clear(p.calls)
	return taken
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	var body []byte
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	call := aws.Describe(r, body)
	p.mu.Lock()
	p.calls[call.Service+" "+call.Operation]++
	act := p.act
	p.mu.Unlock()
	time.Sleep(p.latency)
	if act == nil {
		next.ServeHTTP(w, r)
		return
	}
	kept := httptest.NewRecorder()
	forward := sync.OnceFunc(func() { next.ServeHTTP(kept, r) })
	if !act(call, forward) {
		panic(http.ErrAbortHandler)
	}
	forward()
	maps.Copy(w.Header(), kept.Header())
	w.WriteHeader(kept.Code)
	_, _ = w.Write(kept.Body.Bytes()) // a client that is gone has no use for it
}
