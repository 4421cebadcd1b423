// Package cfn deploys one CloudFormation stack through a change set and can be
// interrupted anywhere: names and tokens follow from the execution, intents
// are written down before they are acted on, and a second process with the
// same execution joins what the first one began.
//
// It is the only package that speaks to CloudFormation. It knows nothing of
// the CDK, of roles or of pipelines; it never asks a person anything.
package cfn
