package cluster

import (
	"os"
	"path/filepath"
)

// auditLog is the file of AuditLog, in the folder of the logs.
const auditLog = "audit.log"

// AuditLog is the API server's log of every attempt by a service account of
// the tenant namespace to write, one JSON object of the audit.k8s.io API a
// line; empty with a provider that keeps none.
func (c *Cluster) AuditLog() string {
	if c.state.Provider != ProviderLocal {
		return ""
	}
	return filepath.Join(c.state.logs(), auditLog)
}

// auditFlags writes the policy of the audit log and returns what the API server
// needs to keep it.
func (l *local) auditFlags() ([]string, error) {
	policy := l.state.path("audit-policy.yaml")
	text := `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    verbs: [get, list, watch]
  - level: Metadata
    userGroups: ["system:serviceaccounts:` + l.state.Namespace + `"]
  - level: None
`
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return []string{"--audit-policy-file=" + policy, "--audit-log-path=" + filepath.Join(l.state.logs(), auditLog)}, nil
}
