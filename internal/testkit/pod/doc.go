// Package pod runs the parts of an agent pod inside a test process: a real
// worker with real bash on a socket of its own, a real workspace with real git,
// and a folder that stands for the bucket.
//
// What it leaves out is the border between the containers: commands run as the
// user of the test. That border is for the end-to-end tests.
//
// Importable from tests only.
package pod
