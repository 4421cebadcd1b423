package chaos

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/aphex-pipeline/aphex/e2e/aws"
)

// forwardLimit bounds one forwarded call.
const forwardLimit = 2 * time.Minute

// server is an HTTP server of one run.
type server struct {
	http *http.Server
	port int
}

func (s *server) close() error { return s.http.Close() }

// serve serves on a free port of all interfaces; with TLS if there is a
// certificate.
func serve(ctx context.Context, handler http.Handler, certFile, keyFile string) (*server, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp4", "0.0.0.0:0")
	if err != nil {
		return nil, err
	}
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return nil, errors.Join(errors.New("the listener has no TCP address"), listener.Close())
	}
	s := &server{
		http: &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)},
		port: address.Port,
	}
	go func() { // always http.ErrServerClosed after close; before it, clients see it
		if certFile != "" {
			_ = s.http.ServeTLS(listener, certFile, keyFile)
			return
		}
		_ = s.http.Serve(listener)
	}()
	return s, nil
}

// passage hands requests on, those that change something under the eyes of
// the tap.
type passage struct {
	tap       *tap
	target    *url.URL
	transport http.RoundTripper
	// name returns verb and object of an effect; ok is false for a request
	// that changes nothing.
	name func(req *http.Request, body []byte) (kind, verb, object string, ok bool)
	// done is told about an effect that was answered. May be nil.
	done func(req *http.Request, body []byte, status int)
}

// ServeHTTP hands one request on.
func (p *passage) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		p.reverse().ServeHTTP(w, req)
		return
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	kind, verb, object, ok := p.name(req, body)
	if !ok {
		p.reverse().ServeHTTP(w, req)
		return
	}
	point, index := p.tap.begin(kind, verb, object)
	if p.tap.reach(point, Before) {
		panic(http.ErrAbortHandler) // whoever asked is dead
	}
	answer, err := p.forward(req, body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	p.tap.answered(index, answer.status)
	if p.done != nil {
		p.done(req, body, answer.status)
	}
	if p.tap.reach(point, After) || p.tap.loses(point) {
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), answer.header)
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.body) // a client that is gone has no use for it
}

// answer is the whole answer to one request.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// reverse is the plain proxy for everything that changes nothing.
func (p *passage) reverse() http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(p.target)
			r.Out.Host = r.In.Host
		},
		Transport: p.transport, FlushInterval: -1,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     log.New(io.Discard, "", 0),
	}
}

// forward lets a request take effect whatever becomes of the one who asked,
// and returns the whole answer.
func (p *passage) forward(req *http.Request, body []byte) (*answer, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), forwardLimit)
	defer cancel()
	out, err := http.NewRequestWithContext(ctx, req.Method, p.target.String()+req.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	out.Header, out.Host = req.Header.Clone(), req.Host
	for _, hop := range []string{"Expect", "Connection", "Transfer-Encoding"} {
		out.Header.Del(hop)
	}
	resp, err := p.transport.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	whole, err := io.ReadAll(resp.Body)
	return &answer{status: resp.StatusCode, header: resp.Header, body: whole}, errors.Join(err, resp.Body.Close())
}

// newAWSPassage stands before the emulated AWS.
func newAWSPassage(t *tap, endpoint string, names *names) (*passage, error) {
	target, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	return &passage{
		tap: t, target: target,
		// As the recorder of e2e/aws: no call is repeated by the transport.
		transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		name: func(req *http.Request, body []byte) (kind, verb, object string, ok bool) {
			call := aws.Describe(req, body)
			return KindAWS, call.Operation, names.awsObject(call), mutates(call)
		},
		done: func(req *http.Request, body []byte, status int) {
			if call := aws.Describe(req, body); call.Operation == "ExecuteChangeSet" && status == http.StatusOK {
				t.mu.Lock()
				defer t.mu.Unlock()
				t.executed[names.awsObject(call)]++
			}
		},
	}, nil
}

var reads = regexp.MustCompile(`^(Get|List|Describe|Head|AssumeRole|Validate|Detect)`)

func mutates(call aws.Call) bool { return !reads.MatchString(call.Operation) }

// names makes the names of things equal in all runs.
type names struct {
	pipeline string
}

var (
	uidForm  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	hashForm = regexp.MustCompile(`[0-9a-f]{64}`)
	shaForm  = regexp.MustCompile(`[0-9a-f]{40}`)
	hexForm  = regexp.MustCompile(`-[0-9a-f]{16}\b`)
	timeForm = regexp.MustCompile(`\d{8}T\d{6}(\.\d+)?Z`)
	// partForm is the number and place of a piece of a log.
	partForm = regexp.MustCompile(`\d{4}-\d{12}\.log`)
	// runForm is the name of a run in the index of runs.
	runForm = regexp.MustCompile(`=\{pipeline\}-[a-z0-9]{5}\b`)
)

// plain replaces what differs between runs.
func (n *names) plain(text string) string {
	text = strings.ReplaceAll(text, n.pipeline, "{pipeline}")
	text = runForm.ReplaceAllString(text, "={run}")
	text = uidForm.ReplaceAllString(text, "{uid}")
	text = hashForm.ReplaceAllString(text, "{hash}")
	text = timeForm.ReplaceAllString(text, "{try}")
	text = partForm.ReplaceAllString(text, "{piece}.log")
	text = shaForm.ReplaceAllString(text, "{commit}")
	return hexForm.ReplaceAllString(text, "-{id}")
}

// awsObject is what a call changes: a stack's name, or bucket and key.
func (n *names) awsObject(call aws.Call) string {
	if call.Service == "s3" {
		path, _, _ := strings.Cut(call.Path, "?")
		return n.plain(strings.TrimPrefix(path, "/"))
	}
	stack := call.Form.Get("StackName")
	if strings.HasPrefix(stack, "arn:") {
		_, stack, _ = strings.Cut(stack, "/")
		stack, _, _ = strings.Cut(stack, "/")
	}
	return n.plain(stack)
}
