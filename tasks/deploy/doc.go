// Package deploy is the deploy-env stage: it synthesizes the commit's CDK apps
// for one environment and deploys exactly the configured stacks, in order.
//
// An older commit never overwrites a newer one, nothing is written before the
// account was proved, and the outputs of all stacks end up in one document.
package deploy
