// Package git runs the git program with a configuration of its own: no file of
// the machine or of a repository changes what it does, no hook or filter runs,
// and no prompt waits for somebody.
//
// Credentials are read from a mounted Secret at the moment git asks for them
// and given to the repository's own host alone; they are never in arguments,
// the environment, URLs or files. Failures are classified by what git says
// into the Repository… and Commit… reasons.
//
// internal/workspace uses it. It does not run submodules or large file
// storage.
package git
