// Package cache keeps what builds would otherwise make anew in every run, in
// the bucket. tasks/build imports it.
//
// A cache is a convenience: nothing that is wrong with one fails a build, and
// what comes out of the bucket is no more trusted than what user code writes.
// It is taken apart in this process, only entries below the configured paths
// are passed on, and the worker writes them without following a link.
package cache
