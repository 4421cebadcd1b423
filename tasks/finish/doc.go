// Package finish is the stage that runs when everything else has ended, well
// or not: it closes the record of the run, sends its figures and announces its
// end.
//
// It never fails a run: a record that cannot be written is reported in its
// message and left to be closed from outside, while what is known of the end is
// told all the same. If it is ended itself before everybody was told, it has no
// outcome: the next pod goes on, or `aphex reconcile`.
package finish
