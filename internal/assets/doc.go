// Package assets publishes the file assets of a cloud assembly to the staging
// buckets of its environments, and checks that an environment is bootstrapped.
//
// A small file or archive is made in memory, once for all of its destinations;
// a large one is streamed in parts. What they take together is bounded, and
// nothing is written to disk. Container images are not its business.
package assets
