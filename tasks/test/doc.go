// Package test is the stage that runs an environment's test commands in the
// worker after its deployment, with the stack outputs and the environment's
// short-lived credentials at hand.
//
// It changes nothing that was deployed: a failing test leaves the
// infrastructure in place and stops the environments behind it.
package test
