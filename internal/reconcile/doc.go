// Package reconcile finishes from outside what a run could not finish itself:
// a run that was terminated, or whose agent pod was lost, has nobody left to
// close its record; a failed agent pod keeps its run from going on.
//
// One Pass looks at a namespace, does what there is to do and ends. It keeps
// nothing: whatever it is killed at, and however many work at once, the next
// Pass finds what is left by looking. It never touches a run that is not over
// and whose pod has not failed, and deletes nothing that has changed since it
// was read.
//
// The end of a run whose record it closes, or cannot close for long, is
// announced to the channels that the run's finish stage would have told, with
// the key it would have had, and its figures are sent. The same goes for a
// finish stage that closed the record and came no further.
//
// It does not start runs and does not touch AWS beyond the records and what
// announcements and figures need. Imported
// by the composition root, and by tasks/finish, which tells of a run without
// records as well.
package reconcile
