package aws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// maxRecordedBody bounds what is kept of one request. Templates sent inline
// are at most 51,200 bytes.
const maxRecordedBody = 1 << 20

// Call is one request that a client made through Endpoint, retries included.
type Call struct {
	// Service is the signing name, such as "cloudformation" or "s3"; empty for
	// an unsigned call to an unknown service.
	Service string
	// Operation is AWS's name of the operation; for services other than S3
	// that speak REST, the method and path.
	Operation string
	// Region and AccessKey are from the signature, empty without one. The
	// access key of long-term credentials is the account.
	Region, AccessKey string
	// Path is the request's path with its query.
	Path string
	// Form holds the parameters of services that speak AWS's query protocol,
	// CloudFormation and STS among them. Nil otherwise.
	Form url.Values
	// Body is the request's body up to 1 MiB; nil for S3.
	Body []byte
	// Status is the status of the answer, 0 if the client got none or only a
	// part of one.
	Status int
	// Start and Duration say when and how long. Duration is 0 while the answer
	// is under way.
	Start    time.Time
	Duration time.Duration
}

// recorder is the reverse proxy that clients talk to. It hands everything to
// the fault proxy and keeps a list.
type recorder struct {
	url    string
	port   int
	server *http.Server
	served chan struct{}

	mu      sync.Mutex
	calls   []*Call
	scripts map[string]http.Handler
}

// Script lets a handler answer the calls of a service, by its signing name, in
// place of the emulator: what that does not do as AWS does. They are recorded
// like others.
func (e *Emulator) Script(service string, answers http.Handler) {
	e.recorder.mu.Lock()
	defer e.recorder.mu.Unlock()
	if e.recorder.scripts == nil {
		e.recorder.scripts = map[string]http.Handler{}
	}
	e.recorder.scripts[service] = answers
}

// answering returns who answers the calls of a service.
func (r *recorder) answering(service string, otherwise http.Handler) http.Handler {
	r.mu.Lock()
	defer r.mu.Unlock()
	if scripted := r.scripts[service]; scripted != nil {
		return scripted
	}
	return otherwise
}

// Calls returns the calls made through Endpoint since the start or the last
// ClearCalls, in the order in which they were answered. Whoever has an answer
// finds its call among them.
func (e *Emulator) Calls() []Call {
	e.recorder.mu.Lock()
	defer e.recorder.mu.Unlock()
	calls := make([]Call, len(e.recorder.calls))
	for i, call := range e.recorder.calls {
		calls[i] = *call
	}
	return calls
}

// ClearCalls forgets the recorded calls.
func (e *Emulator) ClearCalls() { e.recorder.clear() }

func (r *recorder) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = nil
}

func startRecorder(ctx context.Context, address, upstream string) (*recorder, error) {
	target, err := url.Parse(upstream)
	if err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp4", address)
	if err != nil {
		return nil, fmt.Errorf("listen for AWS calls: %w", err)
	}
	port, err := listenerPort(listener)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	r := &recorder{port: port, served: make(chan struct{})}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Host = p.In.Host
		},
		// On a connection of its own each call either gets its answer or not.
		// On a kept one, Go's transport would repeat calls that it holds for
		// safe, hiding a fault and doubling a call.
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		FlushInterval: -1,
		// A lost answer stays lost: the connection is closed without one.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     log.New(io.Discard, "", 0),
	}
	r.server = &http.Server{Handler: r.record(proxy), ReadHeaderTimeout: time.Minute}
	go func() {
		defer close(r.served)
		_ = r.server.Serve(listener) // always http.ErrServerClosed after stop; before it, clients see it
	}()
	return r, nil
}

func (r *recorder) stop() error {
	err := r.server.Close()
	<-r.served
	return err
}

func (r *recorder) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		call := Call{Start: time.Now(), Path: req.URL.RequestURI()}
		describe(&call, req)
		if call.Service != "s3" {
			body, err := io.ReadAll(req.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			req.Body = io.NopCloser(bytes.NewReader(body))
			describeBody(&call, req.Header.Get("Content-Type"), body)
		}
		list := sync.OnceFunc(func() { r.calls = append(r.calls, &call) })
		whole := false
		defer func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			if call.Duration = time.Since(call.Start); !whole {
				call.Status = 0
			}
			list()
		}()
		r.answering(call.Service, next).ServeHTTP(&statusWriter{w, func(code int) {
			r.mu.Lock()
			defer r.mu.Unlock()
			call.Status = code
			list()
		}}, req) // panics when the answer is cut off
		whole = true
	})
}

