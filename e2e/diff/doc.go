// Package diff runs `aphex diff` as people do, in checkouts on this machine,
// against the AWS emulator.
package diff
