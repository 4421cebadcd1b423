// Package store keeps objects by key: in an S3 bucket ([S3]) or in a local
// folder ([Dir]). Both have the same methods and the same meaning.
//
// Every object carries the SHA-256 of its bytes, taken before it is written
// and compared while it is read: a damaged object is an error, never data.
package store
