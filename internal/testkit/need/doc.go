// Package need lets a test say what it cannot run without: the emulator, the
// images, a cluster.
//
// A machine that has it lists it in the environment variable APHEX_REQUIRE,
// separated by commas. A test whose need is listed must run, and fails where
// that is impossible; a test whose need is not listed is skipped. So a laptop
// runs what it can and CI cannot skip by accident.
package need
