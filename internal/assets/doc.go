// Package assets publishes the file assets of a cloud assembly to the staging
// buckets of its environments, and checks that an environment is bootstrapped.
//
// Bytes are streamed: neither an archive nor a file is ever held whole in
// memory or written to disk. Container images are not its business.
package assets
