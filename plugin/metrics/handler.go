package metrics

import (
	"encoding/json"
	"net/http"

	"github.com/aphex-pipeline/aphex/plugin/argo"
)

// Path is where the page is.
const Path = "/metrics"

// maxInspected bounds what is looked at of an answer; replies are smaller.
const maxInspected = 128 << 10

// Handler serves the page at Path and counts the answers next gives to POST
// requests, which are the agent's calls.
func (m *Metrics) Handler(next http.Handler) http.Handler {
	page := m.Page()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodGet && r.URL.Path == Path:
			page.ServeHTTP(w, r)
		case r.Method == http.MethodPost:
			answered := &answer{ResponseWriter: w, status: http.StatusOK}
			next.ServeHTTP(answered, r)
			m.calls.WithLabelValues(answered.kind()).Inc()
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// answer keeps what passes through.
type answer struct {
	http.ResponseWriter

	status int
	body   []byte
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	if len(a.body)+len(p) <= maxInspected {
		a.body = append(a.body, p...)
	}
	return a.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController find the writer behind.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// kind is what the agent makes of the answer.
func (a *answer) kind() string {
	switch a.status {
	case http.StatusOK:
	case http.StatusForbidden:
		return "denied"
	case http.StatusServiceUnavailable:
		return "starting"
	default:
		return other
	}
	var reply argo.Reply
	if json.Unmarshal(a.body, &reply) != nil {
		return other
	}
	switch {
	case reply.Node == nil:
		return "not_mine"
	case reply.Node.Phase == "":
		return "quiet"
	case reply.Node.Phase == argo.Running:
		return "running"
	case reply.Node.Phase == argo.Succeeded:
		return "succeeded"
	case reply.Node.Phase == argo.Failed:
		return "failed"
	case reply.Node.Phase == argo.Error:
		return "error"
	}
	return other
}
