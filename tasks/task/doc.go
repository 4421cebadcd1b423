// Package task is the contract between whatever runs stages (the executor
// plugin, the command line) and the stages themselves.
//
// It holds types only. Runners live in the other folders of tasks/; whoever
// composes them (cmd/aphex) registers them explicitly.
package task
