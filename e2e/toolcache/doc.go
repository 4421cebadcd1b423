// Package toolcache builds the binaries that the test cluster needs and keeps
// them outside the repository, under a name that is the hash of everything
// they were built from: the committed build module, the Go toolchain, the
// flags.
//
// An entry is built in a temporary directory and renamed into place together
// with a list of SHA-256 sums. The list is checked before every use; an entry
// that is damaged, incomplete or has files too many is built anew. A lock per
// entry keeps two processes from building the same thing at once.
//
// The package downloads nothing but Go modules, through the go command. It is
// used by package cluster and by commands under e2e.
package toolcache
