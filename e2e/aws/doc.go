// Package aws runs the AWS that the end-to-end tests deploy to: the emulator
// ministack behind the fault proxy microburst, both pinned by hash and
// installed outside the repository.
//
// One emulator holds any number of accounts, kept apart: the access key id is
// the account, twelve digits, and every secret is accepted. What it checks
// less strictly than AWS is listed in the test evidence; what the tests need
// beyond it is added by exact edits of the installed package (gaps.go).
//
// Calls made through Endpoint are recorded and meet the rules of the fault
// proxy. Calls made through DirectEndpoint are neither recorded nor disturbed:
// that is the way to look at what a test has caused.
//
// It needs Linux, Python 3.10 or later with venv and pip, and for Bootstrap
// also node and npm. It is imported by tests under e2e.
package aws
