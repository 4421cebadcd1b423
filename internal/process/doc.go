// Package process runs one child process and leaves nothing of it behind:
// its own session and group, SIGTERM, a grace period, SIGKILL, bounded output
// and the cause of a cancellation instead of "signal: killed".
//
// It does not look into containers, change users or limit resources; that is
// the pod specification's part. It builds no environment: callers pass an
// allow-listed one. internal/worker and internal/git import it.
package process
