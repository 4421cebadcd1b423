// Package execution runs stages on behalf of the agent's calls: one execution
// per request key, whatever number of calls ask for it.
//
// A call only ever waits for an execution. The work itself runs on the
// engine's context, so a call that is given up cancels nothing. What is
// answered, in this order: for a short while nothing (a stage that ends at
// once is answered at once), then one Running report, then quiet polls of up
// to Config.LongPoll each, then the final reply, and that one for ever.
//
// An execution is begun in the run's journal before its stage acts, and its
// final reply is in the journal before it is sent. A process that finds an
// execution begun runs its stage again; one that finds it ended replays the
// reply. A process that has lost the journal to a newer pod, or that is being
// shut down, answers quiet polls only: whatever it said could reach the node
// of a later try.
//
// The epoch of a run, which separates the tries made by `argo retry`, is the
// Workflow's status.startedAt. Without the right to read Workflows there is
// none; then an older pod's success is replayed and its failure is run again,
// which cannot tell a retry from a call that is delivered twice around the
// loss of a pod: a stage that failed just before its pod was lost may run a
// second time.
//
// It knows neither HTTP nor Kubernetes. Imported by plugin/server (through an
// interface) and plugin/sidecar.
package execution
