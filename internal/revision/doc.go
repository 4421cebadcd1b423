// Package revision keeps, per environment, which commit was deployed last, and
// refuses to let an older commit overwrite a newer one.
//
// The state lives in one ConfigMap per pipeline and is only ever written
// conditionally, so no order of runs can lose an update.
package revision
