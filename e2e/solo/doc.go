// Package solo deploys in a process of its own: the deploy-env stage under the
// plugin's engine, with a journal in files and a folder for a bucket, so that it
// can be killed, signalled, timed and weighed. Only checkout and synth are
// replaced, by a configuration and an assembly that are there already.
package solo
