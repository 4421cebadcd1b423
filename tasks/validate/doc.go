// Package validate is the first stage of a run: it finds, before anything is
// built or written, whatever can be found wrong with the run's arguments, its
// configuration, its credentials and its worker, and reports all of it at once.
//
// It is also where a run that waited in the queue notices that the pipeline
// changed meanwhile and starts its own replacement.
package validate
