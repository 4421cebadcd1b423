package diff_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/e2e/aws"
)

// proxy is what one test's clients take for AWS: it records their calls, and
// holds, loses or refuses one.
type proxy struct {
	url string

	mu    sync.Mutex
	seen  []aws.Call
	fault func(aws.Call) verdict
	fired int
}

// verdict is what becomes of a call.
type verdict int

const (
	// pass hands it to the emulator.
	pass verdict = iota
	// lose hands it to the emulator and loses the answer.
	lose
	// refuse answers AccessDenied.
	refuse
	// linger hands it to the emulator after lingering, unless the client has
	// given it up by then.
	linger
)

// lingering is how long a client on a busy machine may need to notice a signal.
const lingering = 5 * time.Second

func newProxy(t *testing.T) *proxy {
	t.Helper()
	upstream, err := url.Parse(shared.DirectEndpoint())
	require.NoError(t, err)
	p := &proxy{fault: func(aws.Call) verdict { return pass }}
	forward := &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(upstream); r.Out.Host = r.In.Host },
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		call := aws.Describe(r, body)
		p.mu.Lock()
		p.seen = append(p.seen, call)
		fault := p.fault
		p.mu.Unlock()
		switch fault(call) {
		case lose:
			p.count()
			forward.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		case refuse:
			p.count()
			w.Header().Set("Content-Type", "text/xml")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not you</Message></Error></ErrorResponse>")
		case linger:
			select {
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			case <-time.After(lingering):
				forward.ServeHTTP(w, r)
			}
		case pass:
			forward.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

func (p *proxy) count() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fired++
}

// faults returns how many calls were lost or refused.
func (p *proxy) faults() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fired
}

// on decides what becomes of calls from now on.
func (p *proxy) on(fault func(aws.Call) verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = fault
}

// once gives the first call of an operation a verdict.
func (p *proxy) once(operation string, v verdict) {
	var came atomic.Bool
	p.on(func(c aws.Call) verdict {
		if c.Operation == operation && came.CompareAndSwap(false, true) {
			return v
		}
		return pass
	})
}

// all are the recorded calls.
func (p *proxy) all() []aws.Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]aws.Call(nil), p.seen...)
}

// calls are the recorded ones of an operation.
func (p *proxy) calls(operation string) []aws.Call {
	var out []aws.Call
	for _, c := range p.all() {
		if c.Operation == operation {
			out = append(out, c)
		}
	}
	return out
}

func (p *proxy) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = nil
}

// gate holds the first call of an operation.
type gate struct {
	operation string
	// reached is closed when the call is there, and release lets it go on.
	reached, release chan struct{}
}

// held makes a gate. A call that is never released never arrives.
func (p *proxy) held(t *testing.T, operation string) *gate {
	t.Helper()
	g := &gate{operation: operation, reached: make(chan struct{}), release: make(chan struct{})}
	ended := t.Context().Done() // just before the cleanup that waits for calls
	var came atomic.Bool
	p.on(func(c aws.Call) verdict {
		if c.Operation != operation || !came.CompareAndSwap(false, true) {
			return pass
		}
		close(g.reached)
		select {
		case <-g.release:
			return pass
		case <-ended:
			return refuse
		}
	})
	return g
}

// await waits until the call is there.
func (g *gate) await(ctx context.Context, t *testing.T) {
	t.Helper()
	limited, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	select {
	case <-g.reached:
	case <-limited.Done():
		t.Fatalf("no %s arrived", g.operation)
	}
}
