// Package worker runs the user's code in its own container and nowhere else.
package worker
