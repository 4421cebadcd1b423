// Package commands runs a list of the user's commands in the worker, one after
// the other, as one shell would: the working directory and exported variables
// carry over, the first failure ends the list. Each has a heading, a result and
// a time of its own in the log.
//
// It also tells which program a command needs, so that a missing one is found
// before anything runs. tasks/build, tasks/test and tasks/validate import it.
package commands
