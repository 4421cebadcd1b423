// Package images makes the container images of a cloud assembly and publishes
// them: Builder has them built where user code may run, Registry knows what is
// in Amazon ECR and sends what is not.
//
// A Dockerfile runs programs, so the build takes place in the worker, which
// holds no credentials. What it makes comes back as an archive in the format
// of `docker save`, is checked, and is sent by this process with a token that
// leaves it towards the registry only.
package images
