// Package manifests holds what a cluster needs besides Argo itself: base, once
// per namespace, and container beside it for runner: container; policies, once
// per cluster; samples, to be copied.
//
// The samples' workflowtemplate.yaml is generated: `go test ./manifests
// -update` writes it again.
package manifests
