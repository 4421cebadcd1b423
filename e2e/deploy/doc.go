// Package deploy tests the deployment of stacks and environments against the
// AWS emulator: everything but the CDK app is the real thing.
package deploy
