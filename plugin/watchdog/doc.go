// Package watchdog keeps what a run's task set says about our nodes true: it
// hands in a result that was lost between the agent and the controller, and
// removes results that nobody waits for any more.
//
// Both are needed because Argo delivers a result at most once. The agent drops
// one whose patch failed for long enough, and the controller removes one from
// the task set before it has written the Workflow; either way the agent thinks
// that it is done and the run waits for ever. An entry that stays behind is as
// bad: after `argo retry` the controller gives it to the new node, which then
// ends without having run, or stops at every reconcile because there is no such
// node.
//
// Whatever is written is conditional on the version of the task set that was
// read before the Workflow was: if anybody wrote meanwhile, nothing happens. A
// result is handed in only if all of this held at two looks in a row, well
// after the reply: the task set asks for the node and has no entry for it, the
// Workflow is the same try of the same run, neither finished nor being shut
// down, and has the node unfulfilled. An entry is removed only if it belongs to
// a node of ours and the Workflow is finished, or neither task set nor Workflow
// know the node. An entry of an unfinished node is never touched: it may be the
// agent's own word that the stage failed.
//
// Source: workflow/controller (reconcileTaskSet, persistUpdates) and
// workflow/executor/agent.go of Argo v3.7.18.
//
// Imported by the composition root.
package watchdog
