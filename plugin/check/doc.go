// Package check says whether this pod could work: it tries what the plugin
// needs, each thing by itself, and tells what to do about what is missing.
//
// Nothing of it is part of serving. It changes nothing except for one small
// object in the bucket, always the same, since only writing proves that one
// may write.
//
// Imported by the composition root.
package check
