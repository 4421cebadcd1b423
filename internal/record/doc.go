// Package record keeps what happened in a run as JSON in the artifact bucket:
// one object per stage while the run lasts, and one for the whole run.
//
// It does not decide anything. The plugin reports stages to a Recorder; the
// finish stage closes the run's record.
package record
