// Package kube is the little of the Kubernetes API that aphex needs, on top
// of client-go's dynamic client: Workflows, task sets and WorkflowTemplates as
// small typed views, agent pods, ConfigMaps with optimistic concurrency, server-side apply
// of any manifest, and watches that survive being closed.
//
// It decides nothing: it does not retry writes, does not know what an object
// means to a pipeline, and never imports Argo's types. Errors of the API
// server are classified as ErrNotFound, ErrConflict, ErrExists and
// ErrForbidden; everything else passes through wrapped.
//
// Imported by plugin/execution, plugin/journal, plugin/nudge, plugin/watchdog,
// internal/handover, internal/reconcile, internal/revision, tasks/workflow and
// the composition root.
package kube
