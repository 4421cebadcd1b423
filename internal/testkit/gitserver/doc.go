// Package gitserver runs a real git server inside a test process.
//
// It serves bare repositories over HTTP with the installed git's own
// http-backend, so that a client under test meets the protocol, the refusals
// and the messages of git and not those of an imitation. It can ask for a user
// name and password, allow or forbid partial clones and fetches of arbitrary
// commits, and speak the old protocol only.
//
// It is imported by tests and by e2e, never by anything that ships. It needs
// git with its http-backend on the PATH and nothing else: no root, no network
// beyond the address it listens on.
package gitserver
