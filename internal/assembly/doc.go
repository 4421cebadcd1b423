// Package assembly is a read-only view of a CDK cloud assembly: the folder a
// CDK app writes when it is synthesized.
//
// It reads files below the assembly's own folder and nothing else, talks to
// nobody and changes nothing. The synth and deploy stages use it.
package assembly
