// Package archtest holds the tests of the rules that span packages: who may
// import whom, what the shipped binary carries, how long a file may be. The
// linter covers the rules that one file can break alone.
package archtest
