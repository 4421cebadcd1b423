package parity

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync"
)

// tap is the endpoint of one deployment: what passes through it belongs to
// that deployment alone, however many run beside it.
type tap struct {
	server *httptest.Server

	mu       sync.Mutex
	requests []request
}

// request is one call of a service with a query protocol, or one of S3.
type request struct {
	Operation string // of a query protocol; empty for others
	Form      url.Values
	Method    string
	Path      string
	Query     url.Values
	Status    int
}

func newTap(upstream string) (*tap, error) {
	target, err := url.Parse(upstream)
	if err != nil {
		return nil, err
	}
	t := &tap{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Host = p.In.Host
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	t.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if imagePresent(w, r) {
			return
		}
		seen := request{Method: r.Method, Path: r.URL.Path, Query: r.URL.Query()}
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			if form, err := url.ParseQuery(string(body)); err == nil {
				seen.Form, seen.Operation = form, form.Get("Action")
			}
			body = pathStyle(body, seen.Form, upstream)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		}
		status := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		proxy.ServeHTTP(status, r)
		seen.Status = status.status
		t.mu.Lock()
		defer t.mu.Unlock()
		t.requests = append(t.requests, seen)
	}))
	return t, nil
}

// pathStyle puts the emulator's address into a template URL that has the bucket
// in its host name, as the command line writes it for an uploaded template. The
// emulator does not check signatures.
func pathStyle(body []byte, form url.Values, upstream string) []byte {
	template := form.Get("TemplateURL")
	m := regexp.MustCompile(`^https://([^./]+)\.s3\.[^/]+/(.+)$`).FindStringSubmatch(template)
	if m == nil {
		return body
	}
	return bytes.Replace(body, []byte(url.QueryEscape(template)), []byte(url.QueryEscape(upstream+"/"+m[1]+"/"+m[2])), 1)
}

func (t *tap) close() { t.server.Close() }

// seen returns what passed so far.
func (t *tap) seen() []request {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]request(nil), t.requests...)
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (s *statusWriter) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }
