// Package outputs is what later stages of a run know of the stack outputs of
// earlier ones: one file for each environment that the run has deployed, in the
// shape of `cdk deploy --outputs-file`.
package outputs
