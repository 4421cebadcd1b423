package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Write is an attempt of aphex to change an object of the cluster.
type Write struct {
	// Account is the name of the service account, Pod the host name of who did
	// it: that of its pod.
	Account, Pod string
	// Verb is that of the API, Resource with its subresource: "patch",
	// "workflowtasksets/status".
	Verb, Resource string
	// Namespace and Name are those of the object.
	Namespace, Name string
	// Code is the HTTP status of the answer.
	Code int
}

func (w Write) String() string {
	return fmt.Sprintf("%s of %s: %s %s %s/%s (%d)", w.Pod, w.Account, w.Verb, w.Resource, w.Namespace, w.Name, w.Code)
}

// auditEvent is what is needed of an Event of the audit.k8s.io API.
type auditEvent struct {
	Verb      string `json:"verb"`
	UserAgent string `json:"userAgent"`
	User      struct {
		Username string `json:"username"`
	} `json:"user"`
	ObjectRef struct {
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
	} `json:"objectRef"`
	ResponseStatus struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

// Writes are all attempts of aphex's processes in pods to write since the
// cluster was made, wherever in it. It needs a cluster with an audit log.
func (l *Lab) Writes() ([]Write, error) {
	path := l.Cluster.AuditLog()
	if path == "" {
		return nil, errors.New("the cluster keeps no audit log; set APHEX_CLUSTER to local")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var out []Write
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event auditEvent
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		agent, pod, _ := strings.Cut(event.UserAgent, " (")
		if !strings.HasPrefix(agent, "aphex/") {
			continue
		}
		w := Write{
			Pod: strings.TrimSuffix(pod, ")"), Verb: event.Verb, Resource: event.ObjectRef.Resource,
			Namespace: event.ObjectRef.Namespace, Name: event.ObjectRef.Name, Code: event.ResponseStatus.Code,
		}
		w.Account = event.User.Username[strings.LastIndex(event.User.Username, ":")+1:]
		if event.ObjectRef.Subresource != "" {
			w.Resource += "/" + event.ObjectRef.Subresource
		}
		out = append(out, w)
	}
	return out, lines.Err()
}
