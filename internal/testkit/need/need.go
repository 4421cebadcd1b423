package need

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// Variable is the environment variable that lists what a machine has.
const Variable = "APHEX_REQUIRE"

// What a test can need.
const (
	// Emulator is the AWS emulator: Python and a package index, node and npm.
	Emulator = "emulator"
	// Images is the building of container images: buildah or Docker, and root.
	Images = "images"
	// Cluster is a Kubernetes cluster with Argo.
	Cluster = "cluster"
)

// Listed says whether the machine declares to have a feature.
func Listed(feature string) bool {
	return slices.Contains(strings.Split(os.Getenv(Variable), ","), feature)
}

// Require skips the test unless the machine declares to have each feature.
func Require(tb testing.TB, features ...string) {
	tb.Helper()
	for _, feature := range features {
		if !Listed(feature) {
			tb.Skipf("needs %s: set %s=%s where it can run", feature, Variable, feature)
		}
	}
}
