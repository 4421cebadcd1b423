// Package sidecar composes the executor plugin's parts and gives them their
// order of life: listen at once, start, serve, drain, end.
//
// It is what cmd/aphex calls for `aphex plugin`; it reads neither environment
// nor flags.
package sidecar
