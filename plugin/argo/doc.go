// Package argo is the wire of an Argo Workflows executor plugin: the request
// of POST /api/v1/template.execute, the step body that aphex's generator puts
// into it, and the replies.
//
// It is data only: it decodes, checks and encodes, and knows nothing of what
// is behind. It reads the request with structs of its own, which fit Argo v3.7
// and v4.1 alike. Imported by plugin/server and plugin/execution.
//
// Source: Argo v3.7.18, workflow/executor/agent.go, workflow/util/plugins and
// pkg/plugins/executor.
package argo
