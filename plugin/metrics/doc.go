// Package metrics counts what the sidecar does and shows it to Prometheus.
//
// The counted parts know nothing of it: it wraps what the composition root
// puts between them (stages, recorder, journal, cluster, logs, HTTP handler).
// Labels have few and known values: stages, phases, reasons, kinds of answers.
// Names of runs, pipelines, environments, stacks, branches and repositories
// are in none, nor is anything a user wrote, so that the page can be shown to
// whoever reaches it.
//
// An agent pod lives as long as its run, and its counters with it. What is to
// be kept longer belongs into the record of the run.
//
// Imported by the composition root.
package metrics
