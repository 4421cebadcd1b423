// Package artifacts is what stages after the build know of its artifacts: where
// their commands find them, and that they are the ones that were published.
package artifacts