// Describe returns what a request's headers and body tell about the call: all
// of Call but the answer and the times.
func Describe(req *http.Request, body []byte) Call {
	call := Call{Path: req.URL.RequestURI()}
	describe(&call, req)
	if call.Service != "s3" {
		describeBody(&call, req.Header.Get("Content-Type"), body)
	}
	return call
}

// statusWriter tells the status of the answer before it is sent.
type statusWriter struct {
	http.ResponseWriter
	tell func(code int)
}

// WriteHeader tells the final status and passes all on.
func (s *statusWriter) WriteHeader(code int) {
	if code >= http.StatusOK {
		s.tell(code)
	}
	s.ResponseWriter.WriteHeader(code)
}

// Unwrap gives http.ResponseController the writer below.
func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// describe fills in what headers and path tell.
func describe(call *Call, req *http.Request) {
	scope := req.URL.Query().Get("X-Amz-Credential")
	if _, rest, ok := strings.Cut(req.Header.Get("Authorization"), "Credential="); ok {
		scope, _, _ = strings.Cut(rest, ",")
	}
	// access key / date / region / service / aws4_request
	if parts := strings.Split(scope, "/"); len(parts) == 5 {
		call.AccessKey, call.Region, call.Service = parts[0], parts[2], parts[3]
	}
	target := req.Header.Get("X-Amz-Target")
	_, cbor, isCBOR := strings.Cut(req.URL.Path, "/operation/")
	switch {
	case call.Service == "s3":
		call.Operation = s3Operation(req)
	case target != "":
		call.Operation = target[strings.LastIndex(target, ".")+1:]
	case isCBOR:
		call.Operation = cbor
	default:
		call.Operation = req.Method + " " + req.URL.Path
	}
}

// describeBody fills in what the body tells.
func describeBody(call *Call, contentType string, body []byte) {
	call.Body = body[:min(len(body), maxRecordedBody)]
	if !strings.HasPrefix(contentType, "application/x-www-form-urlencoded") {
		return
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || form.Get("Action") == "" {
		return
	}
	call.Form, call.Operation = form, form.Get("Action")
	if call.Service == "" && strings.HasPrefix(call.Operation, "AssumeRoleWith") {
		call.Service = "sts" // the only unsigned calls of the query protocol
	}
}

// multipartOperation names the operations of uploads in parts.
func multipartOperation(method string, query url.Values) string {
	switch {
	case query.Has("partNumber"):
		return "UploadPart"
	case query.Has("uploads"):
		return "CreateMultipartUpload"
	case method == http.MethodPost:
		return "CompleteMultipartUpload"
	case method == http.MethodDelete:
		return "AbortMultipartUpload"
	}
	return "ListParts"
}

// s3Operation names the S3 operations that deployments use.
func s3Operation(req *http.Request) string {
	query := req.URL.Query()
	_, key, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	on := "Bucket"
	if key != "" {
		on = "Object"
	}
	verb := map[string]string{http.MethodPut: "Put", http.MethodGet: "Get", http.MethodHead: "Head", http.MethodDelete: "Delete", http.MethodPost: "Post"}[req.Method]
	for parameter, name := range map[string]string{
		"location": "Location", "versioning": "Versioning", "encryption": "Encryption", "policy": "Policy", "lifecycle": "Lifecycle",
		"tagging": "Tagging", "acl": "Acl", "publicAccessBlock": "PublicAccessBlock",
	} {
		if query.Has(parameter) {
			return verb + on + name
		}
	}
	switch {
	case query.Has("partNumber"), query.Has("uploads"), query.Has("uploadId"):
		return multipartOperation(req.Method, query)
	case query.Get("list-type") == "2":
		return "ListObjectsV2"
	case key == "" && req.Method == http.MethodGet:
		return "ListObjects"
	case key == "" && req.Method == http.MethodPut:
		return "CreateBucket"
	case req.Header.Get("X-Amz-Copy-Source") != "":
		return "CopyObject"
	}
	return verb + on
}
