// Package workflow turns a pipeline's configuration into the WorkflowTemplate
// that Argo runs, and keeps the one in the cluster up to date.
//
// Generate is pure: configuration and installation in, bytes out, equal input
// gives equal bytes. The runner of NewStage is the deploy-pipeline stage: it
// generates from the run's own commit and applies the result. Nothing here
// starts runs or knows what the stages do; step bodies carry identity and
// names only. cmd/aphex alone imports the package.
package workflow
