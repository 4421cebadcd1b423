// Package bounded makes a fuzz target fail for an input that takes very long or
// very much memory: Go's fuzzing itself lets either pass, and takes an input
// that never ends for the end of its time.
package bounded
