// Package build is the stage that runs the user's build commands in the
// worker, publishes the artifacts and saves what the build made, so that later
// stages and fresh pods need not build again.
package build
