// Package synth turns a CDK app of the workspace into a cloud assembly.
//
// It runs the app itself, in the worker, under the protocol between the CDK
// CLI and its library (environment variables, context keys, output folder), so
// that templates are byte for byte those of `cdk synth`. The assembly is
// copied into the sidecar's private folder before anyone looks at it; an
// assembly that must not be deployed (missing context, error annotations,
// failed validation) is a fault.
//
// It needs no CDK CLI and never hands credentials to the app. It deploys
// nothing and does not store assemblies: tasks/deploy does.
package synth
