// Package images builds the two container images of aphex from their
// Dockerfiles, with Docker where an engine runs and with buildah elsewhere.
//
// Results are tars in the layout of docker save, which docker load, kind load
// and containerd's import take. They are kept outside the repository under the
// hash of what they are built from, with their checksums, and are built anew
// when either differs. Only the plugin image holds the aphex binary, in a layer
// of its own that is put on the cached rest without running a build.
//
// With buildah the base image is not pulled but made by debootstrap, since no
// container registry is needed or assumed. That needs root on Debian.
//
// It is imported by tests and commands under e2e.
package images
