// Package store holds the tests of the S3 object store against the emulator.
package store
