// Package secretref reads secrets that a configuration names by reference.
// internal/notify uses it for the addresses and tokens of channels,
// tasks/build for the variables of build commands.
package secretref
