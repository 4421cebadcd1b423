// Package nudge makes Argo's controller look at a run at once.
//
// The controller looks at the agent's results only every ten seconds, but at a
// changed Workflow immediately. So after a final reply the plugin changes an
// annotation of its own Workflow: once the result is where the controller
// will find it, which makes it copy the result, and once it has, which makes it
// start what comes next. Without nudges everything works as well, only slower.
//
// Source: measured with Argo v3.7.18; the Workflow informer's update handler
// hands the key to the throttler at once (workflow/controller/controller.go).
//
// Imported by the composition root.
package nudge
