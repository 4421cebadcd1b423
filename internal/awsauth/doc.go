// Package awsauth turns the process's AWS identity into the credentials of one
// target account: by assuming a role where one is named, and never without
// proving that the account reached is the one meant.
//
// Credentials renew themselves for as long as a deployment lasts.
package awsauth
