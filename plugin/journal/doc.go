// Package journal keeps what the plugin intended, did and answered, outside
// the process and, in a cluster, outside the pod: one Book per run.
//
// A Book is a small document that only one process may write. Every change is
// durable when the call returns; calls that arrive together are written
// together by one goroutine. Whoever opens a book claims it: a process that
// held it before finds out at its next write and gets ErrFenced from then on,
// so that an old pod that lives on can neither act nor answer.
//
// There are two places for books: a ConfigMap owned by the run's Workflow
// (NewKube) and a file (NewFiles), for local use. Entries of earlier tries of
// a run stay readable. Entries that do not fit into a ConfigMap are moved to the
// bucket (WithOverflow) and referred to.
//
// Imported by plugin/execution and the composition root.
package journal
