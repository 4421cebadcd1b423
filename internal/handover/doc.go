// Package handover lets a run leave its environments to a successor that has
// the pipeline's new topology: at most one for each run, and once begun never
// both of them.
//
// The run is marked first and the successor created after that. A run that is
// marked deploys nothing any more; whichever stage of it comes next creates
// the successor if that is not there. So a death, a refusal or a lost answer
// between the two, or before or after them, leaves one run that deploys.
//
// It does not decide when to hand over. Imported by tasks/workflow, tasks/deploy
// and the composition root.
package handover
