// Package parity compares deployments by aphex with deployments by the
// real CDK command line: the same CDK app, brought into the same prior state,
// is deployed by each into an account of its own, and afterwards the two
// accounts must hold the same things. Differences that are meant are listed in
// allowed.json, each with its reason.
//
// The two accounts have the same number, in two emulators: the number is part
// of templates, so of their digests and of object keys, and with the same one
// everything can be compared byte for byte.
//
// What the command line does takes minutes and does not change, so it is kept
// in recorded/ and valid for as long as the app, the command line, the library
// and the emulator are what they were.
package parity
