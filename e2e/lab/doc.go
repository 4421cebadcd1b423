// Package lab puts together everything a pipeline needs, for the end-to-end
// tests, the benchmarks and the demonstration: a cluster with Argo, an
// emulated AWS with two bootstrapped accounts, a git server, an npm registry,
// the images, and the plugin installed in a tenant's namespace.
//
// Nothing in it imitates aphex or Argo; it only brings real parts up and takes
// them down again.
package lab
