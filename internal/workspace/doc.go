// Package workspace gives every stage of a run the same files: exactly the
// run's commit, and after the build exactly the commit plus what the build
// made of it.
//
// The files belong to the worker container. This package, in the container
// that holds the credentials, keeps a private clone and reaches the worker's
// files only as archives through the worker protocol; it never opens a path
// that user code can change. Stages in tasks/ use it through interfaces of
// their own.
package workspace
